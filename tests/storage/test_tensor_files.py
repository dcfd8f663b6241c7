"""What is written is plain float32, in files where their names say."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minimind.storage.tensor_files import write_files, write_json, write_tensors
from minimind.storage.verify import float_shapes, read_json


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    values = {"a": [1, 2.5, None], "b": {"名": "你好"}}
    write_json(tmp_path / "x.json", values)
    assert read_json(tmp_path / "x.json") == values
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})


def test_tensors_are_written_in_full_precision(tmp_path: Path) -> None:
    weights = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    write_tensors(tmp_path / "x", {"half": weights.bfloat16(), "turned": weights.T, "part": weights[::2]})
    found = load_file(tmp_path / "x")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert torch.equal(found["half"], weights.bfloat16().float()) and torch.equal(found["turned"], weights.T)
    assert float_shapes(tmp_path / "x") == {"half": [4, 6], "part": [2, 6], "turned": [6, 4]}


def test_files_are_written_where_their_names_say(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.json": b"{}", "state/b": lambda path: path.write_text("b") and None})
    assert json.loads((tmp_path / "a.json").read_text()) == {} and (tmp_path / "state" / "b").read_text() == "b"
