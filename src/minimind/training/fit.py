"""The loop: steps, and what is due at them. It is the only one; all stages that train end here.

A stage brings a `TrainingJob`: a model, an objective, its data and a folder. `opening.py` makes it ready on this rank,
`trainer.py` makes a step, `running_job.py` writes down what a step makes due. When that is stands below.
"""

import time
from contextlib import ExitStack

import torch

from minimind.errors import ConfigError, RunError, TrainingError, UserError
from minimind.storage.run import Run
from minimind.terminal.progress import TrainingProgress
from minimind.training.device import reuse_freed_memory
from minimind.training.distributed import World, join, leave
from minimind.training.job import TrainingJob
from minimind.training.opening import open_job
from minimind.training.rising_loss import RisingLoss
from minimind.training.running_job import RunningJob, is_validated
from minimind.training.stop_signal import StopSignal

__all__ = ["MAX_SKIPPED", "fit"]

# After this many updates in a row were skipped, the run is not going to recover by itself.
MAX_SKIPPED = 5
# Below this rate of AdamW an adapter hardly moves: docs/lora.md has figures.
SLOW_ADAPTER_LR = 2e-4


def fit(job: TrainingJob) -> None:
    """Train `job.trained` into the run at `job.folder`, resuming it if it was started before.

    Errors: ConfigError, DataError, RunError, CheckpointError; TrainingError after MAX_SKIPPED updates in a row were not
            finite, and from the source and the validation, with a checkpoint of the updates that were made; SystemExit
            130 or 143 after a signal, with one at the exact step
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
            running = open_job(job, world, _open_folder(job, world, stack))
            total, step = running.trainer.total_steps, running.trainer.step
            progress = stack.enter_context(TrainingProgress(job.name, total, step, is_shown=world.is_main))
            _introduce(running, progress)
            _train(running, progress)
            running.finish()
            if world.is_main:
                progress.note(_where_next(job))
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


def _train(running: RunningJob, progress: TrainingProgress) -> None:
    """Update until the last step, and do what is due at each."""
    trainer, train = running.trainer, running.job.train

    def due(every: int) -> bool:
        return trainer.step % every == 0 or trainer.step == trainer.total_steps

    trainer.model.train()
    if running.is_missing_validation():
        row = running.validate()
        progress.update(trainer.step, row)
        running.log(row)
    saved, saved_at, rising = trainer.step, time.monotonic(), RisingLoss()
    with StopSignal() as signals:
        while trainer.step < trainer.total_steps:
            began = time.monotonic()
            try:
                is_late = bool(train.checkpoint_minutes) and began - saved_at > 60 * train.checkpoint_minutes
                update = trainer.update(stop=signals.received is not None, save=is_late)
                row = running.row_of(update, time.monotonic() - began)
                if due(train.valid_every):
                    row |= running.validate()
                    running.sample()
            except TrainingError:
                # A server that samples or a reward may be gone: what was learnt until then must not go with it.
                if trainer.step > saved:
                    running.save()
                raise
            progress.update(trainer.step, row)
            if told := rising.seen(update.loss):
                progress.note(f"warning: step {trainer.step}: {told}")
            if due(train.log_every) or is_validated(row):
                running.log(row)
            if update.skipped >= MAX_SKIPPED:
                place = running.keep_bad(trainer.last_batches)
                raise TrainingError(
                    f"step {trainer.step}: loss or gradient was not finite {MAX_SKIPPED} times in a row; no weight was "
                    f"changed by them, the last batch is in {place}; lower the learning rates, or look at that batch"
                )
            if due(train.checkpoint_every) or update.stop or update.save:
                running.save()
                saved, saved_at = trainer.step, time.monotonic()
            if update.stop and trainer.step < trainer.total_steps:
                progress.note(f"stopped at step {saved}; the checkpoint is whole, the same command goes on from it")
                raise SystemExit(signals.exit_code)


def _open_folder(job: TrainingJob, world: World, stack: ExitStack) -> Run | None:
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


def _where_next(job: TrainingJob) -> str:
    """What a beginner wants to know when a run is over."""
    talk = f"minimind {'generate' if job.name in ('pretrain', 'distill') else 'chat'} {job.folder}"
    return (
        f"the model is in {job.folder}; talk with it: {talk}{' --prompt TEXT' * talk.startswith('minimind gen')}; "
        f"look at the run: minimind report {job.folder}"
    )


def _introduce(running: RunningJob, progress: TrainingProgress) -> None:
    """Say what is about to happen, and what a beginner might not expect of it."""
    job, trainer, placement = running.job, running.trainer, running.placement
    dtype, ranks = str(placement.dtype).removeprefix("torch."), placement.world.size
    progress.note(
        f"{job.name}: {job.trained.describe()}, {running.source.describe()}, {trainer.total_steps:,} steps, "
        f"{dtype}{', compiled' if running.is_compiled else ''}, {ranks} process{'es' if ranks > 1 else ''}"
    )
    if job.trained.base and job.train.optimizer == "adamw" and job.train.lr < SLOW_ADAPTER_LR:
        progress.note(f"an adapter learns little at a train.lr of {job.train.lr:g}; 10 to 20 times that is usual")
    if trainer.step < trainer.total_steps <= (job.train.warmup_steps or 0):
        progress.note(
            f"warning: the warm-up of {job.train.warmup_steps} steps is longer than the run, whose rates never reach "
            "their peak; lower train.warmup_steps, or leave it out"
        )
    if running.validation is None:
        progress.note("nothing is held out, so no figure will tell learning from memorising")
    if trainer.step == trainer.total_steps:
        progress.note(f"all {trainer.step} steps are made already; give another --run to train anew")
    elif trainer.step:
        progress.note(f"resuming at step {trainer.step}")
