"""JSON and safetensors in a folder from anywhere, read with distrust: what `checkpoint.py` and `adapters.py` share.

Nothing that a file says costs memory before it was compared with what is expected: JSON is bounded, and of tensors the
names, types and shapes are read before a value is. `folder.py` writes folders; here is what lies in them.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minimind.errors import CheckpointError

__all__ = [
    "Content",
    "first_of",
    "float_shapes",
    "open_tensors",
    "read_json",
    "require_finite",
    "require_same_names",
    "write_files",
    "write_json",
    "write_tensors",
]

# A file to write: its bytes, or a function that writes to the path it is given.
Content = bytes | Callable[[Path], None]

# config.json and an index stay far below this; a hostile one must not fill the memory.
MAX_JSON_BYTES = 64 * 2**20
FLOATS = {"F64", "F32", "F16", "BF16"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size. Errors: CheckpointError"""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: {path.stat().st_size:,} bytes; expected at most {MAX_JSON_BYTES:,}")
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: is a JSON {type(values).__name__}; expected an object")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """As float32, whatever they are in memory, so that nothing training resumes from was rounded. Errors: OSError"""
    plain = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error


def write_files(folder: Path, files: Mapping[str, Content]) -> None:
    """Files by their path in the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            content(folder / name)


def open_tensors(path: Path) -> Any:
    """A safetensors file, of which only the header is read yet. Errors: CheckpointError"""
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None


def float_shapes(path: Path) -> dict[str, list[int]]:
    """Name -> shape of each tensor of a file, from its header. Errors: CheckpointError for other types than floats"""
    shapes = {}
    with open_tensors(path) as tensors:
        for name in tensors.keys():  # noqa: SIM118
            part = tensors.get_slice(name)
            if part.get_dtype() not in FLOATS:
                raise CheckpointError(f"{path}: {name} has type {part.get_dtype()}; expected one of {sorted(FLOATS)}")
            shapes[name] = part.get_shape()
    return shapes


def require_same_names(folder: Path, found: Iterable[str], expected: Iterable[str]) -> None:
    there, wanted = set(found), set(expected)
    missing, unexpected = sorted(wanted - there), sorted(there - wanted)
    if missing or unexpected:
        parts = [f"missing {first_of(missing)}"] * bool(missing)
        parts += [f"unexpected {first_of(unexpected)}"] * bool(unexpected)
        raise CheckpointError(f"{folder}: tensors do not fit the configuration: {', '.join(parts)}")


def require_finite(where: Path, tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"{where}: NaN or infinite weights in {first_of(bad)}; use an earlier checkpoint")


def first_of(names: list[str], limit: int = 5) -> str:
    """Some of many names, for a message of one line."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
