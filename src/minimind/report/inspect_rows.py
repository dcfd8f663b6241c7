"""Raw data files in human terms: what kind of rows, how many, how long, who speaks, what is broken and where."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any

import numpy as np

from minimind.data.columns import renamed
from minimind.data.corpus import NO_COLUMNS, BadRow, Row, kind_of, read_chunks
from minimind.data.counts import in_words
from minimind.data.files import find_files
from minimind.data.learnt import Learn, with_weights
from minimind.data.pair_rows import pair_of_conversations
from minimind.errors import DataError
from minimind.report.inspect_shards import count_duplicates
from minimind.report.inspection import Inspection, InspectionTable, SamplePiece, beginning, length_table
from minimind.text.conversation import Conversation, weighted_text
from minimind.text.flags import row_weight
from minimind.text.rows import unread_keys
from minimind.text.shapes import RowShape, may_matter, shape_of, unread_columns

__all__ = ["inspect_rows"]

SHOWN_FAULTS = 10
SHOWN_LONGEST = 5
SHOWN_COLUMNS = 20
SHOWN_CHARACTERS = 4000
# What the kinds of shapes are called here.
KINDS: Mapping[str, str] = {
    "pair": "preference pair",
    "judged": "judged answer",
    "choice": "multiple choice",
    "ids": "token ids",
}


@dataclass
class _Tally:
    """What is counted while the rows go by."""

    text_column: str
    learn: Learn = "all"
    shapes: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    sample: list[SamplePiece] = field(default_factory=list)
    sample_title: str = ""
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
        self._look_closer(row)
        self.columns.update(row.value.keys())
        self.lengths.setdefault(kind, []).append(len(text))
        longest = (len(text), f"{row.path}:{row.line}", beginning(text))
        self.starts = nlargest(SHOWN_LONGEST, [*self.starts, longest], key=lambda start: start[0])
        return json.dumps(row.value, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8", "replace")

    def _look_closer(self, row: Row) -> None:
        """The row's shape, what is not read of it, and the first row that can be learnt as it will be."""
        shape = shape_of(row.value, self.text_column)
        self.shapes[f"{shape.name} ({shape.known_from})" if shape else "unknown"] += 1
        if shape is not None:
            names = (
                *unread_columns(row.value, shape, self.text_column),
                *(f"message.{key}" for key in unread_keys(row.value)),
            )
            self.unread.update(name for name in names if may_matter(name, shape.kind))
            if not self.sample:
                self.sample = _as_learnt(row.value, shape, self.text_column, self.learn)
                self.sample_title = f"{row.path}:{row.line} as it is learnt: {shape.name}"

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


def inspect_rows(
    sources: Sequence[str], *, text_column: str = "text", columns: Mapping[str, str] = NO_COLUMNS, learn: Learn = "all"
) -> Inspection:
    """Files, folders, globs, hf:// or builtin:// sources, each row of them. Errors: DataError for unreadable files"""
    tally, unread_files = _Tally(text_column, learn), Counter[str]()
    chunks = read_chunks(find_files(sources, unread=unread_files), text_column=text_column, columns=columns)
    rows = (_named(row, columns) for chunk in chunks for row in chunk.rows())
    duplicates = count_duplicates(_counted(rows, tally))
    count = sum(tally.kinds.values())
    found = Inspection(
        f"{', '.join(sources)}: data of {count:,} rows",
        {
            "kind": ", ".join(f"{name} {number:,}" for name, number in tally.kinds.most_common()) or "no good row",
            "shape": ", ".join(f"{name} {number:,}" for name, number in tally.shapes.most_common()) or "no good row",
            "broken rows": f"{tally.num_faults:,}",
            "duplicates": f"{duplicates:,}",
        },
        sample=tally.sample,
        sample_title=tally.sample_title,
        faults=tally.faults,
    )
    if unread_files:
        found.facts["files not read"] = in_words(unread_files)
    if tally.unread and not columns:
        found.faults.append(f"not read, though it could change what is learnt: {in_words(tally.unread)}")
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


def _named(row: Row | BadRow, columns: Mapping[str, str]) -> Row | BadRow:
    return row if isinstance(row, BadRow) else Row(row.path, row.line, renamed(row.value, columns))


def _kind(value: Mapping[str, Any], text_column: str) -> str:
    try:
        return kind_of(value, text_column)
    except ValueError:
        shape = shape_of(value, text_column)
        return KINDS.get(shape.kind, shape.kind) if shape else "other"


def _as_learnt(value: Mapping[str, Any], shape: RowShape, text_column: str, learn: Learn) -> list[SamplePiece]:
    """The text of a row in stretches of equal weight; nothing for what cannot be read, or is not learnt here."""
    try:
        if shape.kind == "text":
            stretches = [(str(value[text_column]), float(row_weight(value)))]
        elif shape.kind == "pair":
            chosen, rejected = (weighted_text(with_weights(side, "last")[0]) for side in pair_of_conversations(value))
            stretches = [("chosen: ", 0.0), *chosen, ("rejected: ", 0.0), *rejected]
        elif shape.kind in ("conversation", "prompt"):
            stretches = weighted_text(with_weights(Conversation.parse(value, ""), learn)[0])
        else:
            return []
    except DataError:
        return []
    return [SamplePiece(_shortened(text), weight) for text, weight in stretches]


def _shortened(text: str) -> str:
    left_out = len(text) - SHOWN_CHARACTERS
    return f"{text[:SHOWN_CHARACTERS]} … and {left_out:,} characters more" if left_out > 0 else text


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
