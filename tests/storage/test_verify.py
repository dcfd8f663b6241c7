"""What a stranger's folder says is compared before it is believed, and every changed byte of one's own is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.damage import fill_with

from minimind.errors import CheckpointError
from minimind.storage.folder import MANIFEST, write_folder
from minimind.storage.verify import (
    MAX_JSON_BYTES,
    first_of,
    float_shapes,
    read_json,
    require_finite,
    require_same_names,
    verify_folder,
)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff{}", b"[" * 100_000, b'{"a": 1' + b"0" * 5000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_a_giant_json_file_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "x.json", "wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(CheckpointError, match=r"67,108,865 bytes; expected at most"):
        read_json(tmp_path / "x.json")
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_json(tmp_path / "y.json")


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.float8_e4m3fn])
def test_tensors_that_are_no_plain_floats_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    save_file({"a": torch.ones(2).to(kind)}, tmp_path / "x")
    with pytest.raises(CheckpointError, match=r"x: a has type \w+; expected one of"):
        float_shapes(tmp_path / "x")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: b"\x80\x04." + content,
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x")
    (tmp_path / "x").write_bytes(spoil((tmp_path / "x").read_bytes()))
    with pytest.raises(CheckpointError, match="x: not a readable safetensors file"):
        float_shapes(tmp_path / "x")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: require_same_names(Path("x"), "ab", "bc"), "x: tensors do not fit .*: missing c, unexpected a"),
        (lambda: require_finite(Path("x"), {"a": torch.tensor([1, torch.inf])}), "x: NaN or infinite weights in a"),
    ],
)
def test_what_does_not_fit_is_named(check: Callable[[], Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check()
    require_same_names(Path("x"), "ab", "ba")
    require_finite(Path("x"), {"a": torch.ones(1)})


def test_of_many_names_some_are_told() -> None:
    assert first_of(list("abcdefg")) == "a, b, c, d, e and 2 more" and first_of(["a"]) == "a"


def test_every_bit_flip_and_every_truncation_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_folder(folder, fill_with("some text"))
    for path in (folder / "a.txt", folder / "inner" / "b.txt", folder / MANIFEST):
        content = path.read_bytes()
        damaged = [content[:size] for size in range(len(content))]
        damaged += [
            content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
            for at in range(len(content))
            for bit in range(8)
        ]
        for bad in damaged:
            path.write_bytes(bad)
            with pytest.raises(CheckpointError, match=r"damaged|cannot be read"):
                verify_folder(folder)
        path.write_bytes(content)
        assert verify_folder(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", fill_with("x"))
    (tmp_path / "x" / "a.txt").unlink()
    with pytest.raises(CheckpointError, match=r"a\.txt: No such file"):
        verify_folder(tmp_path / "x")
