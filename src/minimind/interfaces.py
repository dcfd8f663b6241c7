"""What flows through the training loop: batches of weighted tokens in, sums out.

    Source --Batch--> Objective --Loss--> Trainer

The one idea of this package is visible in the types. A batch carries a *weight* for each token it asks the model to
predict, and an objective returns a *sum*. Only the trainer divides, once per step, by the weight of the whole step.
So no cut into micro-batches, ranks, padding or packing can change the mathematics. Next: `training/trainer.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Loss", "Mean", "Objective", "PairBatch", "RolloutBatch", "Source", "TeacherBatch"]


@dataclass(frozen=True)
class Mean:
    """A figure that adds up over micro-batches and ranks: its value is `total / weight`."""

    total: Tensor
    weight: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of tokens, each token with the id that follows it and the weight of predicting that id.

    tokens:     [B, T] int64, the model's input
    targets:    [B, T] int64, the id after each token in its document
    weights:    [B, T] float32, of predicting that id; 0 for prompts, tool results and padding
    lengths:    the documents' lengths in reading order, row after row, padding counted as a document, summing to B*T;
                None when each row is one document padded on the right (causal attention never looks to the right)
    num_tokens: positions that are not padding, for reports only
    divisor:    this batch's part of the step's divisor where that is not the sum of the weights: pairs, or rollouts
    means:      figures of the batch itself, such as the mean reward, to report beside the loss's; the same names on
                all ranks
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    lengths: tuple[int, ...] | None = None
    num_tokens: int
    divisor: float | None = None
    means: Mapping[str, Mean] = field(default_factory=dict)

    @property
    def weight(self) -> Tensor:
        """[] float64: this batch's part of the step's divisor, the sum of the weights unless it says otherwise.

        A tensor where the weights are, so that to know it nobody waits for the device.
        """
        if self.divisor is not None:
            return self.weights.new_full((), self.divisor, dtype=torch.float64)
        return self.weights.sum(dtype=torch.float64)

    def to(self, device: torch.device | str) -> Self:
        """The same batch with all its tensors on `device`."""
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


@dataclass(frozen=True, kw_only=True)
class PairBatch(Batch):
    """Preferences: row 2i is the chosen answer of pair i and row 2i + 1 the rejected one, prompts before them alike.

    reference: [B] float32, the sum over a row's weighted targets of their log-probability under the reference model
    divisor is the number of pairs.
    """

    reference: Tensor


@dataclass(frozen=True, kw_only=True)
class TeacherBatch(Batch):
    """What a teacher finds likely after each token: its best K ids, in order, and their log-probabilities.

    teacher_ids:      [B, T, K] int64
    teacher_logprobs: [B, T, K] float32, at the temperature they were kept with
    """

    teacher_ids: Tensor
    teacher_logprobs: Tensor


@dataclass(frozen=True, kw_only=True)
class RolloutBatch(Batch):
    """What a policy said, and how good that was; all [B, T] float32, of the target at that position.

    Weights are 0 but on tokens that the policy sampled itself, the end of its turns included.

    advantages:         how much better than expected
    old_logprobs:       log-probability under the policy that sampled, in the precision that training computes with
    reference_logprobs: under the model that the policy may not stray from; None without one
    old_values:         what the critic expected then; None without a critic
    returns:            what the critic should have expected; None without a critic
    """

    advantages: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor | None = None
    old_values: Tensor | None = None
    returns: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """The sum to differentiate, and figures to report beside it. Nothing here is divided yet."""

    total: Tensor
    means: Mapping[str, Mean] = field(default_factory=dict)


ModelType = TypeVar("ModelType", bound=nn.Module, contravariant=True)
BatchType = TypeVar("BatchType", bound=Batch, contravariant=True)


class Objective(Protocol[ModelType, BatchType]):
    """Turns a batch of its kind into a sum over its weighted tokens. It knows no optimiser, rank or device."""

    def __call__(self, model: ModelType, batch: BatchType) -> Loss: ...


class Source(Protocol):
    """Gives the micro-batches of a step.

    What it gives depends on its seed and the step alone; or, where it samples from the policy, on the weights too.
    `training/epoch_source.py` has the order that all sources of the package share, and what a run asks besides.
    """

    def micro_batches(self, step: int) -> Sequence[Batch]:
        """This rank's micro-batches of `step`, counted from 0; never empty, though their weight may be 0."""
        ...

    def accepts(self, figures: Mapping[str, float]) -> bool:
        """Told a step's figures, those of all ranks, before its update; False leaves the update out."""
        ...
