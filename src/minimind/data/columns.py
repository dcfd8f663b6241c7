"""Columns by the names that the reader gives them: `prompt=question answer=reply`, for rows of no known shape."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from minimind.text.shapes import SHAPES

__all__ = ["ColumnNames", "columns_by_name", "renamed"]

# `gt` is what is right of a prompt, whatever its shape.
NAMES = frozenset(name for shape in SHAPES for name in shape.columns) | {"gt"}


def _checked(words: list[str]) -> list[str]:
    columns_by_name(words)
    return words


# The type of an option with such names.
ColumnNames = Annotated[list[str], AfterValidator(_checked)]


def columns_by_name(words: Iterable[str]) -> dict[str, str]:
    """`name=column` -> the column for each name that shapes know. A ValueError says which word is none."""
    found: dict[str, str] = {}
    for word in words:
        name, sign, column = word.partition("=")
        if not sign or not column or name not in NAMES:
            raise ValueError(f"{word!r} is no name=column, with a name such as prompt, answer, system, text or chosen")
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = column
    return found


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> Mapping[str, Any]:
    """The named columns and no others; the row itself where none is named."""
    return {name: row[column] for name, column in columns.items() if column in row} if columns else row
