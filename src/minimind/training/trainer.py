"""The loop. All stages share it: pretraining, fine-tuning, and everything that comes after.

A step gathers the *sum* of the weighted losses and its gradient over all micro-batches and ranks, then divides once, by
the weight of the whole step. That division is the only one; so accumulation, padding, packing and ranks are matters of
memory and speed, and cannot change what is learnt. `Trainer.update` is that step, `train` what happens around it.
"""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import nn

from minimind.errors import TrainingError
from minimind.interfaces import Batch, Loss, Objective, Source
from minimind.training.distributed import World
from minimind.training.optimizer import Optimizers
from minimind.training.schedule import rate_scale
from minimind.training.settings import UpdateConfig

__all__ = ["Hooks", "StopSignal", "Trainer", "train"]

# After this many updates in a row were skipped, the run is not going to recover by itself.
MAX_SKIPPED = 5
MOMENTUM_WARMUP_STEPS = 300


@dataclass(kw_only=True)
class Trainer:
    """A model, what it learns from, and how: everything that one update needs.

    precision: makes the context in which the objective runs, such as autocast
    step:      updates done so far
    tokens:    positions seen so far that were not padding, over all ranks
    """

    model: nn.Module
    objective: Objective
    source: Source
    optimizers: Optimizers
    settings: UpdateConfig
    total_steps: int
    world: World = field(default_factory=World)
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    step: int = 0
    tokens: int = 0
    skipped: int = 0
    last_batches: list[Batch] = field(default_factory=list)

    def update(self, stop: bool = False) -> dict[str, float]:
        """One step: returns its metrics.

        stop:   this rank wants to stop; the metric "stop" tells whether any does, so that all stop at the same step
        Errors: TrainingError when no token of the step has weight
        """
        # Dropout draws from torch's own generator: what it draws depends on the step, not on what ran before.
        torch.manual_seed(((self.settings.seed * 1_000_003 + self.step) * 1_009 + self.world.rank) % 2**63)
        self.last_batches = list(self.source.micro_batches(self.step))
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizers.zero_grad()
        sums: dict[str, float] = {"weight": 0.0, "tokens": 0.0, "stop": float(stop)}
        for batch in self.last_batches:
            loss = self.sum_of(batch)
            loss.total.backward()
            _count(sums, batch, loss)

        self.world.sum_gradients(parameters)
        sums = dict(zip(sums, self.world.sum(sums.values()), strict=True))
        if sums["weight"] == 0:
            raise TrainingError(
                f"step {self.step + 1}: none of its {sums['tokens']:.0f} tokens has weight, so there is nothing to "
                "learn; check that the data has assistant answers, or take more data per step"
            )
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for gradient in gradients:
            gradient.mul_(1 / sums["weight"])
        norm = float(nn.utils.clip_grad_norm_(parameters, self.settings.clip))
        metrics = _means(sums)
        if self.source.accepts(metrics):
            self._apply(is_sound=math.isfinite(norm) and math.isfinite(metrics["loss"]))
        self.step += 1
        self.tokens += int(sums["tokens"])
        return metrics | {
            "learning_rate": self.optimizers.learning_rate,
            "gradient_norm": norm,
            "tokens": self.tokens,
            "step_tokens": sums["tokens"],
            "skipped": self.skipped,
            "stop": sums["stop"],
        }

    def rehearse(self) -> None:
        """Forward and backward over this rank's part of the next step, to be timed: no gradient stays."""
        for batch in self.source.micro_batches(self.step):
            self.sum_of(batch).total.backward()
        self.optimizers.zero_grad()

    @torch.no_grad()
    def measure(self, batches: Sequence[Batch], objective: Objective | None = None) -> dict[str, float]:
        """The figures of the objective, or of another, over `batches` of all ranks, without learning from them."""
        self.model.eval()
        sums: dict[str, float] = {"weight": 0.0, "tokens": 0.0}
        for batch in batches:
            _count(sums, batch, self.sum_of(batch, objective))
        self.model.train()
        return _means(dict(zip(sums, self.world.sum(sums.values()), strict=True)))

    def sum_of(self, batch: Batch, objective: Objective | None = None) -> Loss:
        """The objective's sums over one micro-batch, in the run's precision."""
        with self.precision():
            return (objective or self.objective)(self.model, batch.to(self.world.device))

    def _apply(self, *, is_sound: bool) -> None:
        """Take the optimisers' step, unless the gradient is not finite. All ranks see the same sums, so they agree."""
        if not is_sound:
            self.skipped += 1
            return
        self.skipped = 0
        warmup = min(1.0, self.step / MOMENTUM_WARMUP_STEPS)
        momentum = self.settings.momentum - 0.1 * (1 - warmup)
        self.optimizers.set_scale(rate_scale(self.step, self.total_steps, self.settings), max(momentum, 0.0))
        self.optimizers.step()


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a stage does at the cadences of the loop; on rank 0 alone where it writes.

    is_measured: is there nothing to validate at a step that a run begins or goes on with?
    """

    is_measured: Callable[[int], bool]
    validate: Callable[[], Mapping[str, float]]
    sample: Callable[[int], None]
    log: Callable[[int, Mapping[str, float]], None]
    save: Callable[[int], None]
    keep_bad: Callable[[list[Batch]], str]


def train(trainer: Trainer, hooks: Hooks) -> None:
    """Update until `total_steps`; validate, log and save at their cadences; stop cleanly at a signal.

    Errors: TrainingError after MAX_SKIPPED updates in a row were not finite, and from the source and the validation,
            with a checkpoint of the updates that were made; SystemExit 130 or 143 after a signal, with one at the
            exact step
    """
    settings = trainer.settings
    trainer.model.train()
    if not hooks.is_measured(trainer.step):
        hooks.log(trainer.step, hooks.validate())
    saved = trainer.step
    with StopSignal() as signals:
        while trainer.step < trainer.total_steps:
            start = time.monotonic()
            try:
                metrics = trainer.update(stop=signals.received is not None)
                metrics["tokens_per_second"] = metrics.pop("step_tokens") / (time.monotonic() - start)
                stop, step = bool(metrics.pop("stop")), trainer.step
                is_last = step == trainer.total_steps
                if step % settings.valid_every == 0 or is_last:
                    metrics |= hooks.validate()
                    hooks.sample(step)
            except TrainingError:
                # A server that samples or a reward may be gone: what was learnt until then must not go with it.
                if trainer.step > saved:
                    hooks.save(trainer.step)
                raise
            hooks.log(step, metrics)
            if trainer.skipped >= MAX_SKIPPED:
                place = hooks.keep_bad(trainer.last_batches)
                raise TrainingError(
                    f"step {step}: loss or gradient was not finite {MAX_SKIPPED} times in a row; no weight was "
                    f"changed by them, the last batch is in {place}; lower the learning rates, or look at that batch"
                )
            if step % settings.checkpoint_every == 0 or is_last or stop:
                hooks.save(step)
                saved = step
            if stop and not is_last:
                raise SystemExit(signals.exit_code)


class StopSignal:
    """Remembers SIGINT and SIGTERM until the step is over; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell reports it; 143 when another rank was the one to be told."""
        return 128 + (self.received or signal.SIGTERM)

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number


def _count(sums: dict[str, float], batch: Batch, loss: Loss) -> None:
    """Add a micro-batch's weight, tokens and figures to the step's sums."""
    sums["weight"] += batch.weight
    sums["tokens"] += batch.num_tokens
    for name, mean in {**loss.means, **batch.means}.items():
        sums[f"{name}/total"] = sums.get(f"{name}/total", 0.0) + float(mean.total)
        sums[f"{name}/weight"] = sums.get(f"{name}/weight", 0.0) + float(mean.weight)


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    names = [name.removesuffix("/total") for name in sums if name.endswith("/total")]
    return {name: sums[f"{name}/total"] / (sums[f"{name}/weight"] or 1.0) for name in names}
