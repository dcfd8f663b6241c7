"""Is there room for a run? Asked before its first step: a full disk loses a model after its last one.

What a step needs is estimated without making one. A position keeps about 12 numbers of the model's width and 4 of the
feed-forward's width in each layer for the backward pass (measured within 10 % at widths from 64 to 512, float32); with
`recompute` its input of each layer, and one layer at a time. It is a little less than what is taken, so that nothing is
refused that would fit. `minimind plan` measures instead.
"""

import math
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from minimind.errors import RunError, TrainingError, UserError
from minimind.model import ModelConfig
from minimind.storage.run import Run
from minimind.training.epoch_source import EpochSource
from minimind.training.job import TrainingJob
from minimind.training.optimizer import Muon, Optimizers
from minimind.training.trainer import Trainer

__all__ = ["available_bytes", "position_bytes", "require_disk", "require_memory", "require_room", "state_sizes"]

FLOAT_BYTES = 4
CGROUP = Path("/sys/fs/cgroup")


def require_room(job: TrainingJob, trainer: Trainer, source: EpochSource, run: Run | None) -> None:
    """Of the disk, on rank 0, which writes; of memory on each. Errors: RunError, TrainingError; all ranks leave"""
    world, error = trainer.world, None
    try:
        if run is not None:
            require_disk(job, trainer, run)
        require_memory(job, trainer, source, available_bytes(world.device))
    except UserError as raised:
        error = raised
    if world.sum([float(error is not None)])[0]:
        raise error or TrainingError("another rank lacks room; its message says what")


def require_disk(job: TrainingJob, trainer: Trainer, run: Run) -> None:
    """Room for the checkpoints that are kept, and one that is being written. Errors: RunError"""
    trained, state, _ = state_sizes(trainer.model, trainer.optimizers)
    saved = trained if job.trained.base else sum(p.numel() for p in trainer.model.parameters())
    each, keep = FLOAT_BYTES * (saved + state), job.train.keep_checkpoints
    missing = max(keep + 1 - len(run.checkpoint_folders()), 1)
    free = shutil.disk_usage(run.folder).free
    if free < missing * each:
        raise RunError(
            f"{run.folder}: {missing} checkpoints of {each / 1e6:,.0f} MB each have to fit there, one of them "
            f"while it is written, and the disk has {free / 1e6:,.0f} MB free; make room, choose another --run, or "
            "keep fewer (--train.keep_checkpoints 1)"
        )


def require_memory(job: TrainingJob, trainer: Trainer, source: EpochSource, available: int) -> None:
    """Gradients, what the optimisers keep, and a micro-batch; the weights are there already. Errors: TrainingError"""
    train, config = job.train, job.trained.model.config
    trained, state, _ = state_sizes(trainer.model, trainer.optimizers)
    rows = math.ceil(source.items_per_step / source.ranks)

    def need(accumulate: int, *, recompute: bool) -> float:
        positions = math.ceil(rows / accumulate) * source.item_tokens
        return FLOAT_BYTES * (trained + state) + positions * position_bytes(config, recompute=recompute)

    if need(train.accumulate, recompute=train.recompute) <= available:
        return
    cuts = [2**n for n in range(1, rows.bit_length() + 1) if 2**n > train.accumulate]
    ways = [(cut, again) for again in (train.recompute, True) for cut in cuts or [train.accumulate]]
    fits = next(((cut, again) for cut, again in ways if need(cut, recompute=again) <= available), None)
    mend = (
        f"--train.accumulate {fits[0]}{' --train.recompute' * (fits[1] and not train.recompute)} fits, the same loss"
        if fits
        else "no cut of the step fits: take a smaller model, a shorter data.context, or an adapter (--lora.rank 8)"
    )
    raise TrainingError(
        f"a step needs about {need(train.accumulate, recompute=train.recompute) / 1e9:.1f} GB more memory and "
        f"{available / 1e9:.1f} GB are free on {trainer.world.device}; {mend}"
    )


def position_bytes(config: ModelConfig, *, recompute: bool) -> float:
    """What a position of a micro-batch keeps for the backward pass."""
    width, layers = config.hidden_size, config.num_hidden_layers
    inner = (
        config.moe_intermediate_size * config.num_experts_per_tok if config.num_experts else config.intermediate_size
    )
    layer = FLOAT_BYTES * (12 * width + 4 * inner)
    return FLOAT_BYTES * width * layers + layer if recompute else layers * layer


def available_bytes(device: torch.device) -> int:
    """What this process may still take there; where nothing tells, as much as it likes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [2**62]
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("MemAvailable", "SwapFree"))))
    with suppress(OSError, ValueError):
        limit, used = (int((CGROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        # Files that were read lately count as used, and give way.
        found.append(limit - used + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0)))
    return min(found)


def state_sizes(model: nn.Module, optimizers: Optimizers) -> tuple[int, int, int]:
    """How many numbers have gradients, how many the optimisers keep, and how many Muon updates at once."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    state, groups = 0, {torch.Size(): 0}
    for part in optimizers.parts.values():
        for parameter in (parameter for group in part.param_groups for parameter in group["params"]):
            # Muon keeps a momentum, AdamW the mean of the gradient and of its square.
            state += parameter.numel() * (1 if isinstance(part, Muon) else 2)
            if isinstance(part, Muon):
                groups[parameter.shape] = groups.get(parameter.shape, 0) + parameter.numel()
    return trained, state, max(groups.values())
