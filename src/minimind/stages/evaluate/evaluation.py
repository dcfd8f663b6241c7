"""What `minimind evaluate` gathers: tables for people, figures to compare, and the items behind each figure."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from minimind.errors import RunError
from minimind.terminal.tables import show_table

if TYPE_CHECKING:
    from minimind.evals.measured import Measured

__all__ = ["Evaluation", "check_writable", "percent"]

# Wrong answers are what one learns from; these many are shown.
SHOWN_MISTAKES = 5
SHOWN_CHARACTERS = 200


@dataclass
class Evaluation:
    """The content of an evaluation.json, printed while it grows.

    figures:   name -> value
    measured:  name -> its items, for those figures that can be compared with another model's
    """

    tables: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    measured: "dict[str, Measured]" = field(default_factory=dict)

    def add(self, name: str, measured: "Measured") -> None:
        self.figures[name], self.measured[name] = measured.value, measured

    def show(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Keep a table for the report, and print it."""
        self.tables.append({"title": title, "columns": list(columns), "rows": [list(row) for row in rows]})
        show_table(title, columns, rows)

    def show_mistakes(self, title: str, mistakes: Iterable[Sequence[str]]) -> None:
        """The first of them, if there are any: kind, question, what was expected and what came."""
        shown = [
            [shorten(text, SHOWN_CHARACTERS, placeholder=" …") for text in row]
            for row in islice(mistakes, SHOWN_MISTAKES)
        ]
        if shown:
            self.show(title, ["kind", "question", "expected", "got"], shown)

    def write(self, path: Path) -> None:
        measured = {name: found.to_json() for name, found in self.measured.items()}
        content = {"tables": self.tables, "figures": self.figures, "measured": measured}
        # One line for the items: they are many, and for programs.
        text = json.dumps(content | {"measured": {}}, ensure_ascii=False, indent=2).removesuffix("{}\n}")
        path.write_text(f"{text}{json.dumps(measured)}\n}}\n", encoding="utf-8")


def check_writable(path: Path) -> None:
    """Make the folder of a file that will be written after hours of measuring. Errors: RunError"""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        reason = "is a folder" if path.is_dir() else "" if os.access(path.parent, os.W_OK) else "no permission"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise RunError(f"{path}: cannot be written: {reason}; choose another --out")


def percent(measured: "Measured") -> str:
    """A share with its standard error."""
    error = measured.standard_error
    return f"{measured.value:.1%}" if error is None else f"{measured.value:.1%} ± {error:.1%}"
