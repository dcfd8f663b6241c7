"""The files in a folder, as they are written: weights under the names that other programs know, JSON, and any others.

`folder.py` makes the folder around them; `verify.py` reads what lies there, from here or from anywhere.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from minimind.model import ModelConfig

__all__ = ["Content", "disk_name", "write_files", "write_json", "write_shards", "write_tensors", "zero_biases"]

# A file to write: its bytes, or a function that writes to the path it is given.
Content = bytes | Callable[[Path], None]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def disk_name(name: str) -> str:
    """A parameter's name as Hugging Face's folders have it."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def zero_biases(config: ModelConfig) -> dict[str, Tensor]:
    """What Qwen3's attention_bias adds behind o_proj where this model has none: the same function has it 0."""
    if config.output_bias or not (config.attention_bias and config.qk_norm):
        return {}
    names = (f"model.layers.{index}.self_attn.o_proj.bias" for index in range(config.num_hidden_layers))
    return {name: torch.zeros(config.hidden_size) for name in names}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """As float32, whatever they are in memory, so that nothing training resumes from was rounded. Errors: OSError"""
    plain = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error


def write_shards(folder: Path, weights: Mapping[str, Tensor], max_shard_bytes: int) -> None:
    """One file, or several of at most that size with an index; a larger tensor has a file of its own."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in weights.items():
        size += 4 * tensor.numel()
        if shards[-1] and size > max_shard_bytes:
            shards.append({})
            size = 4 * tensor.numel()
        shards[-1][name] = tensor
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        places |= dict.fromkeys(shard, file)
        write_tensors(folder / file, shard)
    if len(shards) > 1:
        total = 4 * sum(tensor.numel() for tensor in weights.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def write_files(folder: Path, files: Mapping[str, Content]) -> None:
    """Files by their path in the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            content(folder / name)
