"""Cut a stream of JSON into its objects where lines do not: arrays, and objects written over several lines.

Only quotes, brackets and commas are looked at, so a broken object is bad alone, and what is held is one object at a
time. An object over the limit is counted and skipped, as a line is in `lines.py`.
"""

import json
import re
from collections.abc import Callable, Iterator

from minimind.data.lines import MAX_LINE_BYTES

__all__ = ["JsonCutter", "is_cut_by_lines"]

BLOCK_BYTES = 1 << 20
_OUTSIDE = re.compile(rb'["{}\[\],]')
_INSIDE = re.compile(rb'["\\]')
# What ends a line within an object, and what begins the next.
_GOES_ON = re.compile(rb"\{\s*\"|[\[,:](?:[ \t]|\")")
_ARRAY = re.compile(rb"\[\s*(?:[{\]]|$)")


def is_cut_by_lines(start: bytes) -> bool:
    """Is there an object on each line? Told by the first bytes: not where an array of objects begins, nor where the
    first line opens what it does not close."""
    start = start.lstrip()
    if _ARRAY.match(start):
        return False
    first, _, rest = start.partition(b"\n")
    if not first.startswith(b"{") or not _GOES_ON.match(first.rstrip()[-1:] + rest):
        return True
    try:
        json.loads(first)
    except ValueError:
        return False
    return True


class JsonCutter:
    """The values of a stream: the elements of each array at the top, and every object beside them.

    is_cut:  known at the end: the stream ended within a value, or before an array was closed
    """

    def __init__(self, read: Callable[[int], bytes], max_bytes: int = MAX_LINE_BYTES) -> None:
        self._read, self._max = read, max_bytes
        self.is_cut = False
        self._line, self._size, self._newlines = 1, 0, 0
        self._parts: list[bytes] = []
        # Brackets that are open; `_floor` of them belong to no value.
        self._depth = self._floor = 0
        self._in_text = False

    def blocks(self) -> Iterator[tuple[tuple[int, bytes | int], ...]]:
        """Values in order, some at a time, each as (its first line, its bytes or only their number)."""
        skip = 0
        while block := self._read(BLOCK_BYTES):
            found, skip = self._cut(block, skip)
            if values := tuple(value for value in found if value):
                yield values
        is_whole = self._depth == self._floor and not self._in_text
        if last := self._take():
            self.is_cut = not is_whole
            yield (last,)
        if self._floor and is_whole:
            self.is_cut = True
            yield ((self._line, b"["),)

    def _cut(self, block: bytes, at: int) -> tuple[list[tuple[int, bytes | int] | None], int]:
        """The values that end in a block; and how many bytes of the next one an escape covers."""
        found: list[tuple[int, bytes | int] | None] = []
        start = 0
        while match := (_INSIDE if self._in_text else _OUTSIDE).search(block, at):
            at, sign = match.end(), match[0]
            if sign == b"\\":
                at += 1
            elif sign == b'"':
                self._in_text = not self._in_text
            elif sign == b"[" and self._depth == self._floor == 0:
                self._hold(block[start : at - 1])
                self._depth = self._floor = 1
                start = at
            elif sign in b"{[":
                self._depth += 1
            elif sign == b"]" and self._depth == self._floor == 1:
                found.append(self._take(block[start : at - 1]))
                self._depth = self._floor = 0
                start = at
            elif sign in b"}]":
                # One too many is left to whoever parses the value.
                self._depth = max(self._depth - 1, self._floor)
                if self._depth == 0:
                    found.append(self._take(block[start:at]))
                    start = at
            elif self._depth == self._floor == 1:
                found.append(self._take(block[start : at - 1]))
                start = at
        self._hold(block[start:])
        return found, max(at - len(block), 0)

    def _hold(self, part: bytes) -> None:
        self._size += len(part)
        self._newlines += part.count(b"\n")
        # White space between values is not kept, so that however much there is of it costs nothing.
        if not self._parts and not part.strip():
            self._line, self._newlines, self._size = self._line + self._newlines, 0, 0
        elif self._size <= self._max:
            self._parts.append(part)
        else:
            self._parts = [b"["]

    def _take(self, part: bytes = b"") -> tuple[int, bytes | int] | None:
        """The value that ends here; None where there is nothing but white space."""
        self._hold(part)
        data, size = b"".join(self._parts), self._size
        line = self._line + (data[: len(data) - len(data.lstrip())].count(b"\n") if size <= self._max else 0)
        self._line += self._newlines
        self._parts, self._size, self._newlines = [], 0, 0
        if size > self._max:
            return line, size
        return (line, data.strip()) if data.strip() else None
