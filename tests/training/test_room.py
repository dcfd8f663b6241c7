"""What cannot fit is refused before the first step, with what would; what fits is not."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from tests.training.tiny_jobs import make_job

from minimind.errors import RunError, TrainingError
from minimind.model import ModelConfig, Transformer
from minimind.storage.run import Run
from minimind.training import room
from minimind.training.distributed import World
from minimind.training.opening import open_job
from minimind.training.room import available_bytes, position_bytes, require_disk, require_memory, state_sizes
from minimind.training.running_job import RunningJob


@pytest.fixture
def opened(tmp_path: Path) -> RunningJob:
    """A job of 3 rows of 32 positions a step, opened as `fit` does."""
    job = make_job(tmp_path / "run")
    with ExitStack() as stack:
        run = stack.enter_context(Run.create(job.folder, job.config))
        return open_job(job, World(), run)


def need_of(running: RunningJob, positions: int) -> int:
    trained, state, _ = state_sizes(running.trainer.model, running.trainer.optimizers)
    each = position_bytes(running.job.trained.model.config, recompute=False)
    return int(4 * (trained + state) + positions * each) + 1


def test_memory_that_is_enough_is_not_refused(opened: RunningJob) -> None:
    require_memory(opened.job, opened.trainer, opened.source, need_of(opened, 96))
    assert available_bytes(torch.device("cpu")) > 0


def test_a_step_that_does_not_fit_is_refused_with_a_cut_that_does(opened: RunningJob) -> None:
    with pytest.raises(TrainingError, match=r"memory and .* are free on cpu; --train.accumulate 2 fits, the same loss"):
        require_memory(opened.job, opened.trainer, opened.source, need_of(opened, 64))
    with pytest.raises(TrainingError, match=r"no cut of the step fits: take a smaller model, .*--lora.rank 8"):
        require_memory(opened.job, opened.trainer, opened.source, need_of(opened, 0) // 2)


def test_a_disk_that_will_be_full_is_refused(opened: RunningJob, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened.run is not None
    require_disk(opened.job, opened.trainer, opened.run)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10_000}))
    with pytest.raises(RunError, match=r"3 checkpoints of .* and the disk has 0 MB free; .*keep_checkpoints 1"):
        require_disk(opened.job, opened.trainer, opened.run)


@pytest.mark.parametrize("width", [32, 64])
def test_the_estimate_of_a_position_is_what_torch_keeps_to_a_quarter(
    width: int, kept_bytes: Callable[[Transformer], float]
) -> None:
    shape = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": width // 4}
    model = Transformer(ModelConfig(vocab_size=64, hidden_size=width, intermediate_size=3 * width, **shape))
    assert kept_bytes(model) == pytest.approx(position_bytes(model.config, recompute=False), rel=0.25)


@pytest.fixture
def kept_bytes() -> Callable[[Transformer], float]:
    """What a forward pass keeps for each position, weights left out."""

    def measure(model: Transformer) -> float:
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.zeros(2, 128, dtype=torch.long))
        return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in weights) / 256

    return measure
