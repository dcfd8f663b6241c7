"""A model on disk: a Hugging Face folder that is written whole or not at all, and checked before it is believed.

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json
    chat_template.jinja  manifest.json

The weights are float32, so that nothing training resumes from was rounded. Loading reads safetensors and JSON only, and
compares hashes, fields, names, shapes and values before a weight is used. `config_json.py` knows the fields of
config.json, `tensor_files.py` how a file is read, `folder.py` how a folder is written atomically; `model.py` says what
the weights mean. The folder of an adapter (`adapters.py`) is read as the model that it makes of its base.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from minimind.errors import CheckpointError
from minimind.lora import merge_lora
from minimind.model import ModelConfig, Transformer
from minimind.storage.adapters import apply_adapter, fingerprint, is_adapter, read_adapter
from minimind.storage.config_json import json_from_shape, shape_from_json
from minimind.storage.folder import has_manifest, verify_folder, write_folder
from minimind.storage.tensor_files import (
    Content,
    first_of,
    float_shapes,
    open_tensors,
    read_json,
    require_finite,
    require_same_names,
    write_files,
    write_json,
    write_tensors,
)
from minimind.text.chat_template import chat_template
from minimind.text.tokenizer import Tokenizer

__all__ = [
    "CheckpointInfo",
    "checkpoint_info",
    "find_checkpoint",
    "fingerprint",
    "load_model",
    "save_checkpoint",
    "verify_checkpoint",
]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
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
    max_shard_bytes:  the weights are cut into files of at most this size (a larger tensor has a file of its own)
    Errors:  CheckpointError naming the path and the reason.
    """
    folder, extra_files = Path(folder), extra_files or {}
    config = json_from_shape(asdict(model.config), folder) | _special_ids(tokenizer)
    weights = {_disk_name(name): tensor for name, tensor in model.state_dict().items()} | _zero_biases(model.config)
    require_same_names(folder, weights, _expected_shapes(model.config))
    require_finite(folder, weights)

    def fill(place: Path) -> None:
        _write_weights(place, weights, max_shard_bytes)
        write_json(place / "config.json", config)
        write_json(place / "generation_config.json", _special_ids(tokenizer) | SAMPLING)
        tokenizer.save(place)
        (place / "chat_template.jinja").write_text(chat_template(tokenizer.control_names), encoding="utf-8")
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


def _load(folder: Path, device: torch.device | str, dtype: torch.dtype) -> tuple[Transformer, Tokenizer]:
    """A model folder that is no adapter's."""
    files = _weight_files(folder)
    if has_manifest(folder):
        verify_folder(folder, ["config.json", *TOKENIZER_FILES, INDEX, *files])
    config = _read_config(folder)
    places = _index_tensors(folder, files, config)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: tokenizer.json has {tokenizer.vocab_size} ids and config.json a vocab_size of "
            f"{config.vocab_size}; expected at most as many ids, take both files from the same model"
        )
    # The meta device costs no memory and no initialisation that the weights would overwrite.
    with torch.device("meta"):
        model = Transformer(config)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = dict(_read_tensors(folder, places, dtype))
    _drop_redundant(folder, weights, config)
    state = {name.removeprefix("model."): tensor.to(device) for name, tensor in weights.items()}
    model.load_state_dict(state, assign=True)
    return model.eval(), tokenizer


def verify_checkpoint(folder: Path | str) -> list[str]:
    """The names of the files that are bit for bit as they were written: all of them, training state included.

    Errors:  CheckpointError naming each damaged file; also for a folder without manifest.json, that is, from elsewhere.
    """
    return verify_folder(find_checkpoint(folder))


@dataclass(frozen=True)
class CheckpointInfo:
    """What can be said of a model folder without reading its weights.

    num_bytes:  of the weight files
    can_verify: does it have a manifest of hashes?
    """

    folder: Path
    config: ModelConfig
    num_parameters: int
    num_bytes: int
    can_verify: bool


def checkpoint_info(folder: Path | str) -> CheckpointInfo:
    """Shape and size of a model folder, not of an adapter's. Errors: CheckpointError, as `load_model`."""
    folder = find_checkpoint(folder)
    if is_adapter(folder):
        raise CheckpointError(f"{folder}: holds an adapter; expected a model, merge it with its base first")
    config, files = _read_config(folder), _weight_files(folder)
    _index_tensors(folder, files, config)
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in Transformer(config).parameters())
    num_bytes = sum((folder / name).stat().st_size for name in files)
    return CheckpointInfo(folder, config, num_parameters, num_bytes, has_manifest(folder))


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


def _disk_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }


def _zero_biases(config: ModelConfig) -> dict[str, Tensor]:
    """Qwen3's attention_bias also adds a bias behind o_proj, which this model lacks: the same function has it 0."""
    if not (config.attention_bias and config.qk_norm):
        return {}
    names = (f"model.layers.{index}.self_attn.o_proj.bias" for index in range(config.num_hidden_layers))
    return {name: torch.zeros(config.hidden_size) for name in names}


def _expected_shapes(config: ModelConfig) -> dict[str, list[int]]:
    """The tensors that a folder of this shape holds, by their names on disk."""
    with torch.device("meta"):
        state = Transformer(config).state_dict()
    shapes = {_disk_name(name): list(tensor.shape) for name, tensor in state.items()}
    return shapes | {name: list(tensor.shape) for name, tensor in _zero_biases(config).items()}


def _write_weights(place: Path, weights: Mapping[str, Tensor], max_shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in weights.items():
        size += 4 * tensor.numel()
        if shards[-1] and size > max_shard_bytes:
            shards.append({})
            size = 4 * tensor.numel()
        shards[-1][name] = tensor.detach()
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        places |= dict.fromkeys(shard, file)
        write_tensors(place / file, shard)
    if len(shards) > 1:
        total = 4 * sum(tensor.numel() for tensor in weights.values())
        write_json(place / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _read_config(folder: Path) -> ModelConfig:
    path = folder / "config.json"
    try:
        return ModelConfig(**shape_from_json(read_json(path), path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _weight_files(folder: Path) -> list[str]:
    """The safetensors files of a folder, one or the shards that its index names."""
    if not (folder / INDEX).is_file():
        if not (folder / WEIGHTS).is_file():
            raise CheckpointError(f"{folder}: has no {WEIGHTS} and no {INDEX}; expected weights in safetensors files")
        return [WEIGHTS]
    places = read_json(folder / INDEX).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{folder / INDEX}: weight_map is wrong; expected tensors with files of this folder")
    return sorted(set(names))


def _index_tensors(folder: Path, files: Iterable[str], config: ModelConfig) -> dict[str, str]:
    """Tensor -> file, after comparing names, shapes and types with the configuration's. Reads headers only."""
    places: dict[str, str] = {}
    found: dict[str, list[int]] = {}
    for file in files:
        for name, shape in float_shapes(folder / file).items():
            if name in places:
                raise CheckpointError(f"{folder / file}: {name} is also in {places[name]}; expected it once")
            # Old Llama files carry the rotary frequencies, which follow from config.json.
            if not name.endswith("rotary_emb.inv_freq"):
                places[name], found[name] = file, shape
    # Before a module is made for each layer and expert that the configuration claims.
    if config.num_hidden_layers * max(config.num_experts, 1) > len(found):
        raise CheckpointError(
            f"{folder}: config.json has {config.num_hidden_layers} layers with {config.num_experts} experts and the "
            f"weights {len(found)} tensors; expected at least one each, take both from the same model"
        )
    expected = _expected_shapes(config)
    if config.tie_word_embeddings and "lm_head.weight" in found:
        expected["lm_head.weight"] = expected["model.embed_tokens.weight"]
    require_same_names(folder, found, expected)
    wrong = [f"{n} is {found[n]} and not {shape}" for n, shape in expected.items() if found[n] != shape]
    if wrong:
        raise CheckpointError(f"{folder}: weights do not fit config.json: {first_of(wrong)}")
    return {name: places[name] for name in expected}


def _read_tensors(folder: Path, places: Mapping[str, str], dtype: torch.dtype) -> Iterable[tuple[str, Tensor]]:
    """Each tensor as a copy: a view of the mapped file would change, or crash, with the file."""
    for file in sorted(set(places.values())):
        with open_tensors(folder / file) as tensors:
            part = {name: tensors.get_tensor(name) for name, place in places.items() if place == file}
            require_finite(folder / file, part)
            for name, tensor in part.items():
                yield name, tensor.to(dtype, copy=True)


def _drop_redundant(folder: Path, weights: dict[str, Tensor], config: ModelConfig) -> None:
    """Remove what this model has no place for, after making sure that it says nothing."""
    embedding = weights["model.embed_tokens.weight"]
    if config.tie_word_embeddings and not torch.equal(weights.pop("lm_head.weight", embedding), embedding):
        raise CheckpointError(
            f"{folder}: lm_head.weight differs from model.embed_tokens.weight and config.json has tie_word_embeddings "
            "true; expected equal weights, or tie_word_embeddings false"
        )
    for name in _zero_biases(config):
        if weights.pop(name).any():
            raise CheckpointError(f"{folder}: {name} is not 0; expected no bias behind o_proj, this model has none")
