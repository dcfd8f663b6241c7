"""What flows through the training loop: batches of weighted tokens in, sums out.

    Source --Batch--> Objective --Loss--> Trainer

The one idea of this package is visible in the types. A batch carries a *weight* for each token it asks the model to
predict, and an objective returns a *sum*. Only the trainer divides, once per step, by the weight of the whole step.
So no cut into micro-batches, ranks, padding or packing can change the mathematics. Read `training/trainer.py` next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Loss", "Mean", "Objective", "Source"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of tokens, each token with the id that follows it and the weight of predicting that id.

    tokens:     [B, T] int64, the model's input
    targets:    [B, T] int64, the id after each token in its document
    weights:    [B, T] float32, of predicting that id; 0 for prompts, tool results and padding
    lengths:    the documents' lengths in reading order, row after row, padding counted as a document, summing to B*T;
                None when each row is one document padded on the right (causal attention never looks to the right)
    num_tokens: positions that are not padding, for reports only
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    lengths: tuple[int, ...] | None = None
    num_tokens: int

    @property
    def weight(self) -> float:
        """The sum of the weights: this batch's part of the step's divisor."""
        return float(self.weights.sum(dtype=torch.float64))

    def to(self, device: torch.device | str) -> "Batch":
        return replace(
            self,
            tokens=self.tokens.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            weights=self.weights.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Mean:
    """A figure that adds up over micro-batches and ranks: its value is `total / weight`."""

    total: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Loss:
    """The sum to differentiate, and figures to report beside it. Nothing here is divided yet."""

    total: Tensor
    means: Mapping[str, Mean] = field(default_factory=dict)


class Objective(Protocol):
    """Turns a batch into a sum over its weighted tokens. It knows no optimiser, rank or device."""

    def __call__(self, model: nn.Module, batch: Batch) -> Loss: ...


class Source(Protocol):
    """Gives the micro-batches of a step. What it gives depends on its seed and the step alone."""

    def micro_batches(self, step: int) -> Sequence[Batch]:
        """This rank's micro-batches of `step`, counted from 0; never empty, though their weight may be 0."""
        ...

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Told the metrics of each step; a source that samples from the policy may react."""
        ...
