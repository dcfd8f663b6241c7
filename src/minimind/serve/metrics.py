"""Figures of a running engine, in the text format that Prometheus reads."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from minimind.generation.counters import STEP_BOUNDS, Counters

__all__ = ["CountedEngine", "render_metrics"]


class CountedEngine(Protocol):
    """What is read of an engine."""

    counters: Counters

    @property
    def num_waiting(self) -> int: ...
    @property
    def num_running(self) -> int: ...


def render_metrics(engines: Mapping[str, CountedEngine]) -> str:
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
