"""What a verb says in lines: its answer on stdout; notes about the work, warnings and errors on stderr.

So `minimind VERB > file` keeps the answer alone. Much of what is said was written by strangers, such as a row of data,
the name of a file or a server's reply: no terminal obeys what is in it.
"""

import sys
from typing import TextIO

from minimind.errors import printable

__all__ = ["note", "say", "say_error", "warn"]


def say(text: str = "") -> None:
    """The answer of a verb, or a part of it."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """What is being done, was left out or comes next."""
    _write(sys.stderr, text)


def warn(text: str) -> None:
    """What may be wrong, though the work goes on."""
    _write(sys.stderr, f"warning: {text}")


def say_error(text: str) -> None:
    """Why the work ended, each line of it."""
    for line in text.splitlines():
        _write(sys.stderr, f"error: {line}")


def _write(file: TextIO, text: str) -> None:
    # In one piece, since several processes may share a terminal; at once, since a log is read while the work goes on.
    file.write(printable(text) + "\n")
    file.flush()
