"""Rows of text or conversations from files, in order, each with the line it came from.

Reading goes in two steps, so that the second can run in other processes: `read_chunks` cuts files into chunks of about
a megabyte, and a chunk's `rows()` parses it (`chunks.py`). Good rows, bad rows and blank lines add up to the lines of
the file.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from minimind.data.chunks import BadRow, Chunk, JsonLines, PlainText, Row, RowValues, Table
from minimind.data.files import ByteStream, DataFile, find_files, require
from minimind.data.lines import Document, documents, line_blocks
from minimind.errors import DataError

__all__ = ["BadRow", "BadRows", "Row", "RowKind", "detect_kind", "kind_of", "read_chunks", "read_rows"]

RowKind = Literal["text", "conversation"]
CHUNK_BYTES = 1 << 20
TABLE_ROWS = 512
# The columns that conversations come in, one tuple for each public layout.
CONVERSATION_COLUMNS = (("conversations",), ("messages",), ("instruction", "output"))
PAIR_COLUMNS = ("chosen", "rejected")


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
    max_bad_rows: int = 0,
    observe: Callable[[BadRow], None] = lambda bad: None,
) -> Iterator[Row]:
    """The rows of all sources in order. Plain text gives rows `{text_column: text}`.

    observe:  told each bad row that `max_bad_rows` allows
    Errors:   DataError for a file that cannot be read, or at the first bad row over the limit.
    """
    bad_rows = BadRows(max_bad_rows, observe)
    for chunk in read_chunks(find_files(sources), text_column=text_column):
        for row in chunk.rows():
            if isinstance(row, BadRow):
                bad_rows.add(row)
            else:
                yield row


def read_chunks(files: Iterable[DataFile], *, text_column: str = "text") -> Iterator[Chunk]:
    """Cut files into chunks that can be parsed anywhere."""
    before = 0
    for file in files:
        has_rows = False
        read = _READERS.get(file.format, _read_bytes)
        for chunk in read(file, text_column, before):
            has_rows = has_rows or chunk.num_lines > 0
            yield chunk
        if not has_rows:
            raise DataError(f"{file.name}: has no rows; remove it or give another file")
        before += file.size or 0


def kind_of(value: dict[str, Any], text_column: str = "text") -> RowKind:
    """What a row holds, by its columns; a ValueError says what was expected.

    Conversations win, because some public sets carry a rendered text beside them.
    """
    if any(all(value.get(name) is not None for name in names) for names in CONVERSATION_COLUMNS):
        return "conversation"
    if text_column in value:
        return "text"
    if all(name in value for name in PAIR_COLUMNS):
        raise ValueError("has preference pairs (chosen, rejected); expected text or conversations")
    found = ", ".join(map(repr, list(value)[:10])) or "nothing"
    raise ValueError(
        f"has no column {text_column!r} and no conversation, but {found}; name the column of the text with text_column"
    )


def detect_kind(chunks: Iterator[Chunk], text_column: str, max_bad_rows: int) -> tuple[RowKind, Iterator[Chunk]]:
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
                    return kind_of(row.value, text_column), chain(seen, chunks)
            except ValueError:
                pass
            num_bad += 1
            if num_bad > max_bad_rows:
                return "text", chain(seen, chunks)
    return "text", iter(seen)


def _read_bytes(file: DataFile, text_column: str, before: int) -> Iterator[Chunk]:
    """Lines or plain text; standard input is taken for lines of JSON when it begins with an object."""
    with closing(ByteStream(file)) as stream:
        if file.format == "jsonl" or (not file.format and stream.peek().lstrip().startswith(b"{")):
            for block in line_blocks(stream.read):
                yield JsonLines(file.name, before + stream.position, block)
            return
        for some in _batched(documents(stream.read)):
            yield PlainText(file.name, before + stream.position, text_column, some)


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


def _read_parquet(file: DataFile, text_column: str, before: int) -> Iterator[Chunk]:
    arrow, parquet = (require(name, "parquet files") for name in ("pyarrow", "pyarrow.parquet"))
    first = 1
    try:
        with parquet.ParquetFile(file.path, buffer_size=1 << 20) as table:
            columns = _needed_columns(table.schema_arrow.names, text_column)
            for batch in table.iter_batches(TABLE_ROWS, columns=columns):
                share = (first - 1 + batch.num_rows) / max(table.metadata.num_rows, 1)
                yield Table(file.name, before + int(share * (file.size or 0)), first, batch)
                first += batch.num_rows
    except (OSError, arrow.ArrowException) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{file.name}: cannot be read as parquet: {reason}") from error


def _needed_columns(names: list[str], text_column: str) -> list[str] | None:
    """The text alone where no conversation can be: the other columns may be large. None is all of them."""
    others = {name for columns in (*CONVERSATION_COLUMNS, PAIR_COLUMNS) for name in columns}
    return [text_column] if text_column in names and not others & set(names) else None


def _read_builtin(file: DataFile, text_column: str, before: int) -> Iterator[Chunk]:
    from minimind.builtin.corpus import builtin_rows

    values, first = builtin_rows(file.name.partition("://")[2]), 1
    while some := tuple(islice(values, TABLE_ROWS)):
        yield RowValues(file.name, before, first, some)
        first += len(some)


_READERS = {"parquet": _read_parquet, "builtin": _read_builtin}
