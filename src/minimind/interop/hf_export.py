"""A model -> a folder for transformers 4 and 5, vLLM and whoever else reads this layout; no code in it.

A checkpoint is such a folder already. This one has what a reader elsewhere wants besides: weights in the type they are
used in, half the size, and a model card. What only training needs stays behind.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from minimind.errors import CheckpointError
from minimind.interop.exported import Exported, require_same_model, write_checkpoint_files, write_export
from minimind.model import Transformer
from minimind.storage.checkpoint import load_model
from minimind.storage.tensor_files import write_json
from minimind.storage.verify import read_json
from minimind.text.tokenizer import Tokenizer

__all__ = ["HfType", "export_hf"]

HfType = Literal["float32", "float16", "bfloat16"]
TYPES: Mapping[HfType, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# Rounding moves a number by half a step.
STEPS: Mapping[HfType, float] = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8}


def export_hf(
    out: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    card: str,
    dtype: HfType = "bfloat16",
    max_shard_bytes: int = 4 * 2**30,
) -> Exported:
    """Write the folder `out`, read it back and compare.

    card:             the text of README.md
    max_shard_bytes:  of the float32 weights, above which they are cut into files
    Errors:           CheckpointError, also for weights that float16 cannot hold
    """
    differences = []

    def fill(place: Path) -> None:
        _write(place, model, tokenizer, dtype, max_shard_bytes)
        (place / "README.md").write_text(card, encoding="utf-8")
        found = load_model(place)
        differences.append(require_same_model(out, (model, tokenizer), found, step=STEPS[dtype]))

    # While it is converted a file is there twice.
    need = 8 * sum(parameter.numel() for parameter in model.parameters())
    files = write_export(out, fill, need_bytes=need)
    usage = (
        f'transformers: AutoModelForCausalLM.from_pretrained("{out}"), AutoTokenizer.from_pretrained("{out}")',
        f"vLLM: vllm serve {out}",
        f"minimind: minimind chat {out}",
    )
    return Exported(files, differences[0], usage)


def _write(place: Path, model: Transformer, tokenizer: Tokenizer, dtype: HfType, max_shard_bytes: int) -> None:
    """A checkpoint's files in `place`, less its manifest, with weights of another type."""
    write_checkpoint_files(place, model, tokenizer, max_shard_bytes=max_shard_bytes)
    config = read_json(place / "config.json")
    write_json(place / "config.json", config | {"dtype": dtype, "torch_dtype": dtype})
    if dtype == "float32":
        return
    total = sum(_convert(path, TYPES[dtype]) for path in sorted(place.glob("*.safetensors")))
    index = place / "model.safetensors.index.json"
    if index.is_file():
        write_json(index, read_json(index) | {"metadata": {"total_size": total}})


def _convert(path: Path, dtype: torch.dtype) -> int:
    """Round the numbers of a file; returns their size in bytes. Errors: CheckpointError, OSError"""
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    beyond = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if beyond:
        raise CheckpointError(f"{beyond[0]} has weights beyond 65504, which float16 cannot hold; export it as bf16")
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error
    return sum(tensor.nbytes for tensor in tensors.values())
