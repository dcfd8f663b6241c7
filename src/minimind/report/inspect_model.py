"""A checkpoint in human terms: its parameters by part, shape, tokenizer, training state, and whether it is whole."""

import math
from dataclasses import fields
from pathlib import Path

from minimind.errors import CheckpointError, TokenizerError
from minimind.model import ModelConfig
from minimind.report.inspection import Inspection, InspectionTable
from minimind.report.parameters import count_parameters
from minimind.storage.adapters import WEIGHTS, AdapterInfo, is_adapter, read_adapter
from minimind.storage.checkpoint import find_checkpoint
from minimind.storage.folder import MANIFEST, has_manifest
from minimind.storage.verify import float_shapes, model_files, verify_folder
from minimind.text.tokenizer import Tokenizer
from minimind.training.state import FACTS, STATE, read_training_facts
from minimind.variants import VariantConfig

__all__ = ["inspect_model"]


def inspect_model(folder: Path, *, verify: bool = True) -> Inspection:
    """A model's or an adapter's folder, or a run's latest checkpoint.

    verify:  hash every file that manifest.json lists; what does not fit becomes a fault, not an error
    Errors:  CheckpointError where config.json or the names and shapes of the weights make no model
    """
    place = find_checkpoint(folder)
    faults = _faults(place) if verify else []
    if is_adapter(place):
        found = _inspect_adapter(read_adapter(place))
    else:
        found = _inspect_weights(place)
        _add_tokenizer(found, place)
    if place != folder:
        found.facts = {"checkpoint": str(place), **found.facts}
    _add_training_state(found, place)
    found.facts["hashes"] = _hashes(place, verify=verify, faults=faults)
    found.faults += faults
    return found


def _inspect_weights(place: Path) -> Inspection:
    files = model_files(place)
    num_bytes = sum((place / name).stat().st_size for name in {*files.places.values()})
    counted = count_parameters(files.config)
    facts = {
        "kind": _architecture(files.config),
        "parameters": f"{counted.total:,}",
        "weight files": f"{num_bytes / 1e6:,.1f} MB, {num_bytes / counted.total:.2g} bytes a parameter",
    }
    if counted.active != counted.total:
        facts["parameters that a token meets"] = f"{counted.active:,} ({counted.active / counted.total:.0%})"
    parts = [[name, number, f"{number / counted.total:.1%}"] for name, number in counted.parts.items()]
    shape = [[field.name, str(getattr(files.config, field.name))] for field in fields(files.config)]
    tables = [
        InspectionTable("Parameters by part", ["part", "parameters", "share"], parts),
        InspectionTable("Shape (config.json)", ["field", "value"], shape),
    ]
    return Inspection(f"{place}: a model", facts, tables)


def _architecture(config: ModelConfig) -> str:
    if isinstance(config, VariantConfig):
        return f"dense, of the family {config.model_type}"
    family = "Qwen3" if config.qk_norm else "Qwen2" if config.attention_bias and not config.output_bias else "Llama"
    if not config.num_experts:
        return f"dense, {family}-shaped"
    return f"mixture of {config.num_experts} experts, {config.num_experts_per_tok} a token, {family}-MoE-shaped"


def _inspect_adapter(info: AdapterInfo) -> Inspection:
    shapes = float_shapes(info.folder / WEIGHTS)
    numbers = [[name, math.prod(shape), "x".join(map(str, shape))] for name, shape in shapes.items()]
    facts = {
        "kind": "LoRA adapter",
        "base model": info.base or "not named",
        "base fingerprint": (info.base_fingerprint or "not recorded")[:12],
        "tokenizer fingerprint": (info.tokenizer_fingerprint or "not recorded")[:12],
        "parameters": f"{sum(number for _, number, _ in numbers):,}",
    }
    facts |= {field.name: str(getattr(info.config, field.name)) for field in fields(info.config)}
    table = InspectionTable("Matrices", ["name", "parameters", "shape"], numbers)
    return Inspection(f"{info.folder}: an adapter", facts, [table])


def _add_tokenizer(found: Inspection, place: Path) -> None:
    try:
        tokenizer = Tokenizer.load(place)
    except TokenizerError as error:
        found.faults.append(str(error))
        return
    found.facts["tokenizer"] = (
        f"{tokenizer.vocab_size:,} tokens, pattern {tokenizer.pattern}, fingerprint {tokenizer.fingerprint[:12]}"
    )


def _add_training_state(found: Inspection, place: Path) -> None:
    """Where training stood; a folder without state is a model to use, not a run to resume."""
    if not (place / FACTS).is_file():
        found.facts["training state"] = "none: it can be used and fine-tuned, not resumed"
        return
    facts = read_training_facts(place)
    state = sum(path.stat().st_size for path in (place / STATE).iterdir())
    rows = [[name, value if isinstance(value, int | float) else str(value)] for name, value in facts.items()]
    found.facts["training state"] = f"step {facts.get('step', '?')}, {state / 1e6:,.1f} MB"
    found.tables.append(InspectionTable("Training state", ["name", "value"], rows))


def _faults(place: Path) -> list[str]:
    if not has_manifest(place):
        return []
    try:
        verify_folder(place)
    except CheckpointError as error:
        return [str(error)]
    return []


def _hashes(place: Path, *, verify: bool, faults: list[str]) -> str:
    if not has_manifest(place):
        return f"cannot be verified: there is no {MANIFEST}, so the folder comes from another program"
    if not verify:
        return "not verified (--no-verify)"
    return "DAMAGED" if faults else "verified: every file is as it was written"
