"""A training job under way, and what is done for it where a step makes something due; `fit.py` says when."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from minimind.interfaces import Batch
from minimind.storage.run import Run
from minimind.training.epoch_source import EpochSource
from minimind.training.job import Placement, TrainingJob, Validation
from minimind.training.state import STATE, training_state_files
from minimind.training.trainer import Trainer, Update

__all__ = ["RunningJob", "is_validated"]


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A job at the step where it stands, on this rank: what was open is decided, what was saved is loaded.

    run:     on rank 0, the one that writes; None on the others
    began:   on the monotonic clock, when training would have begun had it never been interrupted
    """

    job: TrainingJob
    placement: Placement
    run: Run | None
    trainer: Trainer
    source: EpochSource
    validation: Validation | None
    is_compiled: bool
    began: float

    def is_missing_validation(self) -> bool:
        """Nothing was measured at this step, where a run begins; or where a validation failed after its update."""
        step, train = self.trainer.step, self.job.train
        if step % train.valid_every and step != self.trainer.total_steps:
            return False
        is_missing = self.run is not None and all(row["step"] != step for row in self.run.metrics())
        return bool(self.placement.world.sum([float(is_missing)])[0])

    def validate(self) -> Mapping[str, float]:
        """The held-out figures; none where nothing is held out."""
        return self.validation(self.trainer) if self.validation is not None else {}

    def sample(self) -> None:
        if self.run is not None:
            for prompt, text in self.job.sample():
                self.run.log_sample(self.trainer.step, prompt, text)

    def row_of(self, update: Update, seconds: float) -> dict[str, float]:
        """What there is to log of a step that took so long."""
        return {
            **update.figures,
            "learning_rate": update.learning_rate,
            "gradient_norm": update.gradient_norm,
            "tokens": self.trainer.tokens,
            "skipped": update.skipped,
            "tokens_per_second": update.num_tokens / seconds,
        }

    def log(self, row: Mapping[str, float]) -> None:
        if self.run is not None:
            timings = {f"seconds_{name}": seconds for name, seconds in self.source.timings.items()}
            self.run.log(self.trainer.step, {**row, **timings, "seconds": round(time.monotonic() - self.began, 3)})

    def save(self) -> None:
        """Write a checkpoint of this step; all ranks come here together. Errors: CheckpointError"""
        # What a source has under way may lie in parts on each of the ranks.
        of_source = self.source.state_files()
        if self.run is not None:
            trainer, folder = self.trainer, self.run.checkpoint_folder(self.trainer.step)
            # If one is there already, it was damaged and passed over when this run was resumed.
            shutil.rmtree(folder, ignore_errors=True)
            files = {
                **training_state_files(self._facts(), trainer.model, trainer.optimizers),
                **{f"{STATE}/{name}": content for name, content in of_source.items()},
            }
            trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
            self.job.trained.save(folder, files, 8 * sum(parameter.numel() for parameter in trained))
            self.run.point_latest(trainer.step)
            self.run.prune(self.job.train.keep_checkpoints)
        self.placement.world.wait()

    def keep_bad(self, batches: Sequence[Batch]) -> Path:
        """Save what could not be learnt from, to look at and to replay."""
        path = self.job.folder / f"bad-batch-rank{self.placement.world.rank}.safetensors"
        tensors = {
            f"{index}.{name}": getattr(batch, name).cpu().contiguous()
            for index, batch in enumerate(batches)
            for name in ("tokens", "targets", "weights")
        }
        # Where documents end decides what attention sees, so a batch without them could not be replayed.
        tensors |= {f"{i}.lengths": torch.tensor(batch.lengths) for i, batch in enumerate(batches) if batch.lengths}
        save_file(tensors, path)
        return path

    def finish(self) -> None:
        """Mark the run as complete, with the figures of its last validation."""
        if self.run is not None:
            last = [row for row in self.run.metrics() if is_validated(row)][-1:]
            self.run.finish(last[0] if last else {"step": self.trainer.step})

    def _facts(self) -> dict[str, object]:
        return {
            "step": self.trainer.step,
            "tokens": self.trainer.tokens,
            "skipped": self.trainer.skipped,
            "seconds": time.monotonic() - self.began,
            "dtype": str(self.placement.dtype).removeprefix("torch."),
            "compiled": self.is_compiled,
            "inputs": dict(self.job.inputs),
        }


def is_validated(row: Mapping[str, object]) -> bool:
    """Has this step held-out figures? Each stage names its own."""
    return any(name.startswith("valid_") for name in row)
