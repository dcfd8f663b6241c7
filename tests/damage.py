"""Changing the files of a folder by hand, without the manifest that would notice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

__all__ = ["edit_json", "edit_weights"]


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
