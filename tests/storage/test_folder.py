"""A folder is written whole or not at all, and every changed byte of it is found."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.damage import fill_with

from minimind.errors import CheckpointError
from minimind.storage.folder import write_file, write_folder
from minimind.storage.verify import verify_folder


def fail_at(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], number: int) -> list[str]:
    """Make the `number`-th call of these functions of `os` fail with EIO; gives the list of calls made so far."""
    calls: list[str] = []

    def failing(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            calls.append(name)
            if len(calls) == number:
                raise OSError(errno.EIO, "Input/output error")
            return real(*arguments, **options)

        return call

    for name in names:
        monkeypatch.setattr(os, name, failing(name))
    return calls


def test_a_file_is_replaced_at_once_or_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "x", "old")
    write_file(tmp_path / "x", "new 你好")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "new 你好"
    for number in (1, 2):
        with monkeypatch.context() as patch:
            fail_at(patch, ("fsync", "replace"), number)
            with pytest.raises(OSError):
                write_file(tmp_path / "x", b"newer")
        assert (tmp_path / "x").read_text(encoding="utf-8") == "new 你好"


def test_what_is_written_verifies_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_folder(tmp_path / "new", fill_with("x"))
    assert verify_folder(tmp_path / "new") == ["a.txt", "inner/b.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("old", [False, True])
def test_a_failure_at_any_flush_or_rename_leaves_a_whole_folder_or_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    target, number, failures = tmp_path / "x", 0, 0
    while True:
        number += 1
        shutil.rmtree(target, ignore_errors=True)
        if old:
            write_folder(target, fill_with("old"))
        with monkeypatch.context() as patch:
            calls = fail_at(patch, ("fsync", "rename"), number)
            try:
                write_folder(target, fill_with("new"))
            except CheckpointError as error:
                failures += 1
                assert str(target) in str(error) and "Input/output error" in str(error)
        text = (target / "a.txt").read_text() if target.exists() else None
        # The last flush comes after the commit: it may fail with the new folder in place.
        is_after_commit = len(calls) == number and calls[-2:] == ["rename", "fsync"]
        assert text == ("new" if len(calls) < number or is_after_commit else "old" if old else None)
        assert text is None or verify_folder(target)
        assert not list(tmp_path.glob("*.tmp.*"))
        if len(calls) < number:
            break
    assert failures == number - 1 >= 6


def test_a_full_disk_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"new: needs 1,000,000,000,000 MB and the disk has [\d,]+ MB free"):
        write_folder(tmp_path / "new", fill_with("x"), need_bytes=10**18)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def fill(place: Path) -> None:
        (place / "a.txt").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match="new: not written: No space left"):
        write_folder(tmp_path / "new", fill)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def fill(place: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "new", fill)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    for name in ("new.tmp.0123abcd", "new.old.0123abcd"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("half")
    write_folder(tmp_path / "new", fill_with("x"))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("name", ["new", "a[b]*"])
def test_what_others_named_alike_stays(tmp_path: Path, name: str) -> None:
    others = [f"{name}.old.keep", f"{name}.tmp.mine", f"{name}.tmp.0123abcde", f"x{name}.tmp.0123abcd"]
    for other in others:
        (tmp_path / other).mkdir()
    (tmp_path / f"{name}.tmp.txt").write_text("precious")
    write_folder(tmp_path / name, fill_with("x"))
    write_folder(tmp_path / name, fill_with("y"))
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.tmp.txt", *others}


def test_a_folder_from_elsewhere_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="was not written here"):
        write_folder(tmp_path, fill_with("x"))
    assert (tmp_path / "holiday.txt").read_text() == "precious"
