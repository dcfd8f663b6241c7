"""Rows of tables: parquet, Arrow, and a spreadsheet's export, whose first line names the columns."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

from minimind.data.chunks import BadRow, Chunk, ReadRows, Row, Table
from minimind.data.files import ByteStream, DataFile, require
from minimind.data.lines import MAX_LINE_BYTES, line_blocks
from minimind.errors import DataError

__all__ = ["TABLE_ROWS", "read_arrow", "read_csv", "read_parquet"]

TABLE_ROWS = 512
SEPARATORS = ",;\t|"
# Given the names of a table's columns: those that are needed, or None for all.
Needed = Callable[[Sequence[str]], list[str] | None]


def read_parquet(file: DataFile, needed: Needed, before: int) -> Iterator[Chunk]:
    arrow, parquet = (require(name, "parquet files") for name in ("pyarrow", "pyarrow.parquet"))
    first = 1
    try:
        with parquet.ParquetFile(file.path, buffer_size=1 << 20) as table:
            columns = needed(table.schema_arrow.names)
            for batch in table.iter_batches(TABLE_ROWS, columns=columns):
                share = (first - 1 + batch.num_rows) / max(table.metadata.num_rows, 1)
                yield Table(file.name, before + int(share * (file.size or 0)), first, batch)
                first += batch.num_rows
    except (OSError, arrow.ArrowException) as error:
        raise _unreadable(file, "parquet", error) from error


def read_arrow(file: DataFile, needed: Needed, before: int) -> Iterator[Chunk]:
    """Arrow's file format, which is Feather's, and its stream format, in which `datasets` keeps its own."""
    arrow, _ = (require(name, "arrow files") for name in ("pyarrow", "pyarrow.ipc"))
    assert file.path is not None, "a table has a path"
    first = 1
    try:
        with arrow.memory_map(str(file.path)) as source:
            for batch in _batches(arrow, source):
                columns = needed(batch.schema.names)
                batch = batch if columns is None else batch.select(columns)
                for start in range(0, batch.num_rows, TABLE_ROWS):
                    part = batch.slice(start, TABLE_ROWS)
                    position = before + min(source.tell(), file.size or 0)
                    yield Table(file.name, position, first, part)
                    first += part.num_rows
    except (OSError, arrow.ArrowException) as error:
        raise _unreadable(file, "arrow", error) from error


def _batches(arrow: Any, source: Any) -> Iterator[Any]:
    start = source.read(6)
    source.seek(0)
    if start != b"ARROW1":
        yield from arrow.ipc.open_stream(source)
        return
    reader = arrow.ipc.open_file(source)
    yield from (reader.get_batch(number) for number in range(reader.num_record_batches))


def read_csv(file: DataFile, before: int) -> Iterator[Chunk]:
    """Each record with its columns by name. A record that a quote leaves open, or of another width, is bad alone."""
    with closing(ByteStream(file)) as stream:
        lines = _lines(stream, file.name)
        first = next(lines, "")
        csv.field_size_limit(MAX_LINE_BYTES)
        separator = "\t" if file.format == "tsv" else max(SEPARATORS, key=first.count)
        records = csv.reader(chain([first], lines), delimiter=separator, strict=True)
        names = next(records, [])
        _check_names(file.name, names)
        held: list[Row | BadRow] = []
        while (row := _record(records, names, file.name)) is not None:
            held.append(row)
            if len(held) == TABLE_ROWS:
                yield ReadRows(file.name, before + stream.position, tuple(held))
                held = []
        if held:
            yield ReadRows(file.name, before + stream.position, tuple(held))


def _lines(stream: ByteStream, name: str) -> Iterator[str]:
    """Lines with their ends, for a field in quotes may hold some. What is no UTF-8 is found in its record."""
    for block in line_blocks(stream.read):
        for number, line in enumerate(block.lines, block.first):
            if isinstance(line, int):
                raise DataError(f"{name}:{number}: a line of {line:,} bytes; at most {MAX_LINE_BYTES:,} are read")
            yield line.decode("utf-8", "surrogateescape") + "\n"


def _record(records: Any, names: Sequence[str], path: str) -> Row | BadRow | None:
    """The next record that is not blank; None at the end."""
    while True:
        line = records.line_num + 1
        try:
            values = next(records, None)
        except csv.Error as error:
            return BadRow(path, line, f"not a record: {error}; is a quote left open?")
        if values is None:
            return None
        if not values:
            continue
        if len(values) != len(names):
            return BadRow(path, line, f"has {len(values)} fields where the first line names {len(names)} columns")
        if any(not value.isascii() and not _is_text(value) for value in values):
            return BadRow(path, line, "not UTF-8; save the table as UTF-8")
        if any("\0" in value for value in values):
            return BadRow(path, line, "holds a NUL byte, so it is no text")
        return Row(path, line, dict(zip(names, values, strict=True)))


def _is_text(value: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in value)


def _check_names(path: str, names: Sequence[str]) -> None:
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise DataError(f"{path}:1: names the column {twice!r} twice; expected a name for each column")


def _unreadable(file: DataFile, kind: str, error: Exception) -> DataError:
    reason = str(error).strip().partition("\n")[0]
    return DataError(f"{file.name}: cannot be read as {kind}: {reason}")
