"""The run folder: what was asked for, on what machine, what came of it. It can be read without this package.

    runs/NAME/STAGE/
        config.json  recipe.toml    every option with its value; the recipe starts the same run again
        environment.json            stage, versions, processor, revision, command line
        metrics.jsonl               a line per logged step
        samples.jsonl               {"step", "prompt", "text"}
        checkpoints/step-000100/    model folders; `latest` is a link to the newest whole one
        finished.json               written last
        lock                        held by the process that writes here

A run is resumed by starting it again. Options of kind math or data may not change then (`config.py` names the kinds).
What is inside a checkpoint is the business of `checkpoint.py` and `training/state.py`; here are only names and order.
"""

import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from minimind.config import Config, flatten, options, to_toml
from minimind.errors import RunError
from minimind.storage.folder import flush, write_file
from minimind.storage.lock import Lock
from minimind.storage.provenance import describe_environment
from minimind.suggestions import nearest

__all__ = ["Run", "RunReader", "find_runs", "set_aside"]


class RunReader:
    """A run folder to read, also while another process writes to it."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @classmethod
    def open(cls, folder: Path | str) -> "RunReader":
        """The run in `folder`; RunError, with the runs that are near, when there is none."""
        folder = Path(folder)
        if (folder / "config.json").is_file() and (folder / "recipe.toml").is_file():
            return cls(folder)
        known = [str(run) for run in find_runs(folder if folder.is_dir() else folder.parent)]
        close = nearest(str(folder), known)
        hint = f"did you mean {close}?" if close else f"runs there: {', '.join(known[:5]) or 'none'}"
        raise RunError(f"{folder}: no run in this folder (config.json and recipe.toml are missing); {hint}")

    def config(self) -> dict[str, Any]:
        """Every option with its value, nested."""
        return _read_json(self.folder / "config.json")

    def environment(self) -> dict[str, Any]:
        """Stage, versions, processor, cores, revision and command line of the last start."""
        return _read_json(self.folder / "environment.json")

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl in order; a figure that was not finite is None."""
        return _read_rows(self.folder / "metrics.jsonl")

    def samples(self) -> list[dict[str, Any]]:
        """The rows of samples.jsonl: step, prompt, text."""
        return _read_rows(self.folder / "samples.jsonl")

    def finished(self) -> dict[str, Any] | None:
        """What the run told when it was complete; None while it is not."""
        path = self.folder / "finished.json"
        return _read_json(path) if path.is_file() else None

    def checkpoint_folder(self, step: int) -> Path:
        """Where the checkpoint after `step` updates lies, or will."""
        return self.folder / "checkpoints" / f"step-{step:06d}"

    def checkpoint_folders(self) -> list[Path]:
        """The checkpoints there are, oldest first: what to fall back on when the latest turns out to be damaged."""
        found = (self.folder / "checkpoints").glob("step-*")
        whole = [path for path in found if path.is_dir() and re.fullmatch(r"step-\d+", path.name)]
        return sorted(whole, key=_step_of)

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None."""
        link = self.folder / "checkpoints" / "latest"
        if link.is_symlink() and link.is_dir():
            return link.parent / os.readlink(link)
        folders = self.checkpoint_folders()
        return folders[-1] if folders else None


class Run(RunReader):
    """A run folder that this process alone writes to: a `with` block, or `create` and `close`.

    resumed:  the folder held this run before, so there may be a checkpoint to continue from
    """

    def __init__(self, folder: Path, lock: Lock, *, resumed: bool) -> None:
        super().__init__(folder)
        self.resumed = resumed
        self._lock = lock

    @classmethod
    def create(cls, folder: Path | str, config: Config, *, resume: bool = True) -> "Run":
        """Lock the folder, compare what is there with `config`, write config and environment.

        resume:  False refuses a folder that holds a run already
        Raises RunError when another process writes here, or when the run here was started with other settings.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = Lock(folder)
        except OSError as error:
            raise RunError(f"{folder}: cannot make this run folder: {error.strerror}") from error
        try:
            resumed = (folder / "config.json").exists()
            if resumed and not resume:
                raise RunError(f"{folder} holds a run already; resume it, delete it, or choose another folder")
            if resumed:
                if _has_begun(folder):
                    _refuse_changes(folder, config)
                _repair(folder / "metrics.jsonl")
                _repair(folder / "samples.jsonl")
            values, stage = config.resolved(), type(config).__name__.removesuffix("Config").lower()
            write_file(folder / "recipe.toml", to_toml(values))
            write_file(
                folder / "environment.json", json.dumps({"stage": stage} | describe_environment(), indent=2) + "\n"
            )
            # Last, because its presence says that a run is here.
            write_file(folder / "config.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        except BaseException:
            lock.release()
            raise
        return cls(folder, lock, resumed=resumed)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl; it is with the operating system when this returns."""
        _append(self.folder / "metrics.jsonl", {"step": step} | {key: _plain(value) for key, value in metrics.items()})

    def log_sample(self, step: int, prompt: str, text: str) -> None:
        """Append a row to samples.jsonl."""
        _append(self.folder / "samples.jsonl", {"step": step, "prompt": prompt, "text": text})

    def rewind(self, step: int | None) -> None:
        """Drop the rows after `step`, the step of the checkpoint that training continues from; None drops all."""
        for path in (self.folder / "metrics.jsonl", self.folder / "samples.jsonl"):
            rows = [row for row in _read_rows(path) if step is not None and row["step"] <= step]
            write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def point_latest(self, step: int) -> None:
        """Make `latest` name the checkpoint of `step`, which must be whole on disk; the rows before it are, too."""
        target = self.checkpoint_folder(step)
        assert target.is_dir(), target
        for name in ("metrics.jsonl", "samples.jsonl"):
            if (self.folder / name).exists():
                flush(self.folder / name)
        link = target.parent / "latest"
        temporary = target.parent / f"latest.tmp.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        os.replace(temporary, link)
        flush(target.parent)

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the newest `keep` and the latest, and what a killed save left behind."""
        assert keep >= 1, keep
        latest = self.latest()
        for path in self.checkpoint_folders()[:-keep]:
            if latest is None or path.name != latest.name:
                # Renamed first: a kill inside rmtree must not leave half a checkpoint under a whole one's name.
                path.rename(path.with_name(f"{path.name}.tmp.pruned"))
        for path in (self.folder / "checkpoints").glob("*.tmp*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Mark the run as complete, with the figures that sum it up."""
        plain = {key: _plain(value) for key, value in (summary or {}).items()}
        write_file(self.folder / "finished.json", json.dumps(plain, indent=2, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Let another process write here."""
        self._lock.release()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # What failed before its first update, as by a wrong option, must not look like a run to go on with.
        if kind is not None and not self.resumed and not _has_begun(self.folder):
            self._take_back()
        self.close()

    def _take_back(self) -> None:
        """Remove what `create` wrote; the folder, too, unless more lies in it, such as data that were prepared."""
        for name in ("config.json", "recipe.toml", "environment.json", "metrics.jsonl", "samples.jsonl", "lock"):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def find_runs(folder: Path | str) -> list[Path]:
    """The run folders at and below `folder`, by name."""
    found = (path.parent for path in Path(folder).rglob("recipe.toml"))
    return sorted(path for path in found if (path / "config.json").is_file())


def set_aside(folder: Path) -> Path:
    """Move a run folder to `old/NAME-N` beside it. Errors: RunError while a process writes to it"""
    lock = Lock(folder)
    try:
        places = (folder.parent / "old" / f"{folder.name}-{number}" for number in itertools.count(1))
        place = next(place for place in places if not place.exists())
        place.parent.mkdir(exist_ok=True)
        return folder.rename(place)
    finally:
        lock.release()


def _step_of(checkpoint: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(checkpoint.name.removeprefix("step-"))


def _has_begun(folder: Path) -> bool:
    """Has it made an update? Before the first one, an option that only failed in the run may be mended."""
    return any((folder / "checkpoints").glob("step-*")) or any(
        row["step"] for row in _read_rows(folder / "metrics.jsonl")
    )


def _refuse_changes(folder: Path, config: Config) -> None:
    kinds = {option.name: option.kind for option in options(type(config))}
    before = dict(flatten(_read_json(folder / "config.json"), stop=kinds))
    after = dict(flatten(config.resolved(), stop=kinds))
    names = [name for name in before | after if before.get(name, _ABSENT) != after.get(name, _ABSENT)]
    inside = {name: [kind for option, kind in kinds.items() if f"{option}.".startswith(f"{name}.")] for name in names}
    refused = [name for name in names if set(inside[name]) != {"free"}]
    if refused:
        diff = ", ".join(f"{name}: {before.get(name, _ABSENT)!r} -> {after.get(name, _ABSENT)!r}" for name in refused)
        raise RunError(
            f"{folder} holds a run with other settings, which may not change when it is resumed: {diff}; "
            "set them back, choose another run folder, or delete this one"
        )


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


_ABSENT = _Absent()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot read this part of the run: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path}: not JSON: {error}; the run folder is damaged") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: expected a JSON object, got {type(value).__name__}; the run folder is damaged")
    return value


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a jsonl file; a last line without its end is being written, or was torn by a kill."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise RunError(f"{path}: a line is not JSON: {error}; the run folder is damaged") from error


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _repair(path: Path) -> None:
    """Cut a torn last line off, so that the next row starts a line of its own."""
    if path.is_file():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _plain(value: Any) -> Any:
    """A metric as a JSON value: a figure that is not finite becomes null, which every reader understands."""
    if value is None or isinstance(value, str | bool | int | list | dict):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
