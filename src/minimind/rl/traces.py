"""Rollouts on disk, one JSON line each: what was said, which tools answered what, how it was scored, and the ids.

From the ids and weights of a line its loss can be computed again; from its messages a person sees what happened.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.errors import DataError
from minimind.rl.rollouts import Rollout
from minimind.storage.folder import write_file

__all__ = ["Trace", "TraceWriter", "read_traces"]


@dataclass(frozen=True)
class Trace:
    """A line of a trace file.

    iteration:     which set of rollouts, counted from 0
    place, member: of its prompt in the order of the run, and which of the prompt's group
    where:         the prompt's own place in the data
    messages:      of prompt and answers, in OpenAI's shape
    num_prompt:    how many of them are the prompt
    gt:            what is right
    tool_results:  {"name", "arguments", "text", "failed"} of each call that was made
    reward:        None when there was none; `failure` then says why
    weights:       1 on each id that the policy sampled
    """

    iteration: int
    place: int
    member: int
    where: str
    messages: list[dict[str, Any]]
    num_prompt: int
    gt: list[str]
    tool_results: list[dict[str, Any]]
    finish_reason: str
    reward: float | None
    parts: Mapping[str, float]
    failure: str
    ids: list[int]
    weights: list[float]

    @classmethod
    def of(cls, iteration: int, rollout: Rollout) -> "Trace":
        """A scored rollout as it is written down."""
        outcome, score = rollout.outcome, rollout.score
        prompt = outcome.prompt
        return cls(
            iteration=iteration,
            place=rollout.place,
            member=rollout.member,
            where=prompt.where,
            messages=[message.to_dict() for message in (*prompt.messages, *outcome.messages)],
            num_prompt=len(prompt.messages),
            gt=list(prompt.gt),
            tool_results=[
                {
                    "name": result.call.name,
                    "arguments": dict(result.call.arguments),
                    "text": result.text,
                    "failed": result.failed,
                }
                for result in outcome.tool_results
            ],
            finish_reason=outcome.finish_reason,
            reward=None if score.failure else score.total,
            # JSON knows no NaN.
            parts={name: part for name, part in score.parts.items() if math.isfinite(part)},
            failure=score.failure,
            ids=list(rollout.ids),
            weights=list(rollout.weights),
        )


class TraceWriter:
    """Appends rollouts to a file.

    every: write those of each so many iterations, the first included
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self.path, self.every = path, every

    def write(self, iteration: int, rollouts: Iterable[Rollout]) -> None:
        if iteration % self.every:
            return
        lines = [json.dumps(vars(Trace.of(iteration, rollout)), ensure_ascii=False) for rollout in rollouts]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))

    def rewind(self, iteration: int) -> None:
        """Drop what was written after `iteration`: a run that goes on from a checkpoint will write it again."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            kept = [line for line in file if line.endswith("\n") and json.loads(line)["iteration"] <= iteration]
        write_file(self.path, "".join(kept))


def read_traces(path: Path) -> Iterator[Trace]:
    """The lines of a trace file in order, but for a last one that is still being written. Errors: DataError"""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith("\n"):
                    yield _read(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _read(line: str, where: str) -> Trace:
    try:
        return Trace(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: is no trace of a rollout: {error}") from error
