"""What the prepared data of a run came to: read, held out, dropped and why, learnt."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minimind.report.evaluation import EvaluationTable

__all__ = ["data_table"]

COLUMNS = ["data", "read", "to learn from", "held out", "dropped", "bad rows", "tokens", "of them learnt"]


def data_table(settings: Mapping[str, Any]) -> EvaluationTable | None:
    """A row for each prepared folder that `data.source` names; None where none of them is there any more."""
    data = settings.get("data")
    sources = data.get("source") if isinstance(data, dict) else None
    names = [sources] if isinstance(sources, str) else sources if isinstance(sources, list) else []
    rows = [row for name in names if isinstance(name, str) and (row := _row(Path(name)))]
    return EvaluationTable("Data", COLUMNS, rows, {1, 2, 3, 5, 6, 7}) if rows else None


def _row(folder: Path) -> list[str] | None:
    try:
        report = json.loads((folder / "train" / "index.json").read_text(encoding="utf-8"))["report"]
        read, learnt, held = (report[name] for name in ("read", "train", "valid"))
        counts = [read["documents"], learnt["documents"], held["documents"]]
        share = f"{learnt['weighted'] / max(learnt['tokens'], 1):.1%}"
        dropped = _dropped(report["dropped"].items())
        return [str(folder), *_counts(*counts), dropped, *_counts(report["bad_rows"], learnt["tokens"]), share]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        # Not prepared, or not by this version: the run's own files have the rest.
        return None


def _counts(*values: int) -> list[str]:
    return [f"{value:,}" for value in values]


def _dropped(reasons: Iterable[tuple[str, Any]]) -> str:
    """`12 duplicate, 3 too short`, the most first."""
    counts = [(value["documents"] if isinstance(value, dict) else value, name) for name, value in reasons]
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for count, name in sorted(counts, reverse=True)) or "none"
