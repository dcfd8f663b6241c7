"""Lines that are piped in: UTF-8 whatever the locale says, without the mark that PowerShell puts before them."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

from minimind.data.not_text import what_it_is
from minimind.errors import DataError

__all__ = ["typed_lines"]


def typed_lines(stream: TextIO, name: str = "standard input", *, is_strict: bool = True) -> Iterator[str]:
    """The lines of a stream from which nothing was read yet.

    is_strict:  a broken character is a DataError; otherwise it is replaced, for a talk goes on
    Errors:     DataError for UTF-16 and whatever else is no text
    """
    with suppress(AttributeError):
        stream.reconfigure(encoding="utf-8-sig", errors="surrogateescape")  # type: ignore[attr-defined]
    for number, line in enumerate(stream, start=1):
        data = line.encode("utf-8", "surrogateescape")
        if number == 1 and (problem := what_it_is(data)):
            raise DataError(f"{name}: {problem}")
        try:
            yield data.decode("utf-8", "strict" if is_strict else "replace")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}:{number}: not UTF-8: {error.reason}; send it as UTF-8") from None
