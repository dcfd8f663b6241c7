"""From a job to one that runs: a fresh run from its beginning, an interrupted one from its newest whole checkpoint."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from minimind.errors import CheckpointError, RunError
from minimind.storage.run import Run, RunReader
from minimind.storage.verify import verify_folder
from minimind.terminal.notes import warn
from minimind.training.compilation import compile_as_chosen
from minimind.training.device import fastest_dtype
from minimind.training.distributed import World
from minimind.training.job import Placement, TrainingJob
from minimind.training.optimizer import optimizers_for
from minimind.training.room import require_room
from minimind.training.running_job import RunningJob
from minimind.training.state import STATE, load_training_state, read_training_facts
from minimind.training.trainer import Trainer

__all__ = ["open_job"]


def open_job(job: TrainingJob, world: World, run: Run | None) -> RunningJob:
    """Decide what the job left open, and load what a checkpoint of it has; all ranks come here together.

    run:    on rank 0
    Errors: CheckpointError, RunError, ConfigError, DataError, TrainingError where memory is too small
    """
    job.trained.model.recompute_blocks = job.train.recompute
    module = (job.module or job.trained.model).to(world.device)
    checkpoint = _load_weights(job, world)
    world.copy_from_main(module.parameters())
    facts = read_training_facts(checkpoint) if checkpoint else {}
    _refuse_other_inputs(job, facts)
    placement = Placement(world, _choose_dtype(job, world, facts), job.train)
    optimizers, source = optimizers_for(module, job.train, placement.dtype), job.source(placement)
    if checkpoint:
        load_training_state(checkpoint, module, optimizers)
        source.load_state(checkpoint / STATE)
    trainer = Trainer(
        model=module,
        objective=job.objective,
        source=source,
        optimizers=optimizers,
        settings=job.train,
        total_steps=job.train.steps or math.ceil(source.steps_per_epoch * (job.train.epochs or 1)),
        world=world,
        precision=placement.precision,
        **{name: facts[name] for name in ("step", "tokens", "skipped") if name in facts},
    )
    if run is not None:
        run.rewind(trainer.step if checkpoint else None)
    require_room(job, trainer, source, run)
    return RunningJob(
        job=job,
        placement=placement,
        run=run,
        trainer=trainer,
        source=source,
        is_compiled=_compile(job, trainer, facts),
        validation=job.validation(placement) if job.validation is not None else None,
        began=time.monotonic() - facts.get("seconds", 0.0),
    )


def _load_weights(job: TrainingJob, world: World) -> Path | None:
    """The newest checkpoint that is whole, loaded into the model; a damaged one is named and passed over."""
    folders = RunReader(job.folder).checkpoint_folders()
    for folder in reversed(folders):
        try:
            verify_folder(folder)
        except CheckpointError as error:
            if world.is_main:
                warn(f"{error}; trying the checkpoint before it")
            continue
        job.trained.load(folder)
        return folder
    if folders:
        raise CheckpointError(f"{job.folder}: none of its {len(folders)} checkpoints is whole; start anew")
    return None


def _refuse_other_inputs(job: TrainingJob, facts: Mapping[str, Any]) -> None:
    """A path may be the same while the data or model behind it was made anew, so fingerprints are compared."""
    for name, found in job.inputs.items():
        began = facts.get("inputs", {}).get(name, found)
        if began != found:
            raise RunError(
                f"{job.folder}: {name} is no longer what this run began with (fingerprint {began[:12]}, now "
                f"{found[:12]}); put it back, choose another run folder, or delete this one to train anew"
            )


def _choose_dtype(job: TrainingJob, world: World, facts: Mapping[str, Any]) -> torch.dtype:
    """What was asked for; else what the run began with; else what a measurement on rank 0 finds faster."""
    name = job.train.dtype if job.train.dtype != "auto" else facts.get("dtype")
    if name is not None:
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    is_fast = fastest_dtype(world.device) == torch.bfloat16 if world.is_main else False
    return torch.bfloat16 if world.sum([float(is_fast)])[0] else torch.float32


def _compile(job: TrainingJob, trainer: Trainer, facts: Mapping[str, Any]) -> bool:
    """As the run began; else as asked for, where all ranks would do the same."""
    choice = job.train.compile
    if "compiled" in facts:
        choice = "on" if facts["compiled"] else "off"
    elif choice == "auto" and trainer.world.size > 1:
        # Ranks could measure differently, and must compute alike.
        choice = "off"
    return compile_as_chosen(choice, job.trained.model, trainer.rehearse, trainer.total_steps - trainer.step)
