"""A set of rollouts as it is learnt from: rows of ids with figures for each target, their batches, and their file.

A row is all that later steps need of a rollout. What the policy, the reference and the critic said of it when it was
new is kept beside the ids, because their weights will have moved on; and it is kept as text that reads back to the same
bits, so that a run interrupted between two updates on the same rollouts goes on as if it had not been, on any number
of ranks.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from minimind.errors import CheckpointError
from minimind.interfaces import Batch, Mean, RolloutBatch
from minimind.rl.rollouts import Rollout, RolloutSettings

__all__ = [
    "STATE_FILE",
    "Experience",
    "Iteration",
    "collate_rollouts",
    "collate_targets",
    "cut",
    "merge_iterations",
    "read_iteration",
]

STATE_FILE = "rollouts.json"


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

    def to_json(self) -> dict[str, Any]:
        """Tensors hold their sampled places only; `repr` of a float32 as a float64 reads back to the same bits."""
        is_sampled = self.is_sampled
        tensors = {name: tensor[is_sampled].tolist() for name, tensor in self.tensors.items()}
        return vars(self) | {"weights": [int(weight) for weight in self.weights], "tensors": tensors}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Errors: ValueError, KeyError, TypeError, RuntimeError where it is no row."""
        row = cls(
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


_Row = TypeVar("_Row", Experience, Rollout)


def cut(rows: Sequence[_Row], parts: int) -> list[list[_Row]]:
    """Rows of like length together, in at most `parts` parts, so that little of a batch is padding."""
    ordered = sorted(rows, key=lambda row: (len(row.ids), row.place, row.member))
    places = np.array_split(np.arange(len(ordered)), max(1, min(parts, len(ordered))))
    return [[ordered[place] for place in part] for part in places]


def collate_targets(rows: Sequence[Experience] | Sequence[Rollout], settings: RolloutSettings) -> Batch:
    """Rows, padded on the right -> tokens, targets, and the weights and divisor of the loss.

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
    weights, divisor = settings.loss.token_weights(sampled, settings.max_tokens)
    return Batch(
        tokens=tokens,
        targets=targets,
        weights=weights,
        num_tokens=sum(len(row.ids) - 1 for row in rows),
        divisor=divisor if rows or divisor is None else 0.0,
    )


def collate_rollouts(
    rows: Sequence[Experience], settings: RolloutSettings, names: Iterable[str], means: Mapping[str, Mean]
) -> RolloutBatch:
    """The same with what is known of each target. names: of the tensors; means: the batch's own figures"""
    batch = collate_targets(rows, settings)
    tensors = {name: torch.zeros_like(batch.weights) for name in names}
    for index, row in enumerate(rows):
        for name, tensor in tensors.items():
            tensor[index, : len(row.ids) - 1] = row.tensors[name]
    fields: dict[str, Any] = vars(batch) | tensors | {"means": means}
    return RolloutBatch(**fields)


@dataclass
class Iteration:
    """A set of rollouts, and the steps that learn from it.

    number:    counted from 0
    start:     the first step that learns from it
    updates:   steps that learn from it, unless it is ended early
    rows:      of this rank, by place and member, dropped ones included
    last_step: the last step that took it
    is_over:   ended early
    """

    number: int
    start: int
    updates: int
    rows: list[Experience] = field(default_factory=list)
    last_step: int = -1
    is_over: bool = False

    def covers(self, step: int) -> bool:
        return not self.is_over and self.start <= step < self.start + self.updates

    @property
    def is_spent(self) -> bool:
        """Will the next step need other rollouts?"""
        return not self.covers(self.last_step + 1)

    def to_bytes(self) -> bytes:
        """JSON of all that the next step needs: of a spent iteration, that is only its number."""
        rows = [] if self.is_spent else [row.to_json() for row in self.rows]
        return json.dumps({"format": 1, **vars(self), "rows": rows}).encode()


def merge_iterations(contents: Sequence[bytes]) -> bytes:
    """What `Iteration.to_bytes` gave on each rank -> the same for all ranks together."""
    parts = [json.loads(content) for content in contents]
    rows = sorted((row for part in parts for row in part["rows"]), key=lambda row: (row["place"], row["member"]))
    return json.dumps(parts[0] | {"rows": rows}).encode()


def read_iteration(path: Path, places_of: Callable[[int], Sequence[int]], group: int) -> Iteration:
    """The iteration in a checkpoint's file, with the rows of this rank alone.

    places_of: the number of an iteration -> the places whose rollouts this rank has
    group:     rollouts of each place
    Errors:    CheckpointError when the file is not there, is damaged, or lacks rollouts of this rank
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        places = set(places_of(facts["number"]))
        rows = [Experience.from_json(row) for row in facts.pop("rows") if row["place"] in places]
        facts.pop("format")
        iteration = Iteration(**facts, rows=rows)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; use an earlier checkpoint") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: holds no rollouts: {error!r}; use an earlier checkpoint") from error
    expected = 0 if iteration.is_spent else len(places) * group
    if len(rows) != expected:
        raise CheckpointError(
            f"{path}: holds {len(rows)} rollouts of this process, expected {expected}; resume with the prompts and "
            "groups of the run, from a checkpoint that all its processes wrote"
        )
    return iteration
