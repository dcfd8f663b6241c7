"""Rollouts as they are learnt from: rows of ids with figures for each target, and batches of such rows.

A row is all that later steps need of a rollout. What the policy, the reference and the critic said of it when it was
new is kept beside the ids, because their weights will have moved on; and it is kept as text that reads back to the same
bits, so that a run interrupted between two updates on the same rollouts goes on as if it had not been.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minimind.interfaces import Batch, Mean, RolloutBatch
from minimind.objectives.policy import token_weights

__all__ = ["Experience", "collate_rollouts", "collate_targets", "cut", "experience_from_json", "experience_to_json"]


@dataclass(frozen=True)
class Experience:
    """A rollout without its texts.

    place, member: which prompt in the order of the run, and which of its group
    ids:           empty when the rollout was dropped
    weights:       1 on each id that the policy sampled, else 0
    figures:       name -> (total, weight), to be added up over rollouts
    tensors:       by the name of a field of `RolloutBatch`: float32 of each target, that is, of all ids but the first;
                   0 where nothing was sampled
    """

    place: int
    member: int
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    figures: Mapping[str, tuple[float, float]]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def is_sampled(self) -> Tensor:
        """[T] bool, of each target."""
        return torch.tensor(self.weights[1:]) != 0


def cut(rows: Sequence[Experience], parts: int) -> list[list[Experience]]:
    """Rows of like length together, in at most `parts` parts, so that little of a batch is padding."""
    ordered = sorted(rows, key=lambda row: (len(row.ids), row.place, row.member))
    places = np.array_split(np.arange(len(ordered)), max(1, min(parts, len(ordered))))
    return [[ordered[place] for place in part] for part in places]


def collate_targets(rows: Sequence[Experience], kind: str, max_tokens: int) -> Batch:
    """Rows, padded on the right -> tokens, targets, and the weights and divisor of the loss `kind`.

    No rows make a batch of one position and no weight, for a rank that has none at a step of the others.
    """
    shape = max(len(rows), 1), max([len(row.ids) - 1 for row in rows], default=1)
    tokens, targets = torch.zeros(2, *shape, dtype=torch.int64)
    sampled = torch.zeros(shape)
    for index, row in enumerate(rows):
        size = len(row.ids) - 1
        tokens[index, :size] = torch.tensor(row.ids[:-1])
        targets[index, :size] = torch.tensor(row.ids[1:])
        sampled[index, :size] = torch.tensor(row.weights[1:])
    weights, divisor = token_weights(sampled, kind, max_tokens)
    return Batch(
        tokens=tokens,
        targets=targets,
        weights=weights,
        num_tokens=sum(len(row.ids) - 1 for row in rows),
        divisor=divisor if rows or divisor is None else 0.0,
    )


def collate_rollouts(
    rows: Sequence[Experience], kind: str, max_tokens: int, names: Iterable[str], means: Mapping[str, Mean]
) -> RolloutBatch:
    """The same with what is known of each target. names: of the tensors; means: the batch's own figures"""
    batch = collate_targets(rows, kind, max_tokens)
    tensors = {name: torch.zeros_like(batch.weights) for name in names}
    for index, row in enumerate(rows):
        for name, tensor in tensors.items():
            tensor[index, : len(row.ids) - 1] = row.tensors[name]
    fields: dict[str, Any] = vars(batch) | tensors | {"means": means}
    return RolloutBatch(**fields)


def experience_to_json(row: Experience) -> dict[str, Any]:
    """Tensors hold their sampled places only; `repr` of a float32 as a float64 reads back to the same bits."""
    is_sampled = row.is_sampled
    return {
        "place": row.place,
        "member": row.member,
        "ids": row.ids,
        "weights": [int(weight) for weight in row.weights],
        "figures": {name: list(figure) for name, figure in row.figures.items()},
        "tensors": {name: tensor[is_sampled].tolist() for name, tensor in row.tensors.items()},
    }


def experience_from_json(value: Mapping[str, Any]) -> Experience:
    """Errors: ValueError, KeyError, TypeError, RuntimeError where it is no row."""
    row = Experience(
        place=value["place"],
        member=value["member"],
        ids=tuple(value["ids"]),
        weights=tuple(map(float, value["weights"])),
        figures={name: (total, weight) for name, (total, weight) in value["figures"].items()},
    )
    tensors = {}
    for name, sampled in value["tensors"].items():
        tensors[name] = torch.zeros(len(row.weights[1:]))
        tensors[name][row.is_sampled] = torch.tensor(sampled, dtype=torch.float32)
    return replace(row, tensors=tensors)
