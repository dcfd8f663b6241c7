"""What every training stage does around the loop: join the ranks, resume, validate, sample, save, show progress.

A stage brings a model, an objective, its data and a run; `fit` brings them together. No stage has a loop of its own.
"""

import math
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from minimind.errors import CheckpointError, ConfigError, RunError, TrainingError, UserError
from minimind.interfaces import Batch
from minimind.storage.run import Run, RunReader
from minimind.storage.verify import verify_folder
from minimind.terminal.notes import warn
from minimind.terminal.progress import TrainingProgress
from minimind.training.compilation import compile_as_chosen
from minimind.training.device import fastest_dtype, reuse_freed_memory
from minimind.training.distributed import World, join, leave
from minimind.training.job import Placement, TrainingJob
from minimind.training.optimizer import optimizers_for
from minimind.training.state import STATE, load_training_state, read_training_facts, training_state_files
from minimind.training.trainer import Hooks, Trainer, train

__all__ = ["fit"]

# Below this rate of AdamW an adapter hardly moves: docs/lora.md has figures.
SLOW_ADAPTER_LR = 2e-4


def fit(job: TrainingJob) -> None:
    """Train `job.trained` into the run at `job.folder`, resuming it if it was started before.

    Errors: ConfigError, DataError, RunError, CheckpointError, TrainingError; SystemExit at a signal
    """
    if job.context > job.trained.model.config.max_position_embeddings:
        raise ConfigError(
            f"data.context is {job.context}, more than the model's max_position_embeddings "
            f"{job.trained.model.config.max_position_embeddings}; lower the first"
        )
    reuse_freed_memory()
    world = join(job.train.device)
    try:
        with ExitStack() as stack:
            _Fit(job, world, _open_run(job, world, stack)).train()
    except RuntimeError as error:
        # A GPU's OutOfMemoryError is one; torch has no class of its own for a CPU that is out of memory.
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        raise TrainingError(
            f"out of memory on {world.device}; the same loss fits with --train.accumulate {job.train.accumulate * 2} "
            "or --train.recompute"
        ) from error
    finally:
        leave()


def _open_run(job: TrainingJob, world: World, stack: ExitStack) -> Run | None:
    """The run on rank 0. If it cannot be had, all ranks leave, and rank 0 says why."""
    run, error = None, None
    if world.is_main:
        try:
            run = stack.enter_context(Run.create(job.folder, job.config))
        except UserError as raised:
            error = raised
    if world.sum([float(error is not None)])[0]:
        raise error or RunError(f"{job.folder}: rank 0 could not open this run; its message says why")
    return run


class _Fit:
    """One call of `fit`: everything resolved, on this rank."""

    def __init__(self, job: TrainingJob, world: World, run: Run | None) -> None:
        self.job, self.world, self.run, self.settings = job, world, run, job.train
        self.model = job.trained.model
        self.module = (job.module or self.model).to(world.device)
        self.model.recompute_blocks = self.settings.recompute
        checkpoint = self._load_weights()
        world.copy_from_main(self.module.parameters())
        facts = read_training_facts(checkpoint) if checkpoint else {}
        self._refuse_other_inputs(facts)
        self.dtype = self._choose_dtype(facts)
        self.optimizers = optimizers_for(self.module, self.settings, self.dtype)
        placement = Placement(world, self.dtype, self.settings)
        source = self.source = job.source(placement)
        if checkpoint:
            load_training_state(checkpoint, self.module, self.optimizers)
            source.load_state(checkpoint / STATE)
        total = self.settings.steps or math.ceil(source.steps_per_epoch * self.settings.epochs)
        self.seconds = facts.get("seconds", 0.0)
        self.trainer = Trainer(
            model=self.module,
            objective=job.objective,
            source=source,
            optimizers=self.optimizers,
            settings=self.settings,
            total_steps=total,
            world=world,
            precision=placement.precision,
            step=facts.get("step", 0),
            tokens=facts.get("tokens", 0),
            skipped=facts.get("skipped", 0),
        )
        if run is not None:
            run.rewind(self.trainer.step if checkpoint else None)
        self.is_compiled = self._maybe_compile(facts)
        self.validation = job.validation(placement) if job.validation is not None else None
        self.progress = TrainingProgress(job.name, total, self.trainer.step, is_shown=world.is_main)

    def train(self) -> None:
        """Run the loop from where it stands, and mark the run as finished."""
        self._introduce()
        self.started = time.monotonic()
        hooks = Hooks(
            is_measured=self._is_measured,
            validate=self._validate,
            sample=self._sample,
            log=self._log,
            save=self._save,
            keep_bad=self._keep_bad,
        )
        with self.progress:
            try:
                train(self.trainer, hooks)
            except SystemExit:
                self.progress.note(
                    f"stopped at step {self.trainer.step}; the checkpoint is whole, the same command goes on from it"
                )
                raise
        if self.run is not None:
            last = [row for row in self.run.metrics() if _is_validated(row)][-1:]
            self.run.finish(last[0] if last else {"step": self.trainer.step})

    def _introduce(self) -> None:
        dtype = str(self.dtype).removeprefix("torch.")
        self.progress.note(
            f"{self.job.name}: {self.job.trained.describe()}, {self.source.describe()}, "
            f"{self.trainer.total_steps:,} steps, {dtype}{', compiled' if self.is_compiled else ''}, "
            f"{self.world.size} process{'es' if self.world.size > 1 else ''}"
        )
        if self.job.trained.base and self.settings.optimizer == "adamw" and self.settings.lr < SLOW_ADAPTER_LR:
            self.progress.note(
                f"an adapter learns little at a train.lr of {self.settings.lr:g}; 10 to 20 times that is usual"
            )
        if self.validation is None:
            self.progress.note("nothing is held out, so no figure will tell learning from memorising")
        if self.trainer.step == self.trainer.total_steps:
            self.progress.note(f"all {self.trainer.step} steps are made already; give another --run to train anew")
        elif self.trainer.step:
            self.progress.note(f"resuming at step {self.trainer.step}")

    def _load_weights(self) -> Path | None:
        """The newest checkpoint that is whole, loaded into the model; a damaged one is named and passed over."""
        folders = RunReader(self.job.folder).checkpoint_folders()
        for folder in reversed(folders):
            try:
                verify_folder(folder)
            except CheckpointError as error:
                if self.world.is_main:
                    warn(f"{error}; trying the checkpoint before it")
                continue
            self.job.trained.load(folder)
            return folder
        if folders:
            raise CheckpointError(f"{self.job.folder}: none of its {len(folders)} checkpoints is whole; start anew")
        return None

    def _refuse_other_inputs(self, facts: Mapping[str, Any]) -> None:
        """A path may be the same while the data or model behind it was made anew, so fingerprints are compared."""
        for name, found in self.job.inputs.items():
            began = facts.get("inputs", {}).get(name, found)
            if began != found:
                raise RunError(
                    f"{self.job.folder}: {name} is no longer what this run began with (fingerprint {began[:12]}, now "
                    f"{found[:12]}); put it back, choose another run folder, or delete this one to train anew"
                )

    def _choose_dtype(self, facts: Mapping[str, Any]) -> torch.dtype:
        """What was asked for; else what the run began with; else what a measurement on rank 0 finds faster."""
        name = self.settings.dtype if self.settings.dtype != "auto" else facts.get("dtype")
        if name is not None:
            return torch.bfloat16 if name == "bfloat16" else torch.float32
        is_fast = fastest_dtype(self.world.device) == torch.bfloat16 if self.world.is_main else False
        return torch.bfloat16 if self.world.sum([float(is_fast)])[0] else torch.float32

    def _maybe_compile(self, facts: Mapping[str, Any]) -> bool:
        choice = self.settings.compile
        if "compiled" in facts:
            choice = "on" if facts["compiled"] else "off"
        elif choice == "auto" and self.world.size > 1:
            # Ranks could measure differently, and must compute alike.
            choice = "off"
        return compile_as_chosen(
            choice, self.model, self.trainer.rehearse, self.trainer.total_steps - self.trainer.step
        )

    def _is_measured(self, step: int) -> bool:
        """Not at the start, nor where a validation failed after its update."""
        if step % self.settings.valid_every and step != self.trainer.total_steps:
            return True
        is_missing = self.run is not None and all(row["step"] != step for row in self.run.metrics())
        return not self.world.sum([float(is_missing)])[0]

    def _validate(self) -> Mapping[str, float]:
        return self.validation(self.trainer) if self.validation is not None else {}

    def _sample(self, step: int) -> None:
        if self.run is not None:
            for prompt, text in self.job.sample():
                self.run.log_sample(step, prompt, text)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.progress.update(step, metrics)
        is_due = step % self.settings.log_every == 0 or step == self.trainer.total_steps
        if self.run is not None and (is_due or _is_validated(metrics)):
            timings = {f"seconds_{name}": seconds for name, seconds in self.source.timings.items()}
            self.run.log(step, {**metrics, **timings, "seconds": round(self._elapsed(), 3)})

    def _save(self, step: int) -> None:
        # All ranks together: what a source has under way may lie in parts on each of them.
        of_source = self.source.state_files()
        if self.run is not None:
            facts = {
                "step": step,
                "tokens": self.trainer.tokens,
                "skipped": self.trainer.skipped,
                "seconds": self._elapsed(),
                "dtype": str(self.dtype).removeprefix("torch."),
                "compiled": self.is_compiled,
                "inputs": dict(self.job.inputs),
            }
            folder = self.run.checkpoint_folder(step)
            # If one is there already, it was damaged and passed over when this run was resumed.
            shutil.rmtree(folder, ignore_errors=True)
            files = {
                **training_state_files(facts, self.module, self.optimizers),
                **{f"{STATE}/{name}": content for name, content in of_source.items()},
            }
            trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
            self.job.trained.save(folder, files, 8 * sum(parameter.numel() for parameter in trained))
            self.run.point_latest(step)
            self.run.prune(self.settings.keep_checkpoints)
        self.world.wait()

    def _keep_bad(self, batches: list[Batch]) -> str:
        """Save what could not be learnt from, to look at and to replay."""
        path = self.job.folder / f"bad-batch-rank{self.world.rank}.safetensors"
        tensors = {
            f"{index}.{name}": getattr(batch, name).cpu().contiguous()
            for index, batch in enumerate(batches)
            for name in ("tokens", "targets", "weights")
        }
        # Where documents end decides what attention sees, so a batch without them could not be replayed.
        tensors |= {f"{i}.lengths": torch.tensor(batch.lengths) for i, batch in enumerate(batches) if batch.lengths}
        save_file(tensors, path)
        return str(path)


def _is_validated(row: Mapping[str, object]) -> bool:
    """Has this step held-out figures? Each stage names its own."""
    return any(name.startswith("valid_") for name in row)
