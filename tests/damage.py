"""Filling a folder, and changing its files by hand, without the manifest that would notice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

__all__ = ["edit_json", "edit_weights", "fill_with"]


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    (path.parent / "manifest.json").unlink(missing_ok=True)


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    (path.parent / "manifest.json").unlink(missing_ok=True)


def fill_with(text: str) -> Callable[[Path], None]:
    """What writes two files, one of them in a folder of its own."""

    def fill(place: Path) -> None:
        (place / "a.txt").write_text(text)
        (place / "inner").mkdir()
        (place / "inner" / "b.txt").write_text(text * 2)

    return fill
