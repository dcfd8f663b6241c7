"""What a run writes down is what is needed to look at it and to go on, and no more."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training.tiny_jobs import TRAIN, failing, make_job

from minimind.data.loader import PackedRows
from minimind.errors import TrainingError
from minimind.storage.run import RunReader
from minimind.training.fit import fit


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    fit(make_job(tmp_path / "run", checkpoint_every=2, keep_checkpoints=2))
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["latest", "step-000006", "step-000007"]


def test_the_batch_that_cannot_be_learnt_is_kept_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"step 6: .* the last batch is in .*bad-batch-rank0\.safetensors"):
        fit(replace(make_job(folder, accumulate=2), objective=failing(None, at=3)))
    kept = load_file(folder / "bad-batch-rank0.safetensors")
    source = PackedRows(TRAIN, context=32, batch_tokens=96, seed=0, accumulate=2)
    for number, batch in enumerate(source.micro_batches(5)):
        for name in ("tokens", "targets", "weights"):
            assert torch.equal(kept[f"{number}.{name}"], getattr(batch, name))
        assert tuple(kept[f"{number}.lengths"].tolist()) == batch.lengths
    assert RunReader(folder).metrics()[-1]["skipped"] == 5
