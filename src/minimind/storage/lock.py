"""One writer per run folder: two trainings that append to the same metrics would spoil both. Used by `run.py`."""

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from minimind.errors import RunError

__all__ = ["Lock"]

_HEARTBEAT_SECONDS = 10
_STALE_SECONDS = 60


class Lock:
    """One writer per folder: flock where the file system has it, else a heartbeat younger than a minute.

    The kernel drops a flock with its process, so the lock of a killed run is free at once. A run that never began takes
    the file with it: a starter that had opened it would hold a lock nobody else sees, and is told.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder's lock, or raise RunError that names the process which has it."""
        self._file = open(folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115
        age = time.time() - os.fstat(self._file.fileno()).st_mtime
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = False
        except BlockingIOError:
            held = True
        except OSError:
            # A file system without flock.
            held = bool(self._owner()) and age < _STALE_SECONDS
        if not held and not _is_there(self._file, folder / "lock"):
            self._file.close()
            raise RunError(f"{folder}: removed this moment by a start that failed; give the command again")
        if held:
            owner = self._owner(patience_seconds=1.0)
            self._file.close()
            raise RunError(
                f"{folder}: process {owner or 'unknown'} writes to this run (last sign of life {age:.0f} s ago); "
                "wait until it ends, stop it, or choose another run folder"
            )
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()
        self._stop = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _owner(self, *, patience_seconds: float = 0.0) -> str:
        """The process id in the file; it is written a moment after the lock is taken."""
        deadline = time.monotonic() + patience_seconds
        while True:
            self._file.seek(0)
            owner = self._file.read()
            if owner.endswith("\n") or time.monotonic() >= deadline:
                return owner.strip()
            time.sleep(0.02)

    def _beat(self) -> None:
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            with suppress(OSError, ValueError):
                os.utime(self._file.fileno())

    def release(self) -> None:
        """Let another process have the folder; a second call does nothing."""
        if not self._stop.is_set():
            self._stop.set()
            self._file.truncate(0)
            self._file.close()


def _is_there(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
