"""An adapter on disk: a folder as PEFT writes it, and beside it what tells whether a model is the one it was made for.

    adapter_config.json  adapter_model.safetensors  base.json  manifest.json

PEFT reads ours, and ours reads PEFT's, which lack base.json and manifest.json: then names and shapes have to fit, and
nothing else is known; `config_check.py` refuses a feature that `lora.py` does not have. `checkpoint.load_model` finds
the base that an adapter names and merges the two.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minimind.errors import CheckpointError
from minimind.lora import LoraConfig, add_lora, load_lora_weights, lora_shapes, lora_weights
from minimind.storage.config_check import lora_from_json, text_of
from minimind.storage.folder import has_manifest, write_folder
from minimind.storage.tensor_files import Content, write_files, write_json, write_tensors
from minimind.storage.verify import (
    float_shapes,
    open_tensors,
    read_json,
    require_finite,
    require_same_names,
    require_same_shapes,
    verify_folder,
)

__all__ = [
    "AdapterInfo",
    "apply_adapter",
    "fingerprint",
    "is_adapter",
    "load_adapter",
    "read_adapter",
    "read_adapter_weights",
    "save_adapter",
]

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
MODEL_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PREFIX = "base_model.model.model."
SMALL_FILES_BYTES = 2**20


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter's folder says, without its weights.

    base:                   the model that it was made for, as it was written there; "" when it is not named
    base_fingerprint:       of that model's weights; None for a folder from elsewhere
    tokenizer_fingerprint:  of its tokenizer; None for a folder from elsewhere
    """

    folder: Path
    config: LoraConfig
    base: str
    base_fingerprint: str | None
    tokenizer_fingerprint: str | None


def fingerprint(model: nn.Module) -> str:
    """Of the weights, an adapter's left out: sha256 over names and values, the same for equal models wherever they lie.

    A base keeps its fingerprint when it gets an adapter, and gets another one when that is merged.
    """
    digest, adapter = hashlib.sha256(), lora_weights(model)
    for name, tensor in sorted(model.state_dict().items()):
        if name not in adapter:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_adapter(folder: Path) -> bool:
    """Does the folder hold an adapter and no model of its own?"""
    return (folder / CONFIG).is_file() and not any((folder / name).is_file() for name in MODEL_WEIGHTS)


def save_adapter(
    folder: Path | str,
    model: nn.Module,
    *,
    base: str,
    base_fingerprint: str,
    config: LoraConfig,
    tokenizer_fingerprint: str,
    extra_files: Mapping[str, Content] | None = None,
    extra_bytes: int = 0,
) -> None:
    """Write the adapter of `model` as `folder`, or leave everything as it was.

    base:         where the base model lies, from the current folder or absolute
    extra_files:  more files by their path in the folder
    extra_bytes:  what those that are functions will write at most, for the check of free space
    Errors:       CheckpointError naming the path and the reason.
    """
    folder, extra_files = Path(folder), extra_files or {}
    weights = {PREFIX + name: tensor for name, tensor in lora_weights(model).items()}
    require_same_names(folder, weights, (PREFIX + name for name in lora_shapes(model, config)))
    require_finite(folder, weights)
    about_base = {"base_fingerprint": base_fingerprint, "tokenizer_fingerprint": tokenizer_fingerprint}

    def fill(place: Path) -> None:
        write_tensors(place / WEIGHTS, weights)
        write_json(place / CONFIG, _json_from_config(config, base))
        write_json(place / BASE, about_base)
        write_files(place, extra_files)

    weight_bytes = 4 * sum(tensor.numel() for tensor in weights.values())
    given_bytes = sum(len(content) for content in extra_files.values() if isinstance(content, bytes))
    write_folder(folder, fill, need_bytes=weight_bytes + given_bytes + extra_bytes + SMALL_FILES_BYTES)


def read_adapter(folder: Path | str) -> AdapterInfo:
    """What an adapter is, from its JSON files. Errors: CheckpointError naming the file and the field"""
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: has no {CONFIG}; expected the folder of an adapter, as PEFT writes it")
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder}: has no {WEIGHTS}; expected one, a .bin is a pickle and never read")
    if has_manifest(folder):
        verify_folder(folder, [CONFIG, WEIGHTS, BASE])
    values = read_json(folder / CONFIG)
    about_base = read_json(folder / BASE) if (folder / BASE).is_file() else {}
    return AdapterInfo(
        folder,
        lora_from_json(values, folder / CONFIG, [name.split(".lora_")[0] for name in float_shapes(folder / WEIGHTS)]),
        text_of(values, "base_model_name_or_path", folder / CONFIG) or "",
        text_of(about_base, "base_fingerprint", folder / BASE),
        text_of(about_base, "tokenizer_fingerprint", folder / BASE),
    )


def read_adapter_weights(
    info: AdapterInfo, model: nn.Module, tokenizer_fingerprint: str | None = None
) -> dict[str, Tensor]:
    """The adapter's tensors, once it is certain that they belong to `model`, by the names of `lora_weights`.

    tokenizer_fingerprint:  of the tokenizer that `model` is used with, to be compared as well
    Errors:  CheckpointError for another base or tokenizer, and for names, shapes or values that do not fit.
    """
    path = info.folder / WEIGHTS
    for what, expected, found in (
        ("base model", info.base_fingerprint, fingerprint(model) if info.base_fingerprint else None),
        ("tokenizer", info.tokenizer_fingerprint, tokenizer_fingerprint),
    ):
        if expected and found and expected != found:
            raise CheckpointError(
                f"{info.folder}: an adapter for another {what}, that of {info.base or 'a model it does not name'} "
                f"(fingerprint {expected[:12]}, this one has {found[:12]}); use it with the model it was trained on"
            )
    expected = {PREFIX + name: shape for name, shape in lora_shapes(model, info.config).items()}
    require_same_shapes(info.folder, float_shapes(path), expected, "an adapter for a model of another shape")
    with open_tensors(path) as tensors:
        # A copy: a view of the mapped file would change, or crash, with the file.
        weights = {name: tensors.get_tensor(name).to(torch.float32, copy=True) for name in expected}
    require_finite(path, weights)
    return {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}


def apply_adapter(model: nn.Module, folder: Path | str, tokenizer_fingerprint: str | None = None) -> AdapterInfo:
    """Give `model` the adapter of a folder, in place; `lora.merge_lora` or `lora.remove_lora` end that.

    Errors:  CheckpointError as `read_adapter` and `read_adapter_weights`, with `model` as it was.
    """
    info = read_adapter(folder)
    weights = read_adapter_weights(info, model, tokenizer_fingerprint)
    add_lora(model, info.config, seed=0)
    load_lora_weights(model, weights)
    return info


def load_adapter(model: nn.Module, folder: Path | str, tokenizer_fingerprint: str | None = None) -> AdapterInfo:
    """Give the pairs that `model` has already the weights of a folder: what resuming a training does.

    Errors:  CheckpointError as `apply_adapter`, and for an adapter of another rank or other layers.
    """
    info = read_adapter(folder)
    load_lora_weights(model, read_adapter_weights(info, model, tokenizer_fingerprint))
    return info


def _json_from_config(config: LoraConfig, base: str) -> dict[str, Any]:
    """adapter_config.json, with those of PEFT's fields that other programs look for."""
    alpha = config.rank if config.alpha is None else config.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": None,
        "inference_mode": True,
        "r": config.rank,
        # PEFT declares a whole number, and some readers insist.
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
