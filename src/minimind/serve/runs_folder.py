"""A folder of runs, as the page reads it: names come from a client, and files are damaged, strange or being written to.

No name leads out of the folder, for it is resolved with all links and has to lie inside. What is read at once is
bounded, and a broken line costs itself alone.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from minimind.storage.run import find_runs

__all__ = ["RunsFolder"]

MAX_RUNS = 500
# Of a file at once; a reader asks for the rest. A line that is longer is passed over.
MAX_BYTES = 2**19
MAX_FIELDS = 64
MAX_NAME = 64
MAX_TEXT = 4000
# What JavaScript counts exactly.
MAX_STEP = 2**53


class RunsFolder:
    """The runs at and below `root`; none where it is None."""

    def __init__(self, root: Path | None) -> None:
        self._root = None if root is None else root.resolve()

    def runs(self) -> list[dict[str, Any]]:
        """name, stage, finished, and the seconds since its metrics grew (None before they do)."""
        if self._root is None:
            return []
        names = [_name(folder, self._root) for folder in find_runs(self._root)]
        return [self._summary(name) for name in names if name and self.find(name)][:MAX_RUNS]

    def rows(self, run: str, kind: Literal["metrics", "samples"], start: int, file: str) -> dict[str, Any]:
        """The rows of the whole lines from byte `start` on.

        file:  the file that `start` belongs to, as the last answer named it; another one is read from its beginning
        The answer: rows; start, where they begin; next, where to go on; file; broken, lines without a row; more
        """
        path = self.find(f"{run}/{kind}.jsonl")
        if path is None or not path.is_file():
            return {"rows": [], "start": 0, "next": 0, "file": "", "broken": 0, "more": False}
        with open(path, "rb") as stream:
            state = os.fstat(stream.fileno())
            # Resuming a run writes its rows anew, in another file.
            if str(state.st_ino) != file or state.st_size < start:
                start = 0
            stream.seek(start)
            data = stream.read(MAX_BYTES)
        is_full = len(data) == MAX_BYTES
        # What follows the last line's end is being written, or the run was killed there.
        size = data.rfind(b"\n") + 1 or is_full * len(data)
        lines = [line for line in data[:size].split(b"\n") if line.strip()]
        rows = [row for line in lines if (row := _row(line, kind)) is not None]
        return {
            "rows": rows,
            "start": start,
            "next": start + size,
            # As text, for it may be more than JavaScript counts exactly.
            "file": str(state.st_ino),
            "broken": len(lines) - len(rows),
            "more": is_full,
        }

    def tokenizers(self) -> dict[str, Path]:
        """The folders that hold a tokenizer, by name; of a run's checkpoints the latest, by the name of the run."""
        if self._root is None:
            return {}
        found: dict[str, Path] = {}
        for path in sorted(self._root.rglob("tokenizer.json")):
            folder = path.parent
            owner = folder.parent.parent if folder.parent.name == "checkpoints" else folder
            name = _name(owner, self._root)
            if name and ".tmp" not in folder.name and self.find(_name(path, self._root)):
                found[name] = folder
        return dict(list(found.items())[:MAX_RUNS])

    def find(self, name: str) -> Path | None:
        """What lies at this place inside the folder, or None; a name with `..` or a link may lead elsewhere."""
        if self._root is None or "\0" in name:
            return None
        try:
            path = (self._root / name).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        return path if path.is_relative_to(self._root) else None

    def _summary(self, name: str) -> dict[str, Any]:
        metrics, finished = (self.find(f"{name}/{file}") for file in ("metrics.jsonl", "finished.json"))
        age = None if metrics is None else max(0.0, time.time() - metrics.stat().st_mtime)
        return {"name": name, "stage": self._stage(name), "finished": finished is not None, "age": age}

    def _stage(self, name: str) -> str:
        path = self.find(f"{name}/environment.json")
        if path is None or not path.is_file():
            return ""
        with open(path, "rb") as stream:
            known = _json(stream.read(MAX_BYTES))
        return _text(known.get("stage", "")) if isinstance(known, dict) else ""


def _name(path: Path, root: Path) -> str:
    """The place inside root as a client spells it; "" for one that no client can, or for root itself."""
    name = path.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        return ""
    return "" if name == "." else name


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _row(line: bytes, kind: str) -> dict[str, Any] | None:
    row = _json(line)
    if not isinstance(row, dict) or not _is_step(row.get("step")):
        return None
    if kind == "samples":
        return {"step": row["step"]} | {name: _text(row.get(name, "")) for name in ("prompt", "text")}
    return _figures(row)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_STEP


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """The finite numbers, by names that can be a chart's title."""
    numbers = {
        key: value
        for key, value in row.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e300
        and math.isfinite(value)
    }
    names = [key for key in numbers if len(key) <= MAX_NAME and key.isprintable()][:MAX_FIELDS]
    return {"step": row["step"]} | {key: numbers[key] for key in names}


def _text(value: Any) -> str:
    """At most MAX_TEXT characters; a lone surrogate, which no reply can hold, as a question mark."""
    return value[:MAX_TEXT].encode("utf-8", "replace").decode() if isinstance(value, str) else ""
