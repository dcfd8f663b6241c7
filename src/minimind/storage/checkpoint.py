"""A model on disk: a Hugging Face folder that is written whole or not at all, and checked before it is believed.

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json
    chat_template.jinja  manifest.json

Save, load, find. The weights are float32, so that nothing training resumes from was rounded. Loading goes through
`verify.py`, which reads safetensors and JSON only and compares hashes, fields, names, shapes and values before a weight
is used; `folder.py` writes a folder atomically. An adapter's folder (`adapters.py`) is read as the model that it makes
of its base.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from minimind.errors import CheckpointError
from minimind.lora import merge_lora
from minimind.model import Transformer
from minimind.storage.adapters import apply_adapter, is_adapter, read_adapter
from minimind.storage.config_json import json_from_shape
from minimind.storage.folder import write_folder
from minimind.storage.tensor_files import Content, disk_name, write_files, write_json, write_shards, zero_biases
from minimind.storage.verify import require_finite, require_same_names, verify_model
from minimind.text.chat_template import marked_template
from minimind.text.tokenizer import Tokenizer

__all__ = ["find_checkpoint", "load_model", "save_checkpoint"]

# What generation_config.json recommends to other programs: the defaults of `sampling.Sampling`.
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
# Room for the JSON files and the tokenizer, beside the weights.
SMALL_FILES_BYTES = 16 * 2**20


def save_checkpoint(
    folder: Path | str,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    extra_files: Mapping[str, Content] | None = None,
    extra_bytes: int = 0,
    max_shard_bytes: int = 4 * 2**30,
) -> None:
    """Write model and tokenizer as `folder`, or leave everything as it was.

    extra_files:      more files by their path in the folder: bytes, or a function that writes to the path it is given
    extra_bytes:      what those functions will write at most, for the check of free space
    max_shard_bytes:  the weights are cut into files of at most this size
    Errors:  CheckpointError naming the path and the reason.
    """
    folder, extra_files = Path(folder), extra_files or {}
    special_ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_id") for role in ("bos", "eos", "pad")}
    config = json_from_shape(asdict(model.config), folder) | special_ids
    state = model.state_dict()
    with torch.device("meta"):
        require_same_names(folder, state, Transformer(model.config).state_dict())
    require_finite(folder, state)
    weights = {disk_name(name): tensor for name, tensor in state.items()} | zero_biases(model.config)

    def fill(place: Path) -> None:
        write_shards(place, weights, max_shard_bytes)
        write_json(place / "config.json", config)
        write_json(place / "generation_config.json", special_ids | _ends(tokenizer) | SAMPLING)
        tokenizer.save(place)
        if tokenizer.template is None:
            (place / "chat_template.jinja").write_text(marked_template(tokenizer.control_names), encoding="utf-8")
        write_files(place, extra_files)

    weight_bytes = 4 * sum(tensor.numel() for tensor in weights.values())
    given_bytes = sum(len(content) for content in extra_files.values() if isinstance(content, bytes))
    write_folder(folder, fill, need_bytes=weight_bytes + given_bytes + extra_bytes + SMALL_FILES_BYTES)


def load_model(
    folder: Path | str,
    *,
    adapter: Path | str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[Transformer, Tokenizer]:
    """The model, in evaluation mode, and its tokenizer, from a model folder or a run's (its latest checkpoint).

    folder:   may be an adapter's: its base is then loaded from where it names it, and the adapter merged into it
    adapter:  one more to merge, into whatever `folder` is
    device:   "auto" is a GPU where there is one
    dtype:    of the weights in memory; float32 unless given
    Errors:   CheckpointError naming the file and the field or tensor; TokenizerError.
    """
    folder, adapters = find_checkpoint(folder), [] if adapter is None else [find_checkpoint(adapter)]
    while is_adapter(folder):
        adapters.append(folder)
        folder = _find_base(folder)
        if any(folder.samefile(other) for other in adapters):
            raise CheckpointError(f"{adapters[-1]}: its base model is {folder}, which is made from it in turn")
    # What is merged is rounded once, at the end.
    model, tokenizer = _load(folder, device, torch.float32 if adapters else dtype or torch.float32)
    for place in reversed(adapters):
        apply_adapter(model, place, tokenizer.fingerprint)
        merge_lora(model)
    return model.to(dtype or torch.float32), tokenizer


def _ends(tokenizer: Tokenizer) -> dict[str, list[int]]:
    """All that ends an answer, where a foreign template or model has more than EOS."""
    more = sorted(tokenizer.end_ids - {tokenizer.eos_id, tokenizer.pad_id})
    return {"eos_token_id": [tokenizer.eos_id, *more]} if more else {}


def _load(folder: Path, device: torch.device | str, dtype: torch.dtype) -> tuple[Transformer, Tokenizer]:
    """A model folder that is no adapter's."""
    files = verify_model(folder)
    tokenizer = Tokenizer.load(folder)
    files.require_rows(tokenizer.vocab_size)
    weights = files.read(dtype)
    # The meta device costs no memory and no initialisation that the weights would overwrite.
    with torch.device("meta"):
        model = Transformer(files.config)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model.load_state_dict({name: tensor.to(device) for name, tensor in weights.items()}, assign=True)
    return model.eval(), tokenizer


def find_checkpoint(folder: Path | str) -> Path:
    """The folder of a model or an adapter that a path means: itself, or for a run's folder its latest checkpoint."""
    folder = Path(folder)
    if (folder / "checkpoints").is_dir():
        latest = folder / "checkpoints" / "latest"
        if not latest.is_dir():
            raise CheckpointError(f"{latest}: not there; the run has no checkpoint yet, or name one of its checkpoints")
        return latest.resolve()
    if not folder.exists():
        raise CheckpointError(f"{folder}: not there; expected a model folder or a run's folder")
    if not (folder / "config.json").is_file() and not is_adapter(folder):
        raise CheckpointError(f"{folder}: has no config.json; expected a model folder, import other formats first")
    return folder


def _find_base(adapter: Path) -> Path:
    """The folder of the model that an adapter was made for. Relative paths start at the current folder."""
    base = read_adapter(adapter).base
    if base and Path(base).exists():
        return find_checkpoint(base)
    where = f"{base}, which is not at {Path(base).absolute()}" if base else "a model that it does not name"
    raise CheckpointError(
        f"{adapter}: an adapter for {where}; start where it was trained, or name base and adapter both"
    )
