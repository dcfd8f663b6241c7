"""What a stranger's file says is compared before it is believed, and what is written is plain float32."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minimind.errors import CheckpointError
from minimind.storage.tensor_files import (
    MAX_JSON_BYTES,
    first_of,
    float_shapes,
    read_json,
    require_finite,
    require_same_names,
    write_files,
    write_json,
    write_tensors,
)


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    values = {"a": [1, 2.5, None], "b": {"名": "你好"}}
    write_json(tmp_path / "x.json", values)
    assert read_json(tmp_path / "x.json") == values
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})


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


def test_tensors_are_written_in_full_precision(tmp_path: Path) -> None:
    weights = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    write_tensors(tmp_path / "x", {"half": weights.bfloat16(), "turned": weights.T, "part": weights[::2]})
    found = load_file(tmp_path / "x")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert torch.equal(found["half"], weights.bfloat16().float()) and torch.equal(found["turned"], weights.T)
    assert float_shapes(tmp_path / "x") == {"half": [4, 6], "part": [2, 6], "turned": [6, 4]}


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


def test_files_are_written_where_their_names_say(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.json": b"{}", "state/b": lambda path: path.write_text("b") and None})
    assert json.loads((tmp_path / "a.json").read_text()) == {} and (tmp_path / "state" / "b").read_text() == "b"


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
