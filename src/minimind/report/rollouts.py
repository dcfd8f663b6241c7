"""rollouts-rank*.jsonl -> a table: what the policy answered in its first and last set, and what it got for it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minimind.report.chart import short
from minimind.report.evaluation import EvaluationTable

__all__ = ["rollout_table"]

MAX_PROMPTS = 6
MAX_CHARACTERS = 300
COLUMNS = ["set", "question", "tools", "answer", "expected", "reward"]


def rollout_table(folder: Path) -> EvaluationTable | None:
    """One answer to each of a few prompts, early and late; None for a run without rollouts.

    Errors: DataError for a line that is no trace
    """
    paths = sorted(folder.glob("rollouts-rank*.jsonl"))
    if not paths:
        return None
    # Imported here: it brings torch, which few reports need.
    from minimind.rl.traces import read_traces

    ends: dict[int, list[Any]] = {}
    for path in paths:
        for trace in read_traces(path):
            ends.setdefault(trace.iteration, []).append(trace)
            if len(ends) > 2:
                del ends[sorted(ends)[1]]
    rows = [_row(trace) for iteration in sorted(ends) for trace in _one_each(ends[iteration])]
    # Where no tool was called, or nothing is known to be right, the column is left out.
    kept = [i for i in range(len(COLUMNS)) if any(row[i] for row in rows)]
    columns = [COLUMNS[i] for i in kept]
    numeric = {columns.index(name) for name in ("set", "reward") if name in columns}
    title = "Rollouts: one answer to each of a few prompts, first and last set"
    return EvaluationTable(title, columns, [[row[i] for i in kept] for row in rows], numeric) if rows else None


def _one_each(traces: Iterable[Any]) -> list[Any]:
    """The first member of the first prompts."""
    by_place: dict[int, Any] = {}
    for trace in sorted(traces, key=lambda trace: (trace.place, trace.member)):
        by_place.setdefault(trace.place, trace)
    return list(by_place.values())[:MAX_PROMPTS]


def _row(trace: Any) -> list[str]:
    prompt, answers = trace.messages[: trace.num_prompt], trace.messages[trace.num_prompt :]
    calls = [f"{_call(result)} = {result['text']}" for result in trace.tool_results]
    reward = f"dropped: {trace.failure}" if trace.reward is None else short(trace.reward)
    cells = [
        str(trace.iteration),
        next((_said(message) for message in reversed(prompt) if message.get("role") == "user"), ""),
        "\n".join(calls),
        next((_said(message) for message in reversed(answers) if message.get("role") == "assistant"), ""),
        ", ".join(trace.gt),
        reward,
    ]
    return [cell if len(cell) <= MAX_CHARACTERS else f"{cell[:MAX_CHARACTERS]}…" for cell in cells]


def _said(message: Mapping[str, Any]) -> str:
    """What was said; an answer that is nothing but thought or calls says so."""
    return message.get("content") or f"({'calls' if message.get('tool_calls') else 'thought'} only)"


def _call(result: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in result["arguments"].items())
    return f"{result['name']}({arguments})"
