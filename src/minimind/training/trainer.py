"""The step. All stages share it: pretraining, fine-tuning, and everything that comes after.

A step gathers the *sum* of the weighted losses and its gradient over all micro-batches and ranks, then divides once, by
the weight of the whole step. That division is the only one; so accumulation, padding, packing and ranks are matters of
memory and speed, and cannot change what is learnt.

Sums stay on the device while a step computes. They are read in one transfer when its backward pass is under way, before
the optimisers move: whether they may is not known earlier. Next: `fit.py`, the loop around the step.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minimind.errors import TrainingError
from minimind.interfaces import Batch, Loss, Objective, Source
from minimind.training.distributed import World
from minimind.training.gradient_norm import gradient_norm
from minimind.training.optimizer import Optimizers
from minimind.training.schedule import rate_scale
from minimind.training.settings import UpdateConfig
from minimind.training.step_sums import StepSums

__all__ = ["Trainer", "Update", "seed_of"]

# Muon's momentum rises to its value over the first updates, while there is little to remember: from 0.85 to 0.95 over
# 300 of them in Jordan's modded-nanogpt, whose rates and betas are the defaults here, too.
MOMENTUM_WARMUP_STEPS = 300
MOMENTUM_RISE = 0.1
# Keeps a gradient of 0 from being divided by its norm; torch's `clip_grad_norm_` takes the same.
CLIP_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Update:
    """What a step came to, over all ranks.

    figures:       means of the objective and of the batches, by name; `loss` is one of them
    gradient_norm: before the gradient was clipped
    num_tokens:    positions of the step that were not padding
    skipped:       how many updates in a row, up to this one, were left out because something was not finite
    stop:          does any rank want to stop?
    save:          does any rank find a checkpoint due?
    """

    figures: Mapping[str, float]
    gradient_norm: float
    learning_rate: float
    num_tokens: int
    skipped: int
    stop: bool
    save: bool = False

    @property
    def loss(self) -> float:
        return self.figures["loss"]


@dataclass(kw_only=True)
class Trainer:
    """A model, what it learns from, and how: everything that one update needs.

    precision: makes the context in which the objective runs, such as autocast
    step:      updates done so far
    tokens:    positions seen so far that were not padding, over all ranks
    """

    model: nn.Module
    objective: Objective[Any, Any]
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

    def update(self, stop: bool = False, save: bool = False) -> Update:
        """Make one step.

        stop:   this rank wants to stop; `Update.stop` tells whether any does, so that all stop at the same step
        save:   likewise, that a checkpoint is due by this rank's clock
        Errors: TrainingError when no token of the step has weight
        """
        # Dropout draws from torch's own generator: what it draws depends on the step, not on what ran before.
        torch.manual_seed(seed_of(self.settings.seed, self.step, self.world.rank))
        self.last_batches = list(self.source.micro_batches(self.step))
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizers.zero_grad()
        sums = StepSums(self.world)
        for batch in self.last_batches:
            loss = self.sum_of(batch)
            loss.total.backward()
            sums.add(batch, loss)

        self.world.sum_gradients(parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        counts = {"tokens": sum(batch.num_tokens for batch in self.last_batches), "stop": stop, "save": save}
        figures, found = sums.read(counts, {"norm": gradient_norm(gradients)})
        weight, num_tokens = found["weight"], int(found["tokens"])
        if weight == 0:
            raise TrainingError(
                f"step {self.step + 1}: none of its {num_tokens} tokens has weight, so there is nothing to "
                "learn; check that the data has assistant answers, or take more data per step"
            )
        norm = found["norm"] / weight
        if self.source.accepts(figures):
            # All ranks read the same numbers, so they agree.
            self.skipped = 0 if math.isfinite(norm) and math.isfinite(figures["loss"]) else self.skipped + 1
            if not self.skipped:
                self._apply(gradients, weight, norm)
        self.step += 1
        self.tokens += num_tokens
        return Update(
            figures=figures,
            gradient_norm=norm,
            learning_rate=self.optimizers.learning_rate,
            num_tokens=num_tokens,
            skipped=self.skipped,
            stop=bool(found["stop"]),
            save=bool(found["save"]),
        )

    def rehearse(self) -> None:
        """Forward and backward over this rank's part of the next step, to be timed: no gradient stays."""
        for batch in self.source.micro_batches(self.step):
            self.sum_of(batch).total.backward()
        self.optimizers.zero_grad()

    @torch.no_grad()
    def measure(self, batches: Sequence[Batch], objective: Objective[Any, Any] | None = None) -> dict[str, float]:
        """The figures of the objective, or of another, over `batches` of all ranks, without learning from them."""
        self.model.eval()
        sums = StepSums(self.world)
        for batch in batches:
            sums.add(batch, self.sum_of(batch, objective))
        self.model.train()
        return sums.read()[0]

    def sum_of(self, batch: Batch, objective: Objective[Any, Any] | None = None) -> Loss:
        """The objective's sums over one micro-batch, in the run's precision."""
        with self.precision():
            return (objective or self.objective)(self.model, batch.to(self.world.device))

    def _apply(self, gradients: Sequence[Tensor], weight: float, norm: float) -> None:
        """Divide the gradients by the weight, clip them, and let the optimisers step. Division and clip are one factor.

        norm: of the gradients once they are divided
        """
        factor = min(1.0, self.settings.clip / (norm + CLIP_EPS)) / weight
        for gradient in gradients:
            gradient.mul_(factor)
        missing = MOMENTUM_RISE * (1 - min(1.0, self.step / MOMENTUM_WARMUP_STEPS))
        momentum = max(self.settings.momentum - missing, 0.0)
        self.optimizers.set_scale(rate_scale(self.step, self.total_steps, self.settings), momentum)
        self.optimizers.step()


def seed_of(seed: int, step: int, rank: int) -> int:
    """What torch's generator starts from at a step of a run on a rank.

    The two primes keep apart all runs of up to a million steps on up to a thousand ranks; no two of them, and no two
    neighbouring seeds, share a number. torch takes 63 bits.
    """
    return ((seed * 1_000_003 + step) * 1_009 + rank) % 2**63
