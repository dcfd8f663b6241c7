"""What is compared before a file is believed: hashes, names, types, shapes and values of a folder from anywhere.

Nothing that a file says costs memory before it fits: JSON is bounded, and of tensors the names, types and shapes are
read before a value is. `checkpoint.py` and `adapters.py` read through here alone, so that nobody can forget it;
`config_check.py` does the same for the fields of JSON files, and `folder.py` writes what is verified here.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minimind.errors import CheckpointError
from minimind.model import ModelConfig, Transformer
from minimind.storage.config_check import shape_from_json
from minimind.storage.families import model_config
from minimind.storage.folder import MANIFEST, digest_of, has_manifest, render_manifest
from minimind.storage.tensor_files import INDEX, WEIGHTS, disk_name, zero_biases

__all__ = [
    "ModelFiles",
    "first_of",
    "float_shapes",
    "model_files",
    "open_tensors",
    "read_json",
    "require_finite",
    "require_same_names",
    "require_same_shapes",
    "verify_folder",
    "verify_model",
]

# config.json and an index stay far below this; a hostile one must not fill the memory.
MAX_JSON_BYTES = 64 * 2**20
FLOATS = {"F64", "F32", "F16", "BF16"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def verify_folder(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """The files whose size and hash are what manifest.json says: all of it, or those of `names` that it lists.

    Errors:  CheckpointError naming each file that is missing, cut or changed, or the manifest itself; also for a folder
             without one, that is, from elsewhere
    """
    files = _read_manifest(folder)
    wanted = sorted(files) if names is None else [name for name in names if name in files]
    faults = [fault for name in wanted if (fault := _fault(folder / name, files[name]))]
    if faults:
        raise CheckpointError(f"{folder}: damaged: {'; '.join(faults)}; use another copy or an earlier checkpoint")
    return wanted


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder of which all is verified but the values of the weights, and by `model_files` the hashes.

    places:  the file of each tensor, by its name on disk
    """

    folder: Path
    config: ModelConfig
    places: Mapping[str, str]

    def require_rows(self, num_ids: int) -> None:
        """The embedding has a row for each id of the tokenizer."""
        if num_ids > self.config.vocab_size:
            raise CheckpointError(
                f"{self.folder}: tokenizer.json has {num_ids} ids and config.json a vocab_size of "
                f"{self.config.vocab_size}; expected at most as many ids, take both files from the same model"
            )

    def read(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The weights by the model's own names, each a copy: a view would change, or crash, with the file."""
        config, weights = self.config, {}
        for file in sorted(set(self.places.values())):
            with open_tensors(self.folder / file) as tensors:
                part = {name: tensors.get_tensor(name) for name, place in self.places.items() if place == file}
                require_finite(self.folder / file, part)
                weights |= {name.removeprefix("model."): tensor.to(dtype, copy=True) for name, tensor in part.items()}
        embedding = weights["embed_tokens.weight"]
        if config.tie_word_embeddings and not torch.equal(weights.pop("lm_head.weight", embedding), embedding):
            raise CheckpointError(
                f"{self.folder}: lm_head.weight differs from model.embed_tokens.weight and config.json has "
                "tie_word_embeddings true; expected equal weights, or tie_word_embeddings false"
            )
        for name in zero_biases(config):
            if weights.pop(name.removeprefix("model.")).any():
                raise CheckpointError(f"{self.folder}: {name} is not 0; expected 0, config.json has output_bias false")
        return weights


def verify_model(folder: Path) -> ModelFiles:
    """Compare hashes, and then as `model_files`. Errors: CheckpointError naming the file and the field or tensor"""
    if has_manifest(folder):
        verify_folder(folder, ["config.json", *TOKENIZER_FILES, INDEX, *_weight_files(folder)])
    return model_files(folder)


def model_files(folder: Path) -> ModelFiles:
    """Compare the configuration's fields, names, types and shapes, reading no weight and no hash."""
    files, config = _weight_files(folder), _read_config(folder)
    return ModelFiles(folder, config, _index_tensors(folder, files, config))


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


def require_same_names(where: Path, found: Iterable[str], expected: Iterable[str]) -> None:
    there, wanted = set(found), set(expected)
    missing, unexpected = sorted(wanted - there), sorted(there - wanted)
    if missing or unexpected:
        parts = [f"missing {first_of(missing)}"] * bool(missing)
        parts += [f"unexpected {first_of(unexpected)}"] * bool(unexpected)
        raise CheckpointError(f"{where}: tensors do not fit the configuration: {', '.join(parts)}")


def require_same_shapes(
    where: Path, found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]], what: str
) -> None:
    """what: that does not fit, for the message"""
    require_same_names(where, found, expected)
    wrong = [f"{n} is {[*found[n]]} and not {[*shape]}" for n, shape in expected.items() if [*found[n]] != [*shape]]
    if wrong:
        raise CheckpointError(f"{where}: {what}: {first_of(wrong)}")


def require_finite(where: Path, tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"{where}: NaN or infinite weights in {first_of(bad)}; use an earlier checkpoint")


def first_of(names: list[str], limit: int = 5) -> str:
    """Some of many names, for a message of one line."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _read_config(folder: Path) -> ModelConfig:
    path = folder / "config.json"
    try:
        return model_config(shape_from_json(read_json(path), path))
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
    with torch.device("meta"):
        state = Transformer(config).state_dict()
    expected = {disk_name(name): list(tensor.shape) for name, tensor in state.items()}
    expected |= {name: list(tensor.shape) for name, tensor in zero_biases(config).items()}
    if config.tie_word_embeddings and "lm_head.weight" in found:
        expected["lm_head.weight"] = expected["model.embed_tokens.weight"]
    require_same_shapes(folder, found, expected, "weights do not fit config.json")
    return {name: places[name] for name in expected}


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode("utf-8")
        files = json.loads(text)["files"]
        # Written back it must be the same text, so that the manifest vouches for itself to the last byte.
        if text == render_manifest(files) and all(_is_entry(name, entry) for name, entry in files.items()):
            return files
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; the folder cannot be verified") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise CheckpointError(f"{path}: damaged; expected what a checkpoint's writer wrote, use an earlier checkpoint")


def _is_entry(name: str, entry: Mapping[str, Any]) -> bool:
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    return inside and entry.keys() == {"bytes", "sha256"}


def _fault(path: Path, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with a file, in words, or None."""
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            return f"{path.name} has {size:,} bytes and not {expected['bytes']:,}"
        return None if digest_of(path) == expected["sha256"] else f"{path.name} has changed"
    except OSError as error:
        return f"{path.name}: {error.strerror}"
