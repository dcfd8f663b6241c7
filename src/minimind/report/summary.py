"""What a run folder has to tell, in the words and figures of the page. Whatever the folder lacks is empty.

The metrics become series of points, the samples are grouped by prompt, the settings are compared with the defaults.
Nothing here knows HTML. Next: `page.py`.
"""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from minimind.config import flatten
from minimind.errors import RunError, why
from minimind.report.chart import Point, running_mean, short
from minimind.report.data import data_table
from minimind.report.evaluation import is_number, read_evaluation, rounded
from minimind.report.rollouts import rollout_table
from minimind.storage.run import RunReader
from minimind.terminal.figures import duration

__all__ = ["Defaults", "Sample", "SamplePrompt", "Summary", "title_of"]

MetricRows = list[tuple[str, str]]
Defaults = Callable[[str], Mapping[str, Any]]

# Samples of a prompt that are shown at once, spread from the first step to the last; the others are folded away.
MAX_SHOWN = 4
# What a stage is judged by: the first of these that it has.
JUDGED_BY = {
    "Bits per byte": "{} bits per byte",
    "Valid pass at 1": "right in {} of held-out answers",
    "Valid accuracy": "held-out accuracy {}",
    "Reward": "reward {}",
    "Accuracy": "accuracy {}",
    "Validation loss": "validation loss {}",
    "Loss": "loss {}",
}
# What is asked whether it learnt, by the first of these.
HELD_OUT = {"bits_per_byte": "Bits per byte of held-out text", "valid_loss": "The held-out loss"}
# A change of less than this share is none.
NOTABLE = 0.01
# Metrics with a place of their own on the page; objectives add others.
COMMON = (
    *("step", "tokens", "seconds", "reward", "valid_reward", "loss", "valid_loss", "bits_per_byte"),
    *("tokens_per_second", "learning_rate", "gradient_norm"),
)


@dataclass(frozen=True)
class Sample:
    """What the model wrote after a step."""

    step: int
    text: str


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt with what the model wrote for it, by step."""

    text: str
    shown: list[Sample]
    folded: list[Sample]


class Summary:
    """A run folder to show under a label and a color (0-7).

    defaults:  stage -> each option's default by dotted name
    Errors:    RunError when a file of the run is damaged
    """

    def __init__(self, folder: Path, label: str, color: int = 0, *, defaults: Defaults = lambda _: {}) -> None:
        self.folder, self.label, self.color = folder, label, color
        reader = RunReader(folder)
        environment = reader.environment() if (folder / "environment.json").is_file() else {}
        self.environment = _as_text(flatten(environment, stop=()))
        self.stage = str(environment.get("stage") or folder.name)
        rows = [row for row in reader.metrics() if _has_step(row)]
        self.metrics = _series(rows)
        # `Run.log` writes null for what was not finite.
        self.num_lost = sum(value is None for row in rows for value in row.values())
        self.prompts = _prompts(row for row in reader.samples() if _has_step(row))
        finished = reader.finished()
        self.is_finished = finished is not None
        # What repeats the last row of the metrics has been said by the figures.
        known = {"step", *self.metrics}
        results = [(name, rounded(value)) for name, value in (finished or {}).items() if name not in known]
        evaluation = read_evaluation(folder / "evaluation.json")
        self.too_few = evaluation.too_few
        rollouts = rollout_table(folder)
        self.results = [(title_of(name), text) for name, text in results + evaluation.figures]
        usual = defaults(self.stage)
        given = _read_settings(reader)
        tables = [data_table(given), *evaluation.tables, rollouts]
        self.tables = [table for table in tables if table]
        settings = list(flatten(given, stop=usual))
        self.settings = _as_text(settings)
        self.changed = _as_text((k, v) for k, v in settings if k not in usual or usual[k] != v) if usual else []

    @property
    def steps(self) -> int:
        return int(max((points[-1][0] for points in self.metrics.values()), default=0))

    @property
    def tokens(self) -> float:
        return self._last("tokens") or 0.0

    @property
    def seconds(self) -> float:
        return self._last("seconds") or 0.0

    @cached_property
    def others(self) -> list[str]:
        """The metrics that are not common to all stages and that ever differ from 0; `valid_x` belongs to x."""
        own = [name for name in self.metrics if name not in COMMON and any(y for _, y in self.metrics[name])]
        return [name for name in own if name.removeprefix("valid_") not in set(self.metrics) - {name}]

    @cached_property
    def figures(self) -> dict[str, str]:
        """The run in a handful of numbers: name -> value."""
        # Beside a reward the loss says nothing: where answers are compared with one another, it is always about 0.
        found = {"Reward": self._final("reward")}
        found |= {"Loss": None if found["Reward"] is not None else self._final("loss")}
        found |= {"Validation loss": self.measured("valid_loss")}
        found |= {"Bits per byte": self.measured("bits_per_byte")}
        found |= {title_of(name): self.measured(name) for name in ("valid_pass_at_1", "valid_accuracy")}
        found |= {title_of(name): self._final(name) for name in self.others[:4]}
        found |= {"Tokens": self._last("tokens"), "Tokens per second": self._median("tokens_per_second")}
        shown = {name: short(value) for name, value in found.items() if value is not None}
        return shown | ({"Time": duration(self.seconds)} if self.seconds else {})

    @property
    def best(self) -> str:
        """The figure that the stage is judged by, in words; "" when there is none."""
        return next((words.format(self.figures[name]) for name, words in JUDGED_BY.items() if name in self.figures), "")

    @property
    def outcome(self) -> str:
        """One sentence on what was done and what came of it; "" for a stage that has no steps."""
        if not self.metrics:
            return (
                "" if self._has_more() else f"Nothing has been recorded in {self.folder} yet; try again in a few steps."
            )
        work = f"{self.steps:,} steps"
        work += f" on {self.figures['Tokens']} tokens" if "Tokens" in self.figures else ""
        work += f" in {self.figures['Time']}" if "Time" in self.figures else ""
        ends = [f"a {name.lower()} of {self.figures[name]}" for name in ("Reward", "Loss") if name in self.figures]
        if self.best and not self.best.startswith(("loss", "reward", "validation loss")):
            ends.append(self.best + (" of held-out text" if "Bits per byte" in self.figures else ""))
        if not self.is_finished and not self.steps:
            return "Not finished: no step is recorded yet."
        if not self.is_finished:
            return f"Not finished: {work} so far" + (f", now at {' and '.join(ends)}." if ends else ".")
        return f"{work} ended at {' and '.join(ends)}." if ends else f"{work}."

    @property
    def notes(self) -> list[str]:
        """What a reader must know before believing the curves."""
        lost = f"Not finite (NaN or infinite), so left out of the curves: {self.num_lost:,} of the logged values."
        return ([self.verdict] if self.verdict else []) + self.too_few + ([lost] if self.num_lost else [])

    @property
    def verdict(self) -> str:
        """Whether the held-out text was learnt, lost again or neither; "" where it was not measured twice."""
        name, words = next(((n, w) for n, w in HELD_OUT.items() if n in self.metrics), ("", ""))
        points = self.metrics.get(name, [])
        if len(points) < 2:
            return ""
        (_, first), (_, last), (step, least) = points[0], points[-1], min(points, key=lambda point: point[1])
        change = f"{words} went from {short(first)} to {short(last)}"
        if last > least * (1 + NOTABLE) and step > 0:
            return f"{change}, and was least at step {step:,.0f} with {short(least)}: from there on it got worse."
        if last > first * (1 - NOTABLE):
            return f"{change}: hardly anything of it was learnt."
        return f"{change}: it learns." if not self.is_finished else f"{change}: it has learnt."

    @property
    def use(self) -> MetricRows:
        """What to do with the model, and the command for it; empty where there is no model yet."""
        if not (self.folder / "checkpoints" / "latest").is_dir():
            return []
        path = shlex.quote(str(self.folder))
        if self.stage == "pretrain":
            return [("let the model continue a text", f"minimind generate {path} --prompt 'The sun'")]
        return [("talk with the model", f"minimind chat {path}")]

    @property
    def commands(self) -> MetricRows:
        """What can be done with this run, and the command for each."""
        recipe = self.folder / "recipe.toml"
        is_known = recipe.is_file() and re.fullmatch("[a-z]+", self.stage)
        again = (
            "run this stage again, or resume it where it stopped",
            f"minimind {self.stage} {shlex.quote(str(recipe))}",
        )
        return self.use + ([again] if is_known else [])

    def _has_more(self) -> bool:
        """Whether a run without steps still has something to tell; a stage that trains nothing has its settings."""
        is_training = (self.folder / "metrics.jsonl").exists() or (self.folder / "config.json").exists()
        return bool(self.results or self.tables or (self.settings and not is_training))

    def measured(self, name: str) -> float | None:
        """The newest value on held-out data; what was measured before the first step is no result."""
        points = [value for step, value in self.metrics.get(name, []) if step > 0]
        return points[-1] if points else None

    def _last(self, name: str) -> float | None:
        points = self.metrics.get(name)
        return points[-1][1] if points else None

    def _final(self, name: str) -> float | None:
        """The end of the smoothed curve, because the loss of one batch is luck."""
        points = self.metrics.get(name)
        return running_mean(points)[-1][1] if points else None

    def _median(self, name: str) -> float | None:
        values = sorted(value for _, value in self.metrics.get(name, []))
        return values[len(values) // 2] if values else None


def title_of(metric: str) -> str:
    """`router_balance` as a title."""
    words = metric.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _has_step(row: Any) -> bool:
    return isinstance(row, dict) and is_number(row.get("step"))


def _series(rows: Iterable[dict[str, Any]]) -> dict[str, list[Point]]:
    """Each metric's points by step. A step that was logged twice counts as it was logged last."""
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and is_number(value):
                found.setdefault(name, {})[float(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in found.items()}


def _prompts(rows: Iterable[dict[str, Any]]) -> list[SamplePrompt]:
    found: dict[str, dict[int, str]] = {}
    for row in rows:
        prompt = _text(row.get("prompt", ""))
        found.setdefault(prompt, {})[int(row["step"])] = _text(row.get("text", ""))
    prompts = []
    for prompt, texts in found.items():
        samples = [Sample(step, _continuation(prompt, texts[step])) for step in sorted(texts)]
        chosen = {round((len(samples) - 1) * i / (MAX_SHOWN - 1)) for i in range(MAX_SHOWN)}
        folded = [sample for i, sample in enumerate(samples) if i not in chosen]
        prompts.append(SamplePrompt(prompt, [samples[i] for i in sorted(chosen)], folded))
    return prompts


def _continuation(prompt: str, text: str) -> str:
    """A text without the prompt that it may repeat: the page has shown that already."""
    return text.removeprefix(prompt).lstrip(" ") if prompt and text.startswith(prompt) else text


def _read_settings(reader: RunReader) -> dict[str, Any]:
    """config.json; a stage that trains nothing has only its recipe."""
    if (reader.folder / "config.json").is_file():
        return reader.config()
    recipe = reader.folder / "recipe.toml"
    try:
        return tomllib.loads(recipe.read_text(encoding="utf-8")) if recipe.is_file() else {}
    except (OSError, ValueError) as error:
        raise RunError(f"{recipe}: cannot read the recipe of this run: {why(error)}") from error


def _as_text(values: Iterable[tuple[str, Any]]) -> MetricRows:
    return [(name, _text(value)) for name, value in values]


def _text(value: Any) -> str:
    """A JSON value in full, text without its quotes."""
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
