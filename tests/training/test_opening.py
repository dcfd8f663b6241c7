"""A job goes on from what is whole and its own; whatever is damaged, or another's, is noticed."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.tiny_jobs import TEXT, TOKENIZER, TRAIN, make_job, outcome, stop_after

from minimind.data.loader import PackedRows
from minimind.errors import CheckpointError
from minimind.storage import verify
from minimind.storage.folder import digest_of
from minimind.text.tokenizer import Tokenizer
from minimind.training import opening as module
from minimind.training.distributed import World
from minimind.training.fit import fit
from minimind.training.opening import open_job


def test_epochs_are_counted_in_steps(tmp_path: Path) -> None:
    steps = PackedRows(TRAIN, context=32, batch_tokens=96, seed=0).steps_per_epoch
    for epochs, expected in ((1.0, steps), (2.0, 2 * steps), (0.5, math.ceil(steps / 2)), (0.001, 1)):
        job = make_job(tmp_path / "run", steps=None, epochs=epochs)
        assert open_job(job, World(), None).trainer.total_steps == expected


def test_arithmetic_that_was_measured_once_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(module, "fastest_dtype", lambda device: torch.bfloat16)
    with pytest.raises(SystemExit):
        fit(stop_after(make_job(folder, dtype="auto"), 2))
    monkeypatch.setattr(module, "fastest_dtype", lambda device: torch.float32)
    assert open_job(make_job(folder, dtype="auto"), World(), None).placement.dtype == torch.bfloat16


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "training_state/optimizers.safetensors", "training_state/facts.json", "manifest.json"]
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], name: str
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        fit(stop_after(make_job(folder, checkpoint_every=2), 4))
    damage(folder / "checkpoints" / "step-000005" / name)
    capsys.readouterr()
    fit(make_job(folder, checkpoint_every=5))
    captured = capsys.readouterr()
    assert "step-000005" in captured.out + captured.err and "resuming at step 4" in captured.err
    assert outcome(folder) == outcome(whole)


def test_when_no_checkpoint_is_whole_nothing_is_started_silently(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        fit(stop_after(make_job(folder), 2))
    cut(folder / "checkpoints" / "step-000003" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"none of its 1 checkpoints is whole"):
        fit(make_job(folder))


def test_a_checkpoint_is_hashed_once_when_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, hashed = tmp_path / "run", []
    with pytest.raises(SystemExit):
        fit(stop_after(make_job(folder), 2))
    monkeypatch.setattr(verify, "digest_of", lambda path: hashed.append(path.name) or digest_of(path))
    open_job(make_job(folder), World(), None)
    assert "model.safetensors" in hashed and len(hashed) == len(set(hashed)), hashed


def test_another_tokenizer_under_the_same_name_is_refused(whole: Path) -> None:
    other, job = Tokenizer.train([TEXT[::-1]], 300), make_job(whole)
    with pytest.raises(CheckpointError, match=f"trained with tokenizer {TOKENIZER.fingerprint[:12]}, got"):
        fit(replace(job, trained=replace(job.trained, tokenizer=other)))
