"""Answers to prompts as jsonl, a row each in the order of the prompts, which the same command can go on with.

A row is written once all before it are, so the file is always the beginning of the whole, but for a last line that a
kill may have torn. What the answers depend on stands in `OUT.settings.json` beside it: a command that would go on
otherwise is refused. `generate.py` fills it; `synthesize.py` keeps its own rows in such a file.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from minimind.errors import DataError

__all__ = ["AnswerFile", "open_answers", "open_output"]


class AnswerFile:
    """An open file of answers: how many rows it has, and how many of them say that there is no answer."""

    def __init__(self, file: BinaryIO) -> None:
        self.num_rows = 0
        self.num_errors = 0
        self._file = file

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; once this returns, a kill of the process cannot take it."""
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        self.count(row)

    def count(self, row: Mapping[str, Any]) -> None:
        self.num_rows += 1
        self.num_errors += "error" in row


@contextmanager
def open_answers(path: Path, settings: Mapping[str, Any], prompts: Sequence[Mapping[str, Any]]) -> Iterator[AnswerFile]:
    """A new file, or one that the same prompts and settings began, a torn last line taken away.

    settings:  as in `open_output`
    prompts:   of each row the part that it repeats
    Errors:    DataError; the file is then as it was
    """
    with open_output(path, settings) as file:
        answers = AnswerFile(file)
        file.truncate(_read(file, path, answers, prompts))
        yield answers


@contextmanager
def open_output(path: Path, settings: Mapping[str, Any]) -> Iterator[BinaryIO]:
    """A file to read and append to that no other process writes, new or begun with the same settings.

    settings:  what its rows depend on, as JSON values by the names that a user knows them by
    Errors:    DataError; the file is then as it was
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; choose another --out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{path}: another process writes it; wait for it, or choose another --out") from None
        except OSError:
            # A file system without locks: then two at once are not noticed.
            pass
        place = path.with_name(f"{path.name}.settings.json")
        if os.fstat(file.fileno()).st_size:
            _require_same(path, place, settings)
        else:
            _write(place, settings)
        yield file


def _read(file: BinaryIO, path: Path, answers: AnswerFile, prompts: Sequence[Mapping[str, Any]]) -> int:
    """Count the rows that are there; the bytes they take."""
    size = 0
    file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
            expected = prompts[answers.num_rows]
            is_sound = {key: row[key] for key in expected} == expected
        except (ValueError, LookupError, TypeError):
            is_sound = False
        if not is_sound:
            raise DataError(
                f"{path}:{answers.num_rows + 1}: is damaged, or answers another prompt; cut the file before this "
                "line to go on from there, or delete it to start anew"
            )
        answers.count(row)
        size += len(line)
    return size


def _require_same(path: Path, place: Path, settings: Mapping[str, Any]) -> None:
    try:
        recorded = json.loads(place.read_bytes())
        names = sorted(recorded.keys() | settings.keys())
    except (OSError, ValueError, AttributeError):
        raise DataError(f"{path}: was not written here: {place} says nothing of it; choose another --out") from None
    changes = [
        f"{name} was {json.dumps(recorded.get(name), ensure_ascii=False)} "
        f"and is now {json.dumps(settings.get(name), ensure_ascii=False)}"
        for name in names
        if recorded.get(name) != settings.get(name)
    ]
    if changes:
        raise DataError(f"{path}: cannot go on: {'; '.join(changes)}; choose another --out, or delete it to start anew")


def _write(place: Path, settings: Mapping[str, Any]) -> None:
    """On the disk before the first row is, so that rows are never without it."""
    try:
        with place.open("w", encoding="utf-8") as file:
            file.write(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"{place}: cannot be written: {error.strerror}; choose another --out") from None
