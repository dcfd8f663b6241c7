"""Rows of text or conversations from files, in order, each with the line it came from.

Reading goes in two steps, so that the second can run in other processes: `read_chunks` cuts files into chunks of about
a megabyte, and a chunk's `rows()` parses it (`chunks.py`). Good rows, bad rows and blank lines add up to the lines of
the file.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from minimind.data.chunks import BadRow, Chunk, JsonLines, JsonValues, PlainText, Row, RowValues
from minimind.data.columns import renamed
from minimind.data.files import ByteStream, DataFile, find_files
from minimind.data.json_values import JsonCutter, is_cut_by_lines
from minimind.data.lines import Document, documents, line_blocks
from minimind.data.tables import TABLE_ROWS, Needed, read_arrow, read_csv, read_parquet
from minimind.errors import DataError
from minimind.text.rows import is_message
from minimind.text.shapes import MESSAGE_LISTS, ROW_FLAGS, SHAPES, TEXT, Kind, present, shape_of

__all__ = [
    "NO_COLUMNS",
    "OTHERS",
    "BadRow",
    "BadRows",
    "Row",
    "RowKind",
    "detect_kind",
    "kind_of",
    "read_chunks",
    "read_rows",
]

RowKind = Literal["text", "conversation"]
NO_COLUMNS: Mapping[str, str] = {}
CHUNK_BYTES = 1 << 20
# What else a row can hold, and what to do with it.
OTHERS: Mapping[Kind, str] = {
    "pair": "preference pairs (chosen, rejected); expected text or conversations; `minimind dpo` learns from pairs",
    "judged": "an answer that is judged alone (KTO), from which nothing here learns; pair a good and a bad answer to "
    "one prompt for `minimind dpo`, or keep the good ones without their label for `minimind sft`",
    "prompt": "a prompt without an answer; expected text or conversations; `minimind grpo` learns from prompts",
    "choice": "a question with choices; expected text or conversations; `minimind evaluate --choices` asks those",
    "minimal pair": "two sentences; expected text or conversations; `minimind evaluate --pairs` compares those",
    "ids": "token ids, which mean something to one vocabulary only; give the text they were made of",
}


@dataclass
class BadRows:
    """Counts bad rows and stops at the first one over the limit."""

    limit: int
    observe: Callable[[BadRow], None] = lambda bad: None
    count: int = field(default=0, init=False)

    def add(self, bad: BadRow) -> None:
        self.count += 1
        if self.count > self.limit:
            allowed = f"max_bad_rows allows {self.limit}; raise it to skip such rows"
            raise DataError(f"{bad} (bad row {self.count}, {allowed})")
        self.observe(bad)


def read_rows(
    sources: Iterable[str | Path],
    *,
    text_column: str = "text",
    columns: Mapping[str, str] = NO_COLUMNS,
    max_bad_rows: int = 0,
    observe: Callable[[BadRow], None] = lambda bad: None,
) -> Iterator[Row]:
    """The rows of all sources in order. Plain text gives rows `{text_column: text}`.

    columns:  see `columns_by_name`
    observe:  told each bad row that `max_bad_rows` allows
    Errors:   DataError for a file that cannot be read, or at the first bad row over the limit.
    """
    bad_rows = BadRows(max_bad_rows, observe)
    for chunk in read_chunks(find_files(sources), text_column=text_column, columns=columns):
        for row in chunk.rows():
            if isinstance(row, BadRow):
                bad_rows.add(row)
            else:
                yield Row(row.path, row.line, renamed(row.value, columns)) if columns else row


def read_chunks(
    files: Iterable[DataFile], *, text_column: str = "text", columns: Mapping[str, str] = NO_COLUMNS
) -> Iterator[Chunk]:
    """Cut files into chunks that can be parsed anywhere.

    columns:  whose columns are to be read, whatever other columns suggest; whoever parses the rows renames them
    """
    before = 0
    needed = partial(_needed_columns, text_column=text_column, named=list(columns.values()))
    for file in files:
        has_rows = False
        for chunk in _chunks_of(file, text_column, needed, before):
            has_rows = has_rows or chunk.num_lines > 0
            yield chunk
        if not has_rows:
            raise DataError(f"{file.name}: has no rows; remove it or give another file")
        before += file.size or 0


def _chunks_of(file: DataFile, text_column: str, needed: Needed, before: int) -> Iterator[Chunk]:
    match file.format:
        case "parquet":
            return read_parquet(file, needed, before)
        case "arrow":
            return read_arrow(file, needed, before)
        case "csv" | "tsv":
            return read_csv(file, before)
        case "builtin":
            return _read_builtin(file, before)
        case "html" | "pdf" | "docx" | "epub":
            return _read_document(file, text_column, before)
    return _read_bytes(file, text_column, before)


def kind_of(value: Mapping[str, Any], text_column: str = "text") -> RowKind:
    """What a row holds, by its columns; a ValueError says what was expected.

    Conversations win, because some public sets carry a rendered text beside them.
    """
    value = present(value)
    shape = shape_of(value, text_column)
    if shape is None and any(name in value for name in MESSAGE_LISTS):
        return "conversation"
    if shape is not None and shape.kind in OTHERS:
        raise ValueError(f"has {OTHERS[shape.kind]}; or name columns with columns, such as prompt=... answer=...")
    if shape is not None:
        return "text" if shape.kind == "text" else "conversation"
    found = ", ".join(map(repr, list(value)[:10])) or "nothing"
    if is_message(value):
        raise ValueError(f"is a message by itself, with {found}; expected the messages of a conversation in one row")
    raise ValueError(
        f"has no column {text_column!r} and no conversation, but {found}; name the column of the text with "
        "text_column, or those of prompt and answer with columns"
    )


def detect_kind(
    chunks: Iterator[Chunk], text_column: str, max_bad_rows: int, columns: Mapping[str, str] = NO_COLUMNS
) -> tuple[RowKind, Iterator[Chunk]]:
    """What the first good row holds, and all the chunks.

    It looks no further than to the bad row that is one too many: whoever reads the chunks stops there.
    """
    seen: list[Chunk] = []
    num_bad = 0
    for chunk in chunks:
        seen.append(chunk)
        for row in chunk.rows():
            try:
                if isinstance(row, Row):
                    return kind_of(renamed(row.value, columns), text_column), chain(seen, chunks)
            except ValueError:
                pass
            num_bad += 1
            if num_bad > max_bad_rows:
                return "text", chain(seen, chunks)
    return "text", iter(seen)


def _read_bytes(file: DataFile, text_column: str, before: int) -> Iterator[Chunk]:
    """JSON or plain text; standard input is taken for JSON when it begins with an object, or an array of them."""
    with closing(ByteStream(file)) as stream:
        start = stream.peek().lstrip()
        is_array = not is_cut_by_lines(start)
        if file.format == "json" or (not file.format and (start.startswith(b"{") or is_array)):
            yield from _read_json(file.name, stream, before, is_array)
            return
        for some in _batched(documents(stream.read)):
            yield PlainText(file.name, before + stream.position, text_column, some)


def _read_document(file: DataFile, text_column: str, before: int) -> Iterator[Chunk]:
    """Its text, cut as a file of plain text is; rows are numbered by the lines of that."""
    from minimind.data.documents import document_text

    text = io.BytesIO(document_text(file).encode("utf-8", "replace"))
    for some in _batched(documents(text.read)):
        yield PlainText(file.name, before + (file.size or 0), text_column, some)


def _read_json(name: str, stream: ByteStream, before: int, is_array: bool) -> Iterator[Chunk]:
    if not is_array:
        for block in line_blocks(stream.read):
            yield JsonLines(name, before + stream.position, block)
        return
    cutter = JsonCutter(stream.read)
    for values in cutter.blocks():
        yield JsonValues(name, before + stream.position, values, cutter.is_cut)


def _batched(items: Iterator[Document]) -> Iterator[tuple[Document, ...]]:
    held, size = [], 0
    for document in items:
        held.append(document)
        size += len(document.data)
        if size >= CHUNK_BYTES:
            yield tuple(held)
            held, size = [], 0
    if held:
        yield tuple(held)


def _needed_columns(names: Sequence[str], text_column: str, named: Sequence[str]) -> list[str] | None:
    """The text and its flags alone where nothing else can be: other columns may be large. None is all of them."""
    if named:
        return [name for name in names if name in named]
    others = {name for shape in SHAPES if shape is not TEXT for name in shape.columns} - {*ROW_FLAGS}
    if text_column not in names or others & set(names):
        return None
    return [text_column, *(name for name in ROW_FLAGS if name in names)]


def _read_builtin(file: DataFile, before: int) -> Iterator[Chunk]:
    from minimind.builtin.corpus import builtin_rows

    values, first = builtin_rows(file.name.partition("://")[2]), 1
    while some := tuple(islice(values, TABLE_ROWS)):
        yield RowValues(file.name, before, first, some)
        first += len(some)
