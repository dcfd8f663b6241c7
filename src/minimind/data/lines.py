"""Cut a stream of bytes into lines or into documents, with memory that does not depend on the stream.

Lines are what JSON lines files are made of; a line over the limit is counted and skipped, never held. Documents are
what plain text is made of: a small file is one document, a large one is cut at its blank lines. See `corpus.py`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["MAX_LINE_BYTES", "WHOLE_FILE_BYTES", "Document", "LineBlock", "documents", "line_blocks"]

# Room for a book on one line, and little enough that every worker may hold a few.
MAX_LINE_BYTES = 16 << 20
BLOCK_BYTES = 1 << 20

# A plain text file of up to WHOLE_FILE_BYTES is one document. A larger one is cut at the first blank line after
# DOCUMENT_BYTES (about a thousand tokens), or failing that before WHOLE_FILE_BYTES: at a line's end, or a space.
WHOLE_FILE_BYTES = 32 << 10
DOCUMENT_BYTES = 4 << 10

BLANK_LINES = re.compile(rb"\n(?:[ \t]*\n)+")

Read = Callable[[int], bytes]


@dataclass(frozen=True)
class LineBlock:
    """Consecutive lines without their ends.

    first:   the number of the first line, from 1
    lines:   a line's bytes, or the size of one that is too long to be read
    is_cut:  the last line is the file's last and has no end
    """

    first: int
    lines: tuple[bytes | int, ...]
    is_cut: bool = False


@dataclass(frozen=True)
class Document:
    """A stretch of plain text without the blank lines around it, and the number of its first line."""

    line: int
    data: bytes


def line_blocks(read: Read, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[LineBlock]:
    """The lines of a stream in blocks of about a megabyte."""
    number, held = 1, _Held(max_line_bytes)
    while block := read(BLOCK_BYTES):
        first, *rest = block.split(b"\n")
        held.add(first)
        if rest:
            lines = [held.take(), *(line if len(line) <= max_line_bytes else len(line) for line in rest[:-1])]
            held.add(rest[-1])
            yield LineBlock(number, tuple(lines))
            number += len(lines)
    if held.size:
        yield LineBlock(number, (held.take(),), is_cut=True)


class _Held:
    """The beginning of a line whose end has not been read; only its size once it is too long."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size <= self.limit:
            self._parts.append(part)
        else:
            self._parts.clear()

    def take(self) -> bytes | int:
        line = b"".join(self._parts) if self.size <= self.limit else self.size
        self.size = 0
        self._parts.clear()
        return line


def documents(read: Read) -> Iterator[Document]:
    """The documents of a stream of plain text: all of it, in order, but for blank lines where it is cut.

    Ends of lines become line feeds, as in Python's text files.
    """
    read_line_feeds = _LineFeeds(read)
    line, held, is_at_end = 1, b"", False
    while held or not is_at_end:
        while not is_at_end and len(held) <= WHOLE_FILE_BYTES:
            block = read_line_feeds(BLOCK_BYTES)
            held, is_at_end = held + block, not block
        start = 0
        is_small = line == 1 and is_at_end and len(held) <= WHOLE_FILE_BYTES
        while start < len(held) and (is_at_end or len(held) - start > WHOLE_FILE_BYTES):
            end = len(held) if is_small else _cut(held, start)
            data = held[start:end]
            if text := data.strip(b"\n"):
                yield Document(line + len(data) - len(data.lstrip(b"\n")), text)
            line += data.count(b"\n")
            start = end
        held = held[start:]


def _cut(data: bytes, start: int) -> int:
    """Where the document that begins at `start` ends."""
    limit = start + WHOLE_FILE_BYTES
    blank = BLANK_LINES.search(data, start + DOCUMENT_BYTES, limit)
    if blank:
        return blank.end()
    if len(data) <= limit:
        return len(data)
    for mark in (b"\n", b" "):
        if (place := data.rfind(mark, start + DOCUMENT_BYTES, limit)) >= 0:
            return place + 1
    # Continuation bytes of UTF-8 are 10xxxxxx; a character has at most three of them.
    return next(place for place in range(limit, limit - 4, -1) if data[place] & 0xC0 != 0x80 or place == limit - 3)


class _LineFeeds:
    """Reads with CR LF turned into LF, also where a pair lies across two reads."""

    def __init__(self, read: Read) -> None:
        self._read, self._held = read, b""

    def __call__(self, size: int) -> bytes:
        while block := self._read(size):
            data = self._held + block
            self._held = b"\r" if data.endswith(b"\r") else b""
            if data := data.removesuffix(self._held):
                return data.replace(b"\r\n", b"\n")
        data, self._held = self._held, b""
        return data
