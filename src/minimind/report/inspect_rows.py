"""Raw data files in human terms: what kind of rows, how many, how long, who speaks, what is broken and where."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any

import numpy as np

from minimind.data.corpus import BadRow, Row, kind_of, read_chunks
from minimind.data.files import find_files
from minimind.errors import DataError
from minimind.report.inspect_shards import count_duplicates
from minimind.report.inspection import Inspection, InspectionTable, beginning, length_table
from minimind.text.messages import Conversation

__all__ = ["inspect_rows"]

SHOWN_FAULTS = 10
SHOWN_LONGEST = 5
SHOWN_COLUMNS = 20
# Columns that tell what a row is for, where it is no text and no conversation.
OTHER_KINDS = {
    "preference pair": ("chosen", "rejected"),
    "minimal pair": ("good", "bad"),
    "multiple choice": ("question", "choices"),
}


@dataclass
class _Tally:
    """What is counted while the rows go by."""

    text_column: str
    kinds: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    starts: list[tuple[int, str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    num_faults: int = 0

    def add(self, row: Row) -> bytes:
        """Count a row, and give the bytes that tell whether another is equal to it."""
        kind, text = self._read(row)
        self.kinds[kind] += 1
        self.columns.update(row.value.keys())
        self.lengths.setdefault(kind, []).append(len(text))
        longest = (len(text), f"{row.path}:{row.line}", beginning(text))
        self.starts = nlargest(SHOWN_LONGEST, [*self.starts, longest], key=lambda start: start[0])
        return json.dumps(row.value, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8", "replace")

    def add_fault(self, problem: str) -> None:
        self.num_faults += 1
        if self.num_faults <= SHOWN_FAULTS:
            self.faults.append(problem)

    def _read(self, row: Row) -> tuple[str, str]:
        """The kind of a row, and all of its text."""
        kind = _kind(row.value, self.text_column)
        where = f"{row.path}:{row.line}"
        if kind == "conversation":
            try:
                conversation = Conversation.parse(row.value, where)
            except DataError as error:
                self.add_fault(str(error))
                return "broken conversation", json.dumps(row.value, ensure_ascii=False, default=str)
            self.roles.update(message.role for message in conversation.messages)
            return kind, "\n".join(message.content for message in conversation.messages)
        text = row.value.get(self.text_column) if kind == "text" else None
        if kind == "text" and not isinstance(text, str):
            self.add_fault(f"{where}: column {self.text_column!r} holds {type(text).__name__}; expected text")
        return kind, text if isinstance(text, str) else json.dumps(row.value, ensure_ascii=False, default=str)


def inspect_rows(sources: Sequence[str], *, text_column: str = "text") -> Inspection:
    """Files, folders, globs, hf:// or builtin:// sources, each row of them. Errors: DataError for unreadable files"""
    tally = _Tally(text_column)
    rows = (row for chunk in read_chunks(find_files(sources), text_column=text_column) for row in chunk.rows())
    duplicates = count_duplicates(_counted(rows, tally))
    count = sum(tally.kinds.values())
    found = Inspection(
        f"{', '.join(sources)}: data of {count:,} rows",
        {
            "kind": ", ".join(f"{name} {number:,}" for name, number in tally.kinds.most_common()) or "no good row",
            "broken rows": f"{tally.num_faults:,}",
            "duplicates": f"{duplicates:,}",
        },
        faults=tally.faults,
    )
    if tally.num_faults > len(tally.faults):
        found.faults.append(f"and {tally.num_faults - len(tally.faults):,} more broken rows")
    if count:
        found.tables = _tables(tally, count)
    return found


def _counted(rows: Any, tally: _Tally) -> Any:
    for row in rows:
        if isinstance(row, BadRow):
            tally.add_fault(str(row))
        else:
            yield tally.add(row)


def _kind(value: Mapping[str, Any], text_column: str) -> str:
    try:
        return kind_of(dict(value), text_column)
    except ValueError:
        return next((kind for kind, names in OTHER_KINDS.items() if all(name in value for name in names)), "other")


def _tables(tally: _Tally, count: int) -> list[InspectionTable]:
    lengths = {kind: np.array(values) for kind, values in tally.lengths.items()}
    columns = [[name, number, f"{number / count:.0%}"] for name, number in tally.columns.most_common(SHOWN_COLUMNS)]
    tables = [length_table("Characters of a row's text, by percentile", lengths)]
    if tally.roles:
        rows = [[role, number, round(number / count, 2)] for role, number in tally.roles.most_common()]
        tables.append(InspectionTable("Messages by role", ["role", "messages", "a row"], rows))
    longest = [[where, length, text] for length, where, text in tally.starts]
    return [
        *tables,
        InspectionTable("Columns", ["column", "rows", "share"], columns),
        InspectionTable("Longest rows", ["where", "characters", "begins"], longest),
    ]
