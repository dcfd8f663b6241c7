"""One set of rollouts and how far a run is with it; and how a checkpoint keeps it, for any number of ranks."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minimind.errors import CheckpointError
from minimind.rl.experience import Experience, experience_from_json, experience_to_json

__all__ = ["STATE_FILE", "Iteration", "iteration_to_bytes", "merge_iterations", "read_iteration"]

STATE_FILE = "rollouts.json"


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


def iteration_to_bytes(iteration: Iteration) -> bytes:
    """JSON of all that the next step needs: of a spent iteration, that is only its number."""
    rows = [] if iteration.is_spent else [experience_to_json(row) for row in iteration.rows]
    facts = {name: value for name, value in vars(iteration).items() if name != "rows"}
    return json.dumps({"format": 1, **facts, "rows": rows}).encode()


def merge_iterations(contents: Sequence[bytes]) -> bytes:
    """What `iteration_to_bytes` gave on each rank -> the same for all ranks together."""
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
        rows = [experience_from_json(row) for row in facts.pop("rows") if row["place"] in places]
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
