"""Figures of a running engine, in the text format that Prometheus reads."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Counters", "Measured", "render_metrics"]

# Seconds of a step; a token takes as long as a step.
STEP_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass
class Counters:
    """What an engine did since it was made. Written by its thread alone; a reader may be a step behind."""

    num_prompt: int = 0
    num_reused: int = 0
    num_generated: int = 0
    num_computed: int = 0
    step_seconds: float = 0.0
    steps: Counter[float] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    def note_prompt(self, size: int, reused: int) -> None:
        self.num_prompt += size
        self.num_reused += reused

    def note_step(self, seconds: float, num_tokens: int) -> None:
        self.num_computed += num_tokens
        self.step_seconds += seconds
        self.steps[next((bound for bound in STEP_BOUNDS if seconds <= bound), float("inf"))] += 1

    def note_end(self, reason: str) -> None:
        self.ends[reason] += 1


class Measured(Protocol):
    """What is read of an engine."""

    counters: Counters

    @property
    def num_waiting(self) -> int: ...
    @property
    def num_running(self) -> int: ...


def render_metrics(engines: Mapping[str, Measured]) -> str:
    """All figures of all engines, labelled with the model's name."""
    lines: list[str] = []
    for name, kind, about, read in (
        ("prompt_tokens_total", "counter", "Tokens of prompts.", lambda e: e.counters.num_prompt),
        ("reused_tokens_total", "counter", "Of those, found in a slot.", lambda e: e.counters.num_reused),
        ("generated_tokens_total", "counter", "Tokens drawn.", lambda e: e.counters.num_generated),
        ("computed_tokens_total", "counter", "Tokens passed through the model.", lambda e: e.counters.num_computed),
        ("requests_waiting", "gauge", "Requests without a slot.", lambda e: e.num_waiting),
        ("requests_running", "gauge", "Requests with a slot.", lambda e: e.num_running),
    ):
        lines += _head(name, kind, about)
        lines += [f"minimind_{name}{{{_label(model)}}} {read(engine)}" for model, engine in engines.items()]
    lines += _head("requests_total", "counter", "Requests that ended, by reason.")
    for model, engine in engines.items():
        # A copy, for the engine's thread may add a reason meanwhile.
        for reason, count in sorted(dict(engine.counters.ends).items()):
            lines.append(f'minimind_requests_total{{{_label(model)},reason="{reason}"}} {count}')
    lines += _head("step_seconds", "histogram", "Seconds of a pass for all requests.")
    for model, engine in engines.items():
        lines += _histogram(_label(model), engine.counters)
    return "\n".join(lines) + "\n"


def _histogram(label: str, counters: Counters) -> Iterable[str]:
    total = 0
    for bound in (*STEP_BOUNDS, float("inf")):
        total += counters.steps[bound]
        edge = "+Inf" if bound == float("inf") else bound
        yield f'minimind_step_seconds_bucket{{{label},le="{edge}"}} {total}'
    yield f"minimind_step_seconds_sum{{{label}}} {counters.step_seconds}"
    yield f"minimind_step_seconds_count{{{label}}} {total}"


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP minimind_{name} {about}", f"# TYPE minimind_{name} {kind}"]


def _label(model: str) -> str:
    escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'model="{escaped}"'
