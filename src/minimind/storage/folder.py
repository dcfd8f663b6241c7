"""Write a folder, or a file, whole or not at all.

Checkpoints, and whatever else must survive a kill, a full disk or a bad sector, go through here. The folder is filled
as `NAME.tmp.<random>` beside its place, every file is flushed, `manifest.json` records sizes and SHA-256, and one
rename commits. A manifest therefore means that all of it was written. A folder that is replaced steps aside first: a
kill between the two renames leaves it whole as `NAME.old.<random>`. One writer per name at a time: a run holds a lock
for that. Next: `checkpoint.py`.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minimind.errors import CheckpointError

__all__ = ["MANIFEST", "digest_of", "flush", "has_manifest", "render_manifest", "write_file", "write_folder"]

MANIFEST = "manifest.json"
FORMAT = "minimind-folder-1"


def write_folder(target: Path, fill: Callable[[Path], None], *, need_bytes: int = 0) -> None:
    """Let `fill` write into an empty folder, then make that folder `target`.

    need_bytes:  what `fill` is about to write; refused at once when the disk has less
    An existing `target` is replaced when it has a manifest, that is, when it came from here; any other is refused.
    On an error, and on Ctrl-C, what was written is removed and `target` is as it was.

    Errors:  CheckpointError naming the path and the reason.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not has_manifest(target) and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: exists and was not written here; choose another place or remove it first")
    temporary = target.with_name(f"{target.name}.tmp.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target, "tmp")
        _require_space(target, need_bytes)
        temporary.mkdir()
        fill(temporary)
        _seal(temporary)
        _commit(temporary, target)
    except OSError as error:
        raise CheckpointError(f"{target}: not written: {error.strerror or error}") from error
    finally:
        # After the commit there is nothing under this name; before it, whatever stopped us must not fill the disk.
        shutil.rmtree(temporary, ignore_errors=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Replace a file at once: a reader sees the old content or the new, and a kill leaves one of the two.

    Errors:  OSError
    """
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    flush(temporary)
    os.replace(temporary, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until the disk has it; for a folder, until it has the names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def has_manifest(folder: Path) -> bool:
    """Is this a folder that was written here?"""
    return (folder / MANIFEST).is_file()


def _require_space(target: Path, need: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < need:
        raise CheckpointError(
            f"{target}: needs {need / 1e6:,.0f} MB and the disk has {free / 1e6:,.0f} MB free; "
            "remove old checkpoints or choose another disk"
        )


def _seal(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk, with a manifest of them."""
    files: dict[str, dict[str, Any]] = {}
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_file():
            flush(path)
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest_of(path)}
    (folder / MANIFEST).write_text(render_manifest(files), encoding="utf-8")
    flush(folder / MANIFEST)
    for path in (*(path for path in paths if path.is_dir()), folder):
        flush(path)


def _commit(temporary: Path, target: Path) -> None:
    """The one rename. An old folder steps aside first, because a folder cannot be renamed over a full one."""
    if not target.exists():
        os.rename(temporary, target)
    else:
        aside = target.with_name(f"{target.name}.old.{secrets.token_hex(4)}")
        os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except BaseException:
            os.rename(aside, target)
            raise
    flush(target.parent)
    _remove_leftovers(target, "old")


def _remove_leftovers(target: Path, kind: str) -> None:
    """Folders of ours beside `target`, left by a kill; what others named alike stays."""
    ours = re.compile(rf"{re.escape(target.name)}\.{kind}\.[0-9a-f]{{8}}")
    for path in target.parent.iterdir():
        if ours.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def render_manifest(files: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, "files": files}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
