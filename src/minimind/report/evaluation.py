"""evaluation.json -> tables and figures to print.

{"tables": [{"title": "...", "columns": ["..."], "rows": [["...", 1.5]]}], "figures": {"name": 1.5}}
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.config import flatten
from minimind.errors import RunError, why
from minimind.report.chart import short

__all__ = ["EvaluationTable", "is_number", "read_evaluation", "rounded"]


@dataclass(frozen=True)
class EvaluationTable:
    """A table as texts; `numeric` are the columns that hold numbers only."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    numeric: set[int]


def read_evaluation(path: Path) -> tuple[list[EvaluationTable], list[tuple[str, str]]]:
    """The tables, and the figures as (name, value); nothing where there is no such file.

    Errors: RunError when it has another shape
    """
    if not path.is_file():
        return [], []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        tables = [_table(table) for table in found.get("tables") or []]
        return tables, [(name, rounded(value)) for name, value in flatten(found.get("figures") or {}, stop=())]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        shape = '{"tables": [{"title", "columns", "rows"}], "figures": {name: value}}'
        problem = f"{type(error).__name__}: {why(error)}"
        raise RunError(f"{path}: expected {shape}, got something else ({problem}); evaluate the model again") from error


def is_number(value: Any) -> bool:
    """Whether this is a figure that can be drawn."""
    # Larger than any quantity of a run, and small enough that the sum and the span of many stay finite.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def rounded(value: Any) -> str:
    """A JSON value to compare with its neighbours: four digits of a fraction, all of a count, a dash for a gap."""
    if value is None:
        return "–"
    if is_number(value):
        return f"{value:,}" if isinstance(value, int) and abs(value) < 10**15 else short(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(table: Mapping[str, Any]) -> EvaluationTable:
    names, rows = [rounded(name) for name in table["columns"]], [list(row) for row in table["rows"]]
    columns = [[row[i] if i < len(row) else None for row in rows] for i in range(len(names))]
    numeric = {i for i, cells in enumerate(columns) if all(cell is None or is_number(cell) for cell in cells)}
    texts = [_aligned(cells) if i in numeric else [rounded(cell) for cell in cells] for i, cells in enumerate(columns)]
    lines = [list(line) for line in zip(*texts, strict=True)]
    return EvaluationTable(rounded(table.get("title") or "Evaluation"), names, lines, numeric)


def _aligned(cells: Sequence[float | None]) -> list[str]:
    """Numbers of one column, to as many decimals as the longest of them has."""
    texts = [rounded(cell) for cell in cells]
    if not all(re.fullmatch(r"-?[\d,]+(\.\d+)?|–", text) for text in texts):
        return texts
    decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
    return ["–" if cell is None else f"{cell:,.{decimals}f}" for cell in cells]
