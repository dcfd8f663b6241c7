"""Parse rows where their bytes are needed: a chunk is a stretch of a file that travels to a worker unparsed.

A row that cannot be used is a BadRow with its reason, never an exception and never silence. See `corpus.py`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from minimind.data.lines import MAX_LINE_BYTES, Document, LineBlock
from minimind.text.shapes import present

__all__ = [
    "BadRow",
    "Chunk",
    "JsonLines",
    "JsonValues",
    "PlainText",
    "ReadRows",
    "Row",
    "RowValues",
    "Table",
    "parse_object",
]


@dataclass(frozen=True, slots=True)
class Row:
    """An object of a file and where it is; `line` is the row's number in a table. Columns that are null are absent."""

    path: str
    line: int
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used; as text it is `path:line: reason`."""

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


class Chunk(Protocol):
    """Consecutive rows of a file, not parsed yet.

    position:  bytes of the corpus on the disk up to the end of this chunk
    """

    @property
    def position(self) -> int: ...

    @property
    def num_lines(self) -> int: ...

    def rows(self) -> Iterator[Row | BadRow]: ...


@dataclass(frozen=True)
class JsonLines:
    """Lines of JSON, an object each."""

    path: str
    position: int
    block: LineBlock

    @property
    def num_lines(self) -> int:
        return len(self.block.lines)

    def rows(self) -> Iterator[Row | BadRow]:
        last = self.num_lines - 1 if self.block.is_cut else -1
        for index, line in enumerate(self.block.lines):
            if isinstance(line, int) or (line and not line.isspace()):
                yield _row(self.path, self.block.first + index, line, is_cut=index == last)


@dataclass(frozen=True)
class JsonValues:
    """Objects of a JSON array, or objects that take several lines: each with the line it begins on.

    is_cut:  the file ends within the last one
    """

    path: str
    position: int
    values: tuple[tuple[int, bytes | int], ...]
    is_cut: bool = False

    @property
    def num_lines(self) -> int:
        return len(self.values)

    def rows(self) -> Iterator[Row | BadRow]:
        for index, (line, data) in enumerate(self.values, 1):
            yield _row(self.path, line, data, is_cut=self.is_cut and index == len(self.values))


def _row(path: str, number: int, data: bytes | int, *, is_cut: bool) -> Row | BadRow:
    """An object's bytes, or its size where that is too much, as a row."""
    try:
        if isinstance(data, int):
            raise ValueError(f"a line of {data:,} bytes; at most {MAX_LINE_BYTES:,} are read")
        return Row(path, number, present(parse_object(data)))
    except ValueError as error:
        return BadRow(path, number, f"{error}{'; the file ends within this line' if is_cut else ''}")


@dataclass(frozen=True)
class PlainText:
    """Documents of plain text, a row each."""

    path: str
    position: int
    text_column: str
    documents: tuple[Document, ...]

    @property
    def num_lines(self) -> int:
        return len(self.documents)

    def rows(self) -> Iterator[Row | BadRow]:
        for document in self.documents:
            if b"\0" in document.data:
                line = document.line + document.data.count(b"\n", 0, document.data.index(b"\0"))
                yield BadRow(
                    self.path, line, "holds a NUL byte, so it is no text; is it UTF-16, or a program's own data?"
                )
                continue
            try:
                yield Row(self.path, document.line, {self.text_column: document.data.decode("utf-8")})
            except UnicodeDecodeError as error:
                line = document.line + document.data.count(b"\n", 0, error.start)
                yield BadRow(self.path, line, f"{_not_utf8(error)}; is it in another encoding, such as GB18030?")


@dataclass(frozen=True)
class Table:
    """Rows of an Arrow or parquet file, as an Arrow record batch.

    Arrow gives every object of a column the same keys, null where an object had none: there a null is no value that
    somebody wrote, and is left out at any depth.
    """

    path: str
    position: int
    first: int
    batch: Any

    @property
    def num_lines(self) -> int:
        return self.batch.num_rows

    def rows(self) -> Iterator[Row | BadRow]:
        try:
            values = self.batch.to_pylist()
        except UnicodeDecodeError:
            values = [self._value(index) for index in range(self.batch.num_rows)]
        is_nested = any(column.type.num_fields for column in self.batch.columns)
        for number, value in enumerate(values, self.first):
            if isinstance(value, str):
                yield BadRow(self.path, number, value)
            else:
                yield Row(self.path, number, _without_nulls(value) if is_nested else present(value))

    def _value(self, index: int) -> dict[str, Any] | str:
        """A row alone, or why it cannot be used."""
        try:
            return self.batch.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            return _not_utf8(error)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class ReadRows:
    """Rows that had to be parsed to be told apart, as those of a .csv file."""

    path: str
    position: int
    read: tuple[Row | BadRow, ...]

    @property
    def num_lines(self) -> int:
        return len(self.read)

    def rows(self) -> Iterator[Row | BadRow]:
        return iter(self.read)


@dataclass(frozen=True)
class RowValues:
    """Rows that are made, not read."""

    path: str
    position: int
    first: int
    values: tuple[dict[str, Any], ...]

    @property
    def num_lines(self) -> int:
        return len(self.values)

    def rows(self) -> Iterator[Row | BadRow]:
        for number, value in enumerate(self.values, self.first):
            yield Row(self.path, number, present(value))


def parse_object(line: bytes) -> dict[str, Any]:
    """A line of JSON as an object that can be written as UTF-8 again; a ValueError says why it is not one."""
    if line.startswith(_MARK):
        raise ValueError(
            "not JSON: a byte order mark (U+FEFF) stands before this row, as where marked files were put together; "
            "remove it"
        )
    try:
        value = _DECODER.decode(line.decode("utf-8"))
        # Only an escape can smuggle half a surrogate pair past the decoder.
        if b"\\ud" in line or b"\\uD" in line:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf8(error)) from None
    except UnicodeEncodeError as error:
        half = ord(str(error.object)[error.start])
        raise ValueError(f"has half of a surrogate pair (\\u{half:04x}), which is no character") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"column {error.colno} of its line {error.lineno}"
        raise ValueError(f"not JSON: {error.msg} at {place}") from None
    except ValueError as error:
        raise ValueError(f"not JSON that can be read: {str(error).partition(';')[0]}") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {_JSON_NAMES.get(type(value), 'null')}")
    return value


_MARK = b"\xef\xbb\xbf"
_JSON_NAMES: dict[type, str] = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean"}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at byte {error.start + 1}"
