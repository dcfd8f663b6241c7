"""Titles, facts and tables in the terminal. What stands in them may be a stranger's: it is shown, never obeyed."""

from collections.abc import Mapping, Sequence
from typing import Any

from minimind.errors import printable
from minimind.terminal.notes import note, say

__all__ = ["show_bad_row", "show_facts", "show_table"]

WIDTH = 100


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A title and aligned columns: numbers to the right, texts to the left."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=WIDTH, highlight=False)
    console.print(f"\n{printable(title)}", style="bold", markup=False)
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for place, column in enumerate(columns):
        cells = [row[place] for row in rows if row[place] is not None]
        is_number = bool(cells) and all(isinstance(cell, int | float) for cell in cells)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def show_bad_row(bad: object) -> None:
    """Of a row that is skipped: where, and why."""
    note(f"left out: {bad}")


def show_facts(facts: Mapping[str, str]) -> None:
    """A value a line, the names aligned."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        say(f"  {name:<{width}}  {value}")


def _cell(value: Any) -> Any:
    from rich.text import Text

    if value is None:
        return Text("–")
    if isinstance(value, float):
        return Text(f"{value:.3f}")
    # Text, because rich would take brackets in a plain string for its own markup.
    return Text(f"{value:,}" if isinstance(value, int) else printable(str(value)))
