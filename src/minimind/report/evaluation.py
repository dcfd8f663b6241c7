"""evaluation.json -> tables and figures to print.

{"tables": [{"title": "...", "columns": ["..."], "rows": [["...", 1.5]]}], "figures": {"name": 1.5}}
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minimind.config import flatten
from minimind.errors import RunError, why
from minimind.evals.measured import Measured
from minimind.report.chart import short

__all__ = ["EvaluationSummary", "EvaluationTable", "is_number", "read_evaluation", "rounded"]


# Below this, a figure hangs on which items happened to be held out.
FEW_ITEMS = 30


@dataclass(frozen=True)
class EvaluationTable:
    """A table as texts; `numeric` are the columns that hold numbers only."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    numeric: set[int]


@dataclass(frozen=True)
class EvaluationSummary:
    """figures: (name, value ± standard error); too_few: a sentence for each that hangs on a handful of items"""

    tables: list[EvaluationTable] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    too_few: list[str] = field(default_factory=list)


def read_evaluation(path: Path) -> EvaluationSummary:
    """What stands in the file, each figure once; nothing where there is no such file.

    Errors: RunError when it has another shape
    """
    if not path.is_file():
        return EvaluationSummary()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        given = found.get("tables") or []
        tables = [_table(table) for table in given]
        cells = [cell for table in given for row in table["rows"] for cell in row if is_number(cell)]
        measured = {name: Measured.from_json(one) for name, one in (found.get("measured") or {}).items()}
        figures = flatten(found.get("figures") or {}, stop=())
        # What a table has said is said again only for its error.
        kept = [(name, value) for name, value in figures if name in measured or not _is_among(value, cells)]
        return EvaluationSummary(
            tables,
            [(name, rounded(value) + _error_of(measured.get(name))) for name, value in kept],
            [_too_few(name, one) for name, one in measured.items() if len(one.amounts) < FEW_ITEMS],
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        shape = '{"tables": [{"title", "columns", "rows"}], "figures": {name: value}}'
        problem = f"{type(error).__name__}: {why(error)}"
        raise RunError(f"{path}: expected {shape}, got something else ({problem}); evaluate the model again") from error


def _is_among(value: Any, cells: Sequence[float]) -> bool:
    """Tables are rounded to three decimals."""
    return is_number(value) and any(abs(value - cell) <= 0.0005 for cell in cells)


def _error_of(measured: Measured | None) -> str:
    error = measured.standard_error if measured else None
    return "" if error is None else f" ± {error:.2g}"


def _too_few(name: str, measured: Measured) -> str:
    count = len(measured.amounts)
    items = "1 item" if count == 1 else f"{count} items"
    return f"{name.replace('_', ' ').capitalize()} was measured on {items}: too few to compare with; hold out more."


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
