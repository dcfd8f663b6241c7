"""What a run needs to go on besides the weights: the optimisers' memory and the step, without pickle.

    training_state/optimizers.safetensors  training_state/facts.json

In a folder of its own, for vLLM and SGLang take every safetensors file beside config.json for the model's. Tensors have
the name of their parameter. The format knows no ranks, so a run may resume on another number of them.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minimind.errors import CheckpointError, why
from minimind.training.optimizer import Optimizers

__all__ = ["STATE", "load_training_state", "read_training_facts", "training_state_files"]

STATE = "training_state"
TENSORS, FACTS = f"{STATE}/optimizers.safetensors", f"{STATE}/facts.json"


def training_state_files(
    facts: Mapping[str, Any], model: nn.Module, optimizers: Optimizers
) -> Mapping[str, bytes | Callable[[Path], None]]:
    """The files to store with the weights: path in the checkpoint -> content, or a function that writes it.

    facts: JSON values to find again, such as the step
    """
    tensors = _by_name(model, optimizers)
    text = json.dumps({"format": 1, "optimizers": sorted(optimizers.parts), **facts}, indent=2)
    return {FACTS: text.encode(), TENSORS: lambda path: save_file(tensors, path)}


def read_training_facts(folder: Path) -> dict[str, Any]:
    """The facts saved with a checkpoint. Errors: CheckpointError when the folder holds none that can be read."""
    path = folder / FACTS
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {FACTS}; this folder holds a model, not a run that can be resumed")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}; use an earlier checkpoint") from error


def load_training_state(folder: Path, model: nn.Module, optimizers: Optimizers) -> None:
    """Give the optimisers their memory back.

    Errors: CheckpointError when the folder holds no training state, or that of another model or optimiser
    """
    path, facts = folder / FACTS, read_training_facts(folder)
    if facts["optimizers"] != sorted(optimizers.parts):
        raise CheckpointError(
            f"{path}: state of {', '.join(facts['optimizers'])}; this run uses {', '.join(sorted(optimizers.parts))}"
        )
    try:
        tensors = load_file(folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / TENSORS}: cannot be read: {why(error)}; use an earlier checkpoint") from error
    found = {key.rpartition("/")[0] for key in tensors}
    expected = {f"{part}/{name}" for part in optimizers.parts for name in _named(model, optimizers.parts[part])}
    # Before the first update that was not skipped, optimisers remember nothing at all.
    if found and found != expected:
        raise CheckpointError(
            f"{folder / TENSORS}: state of other parameters than this model's, such as {min(found ^ expected)}; "
            "resume with the model that was saved"
        )
    for optimizer_name, part in optimizers.parts.items():
        for name, parameter in _named(model, part).items():
            prefix = f"{optimizer_name}/{name}/"
            state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            for key, value in state.items():
                if value.shape not in (parameter.shape, torch.Size([])):
                    raise CheckpointError(
                        f"{folder / TENSORS}: {prefix}{key} is {tuple(value.shape)}; expected {tuple(parameter.shape)}"
                    )
                # AdamW's count of steps is a scalar that torch keeps on the CPU unless it is capturable or fused.
                part.state[parameter][key] = value.to(parameter.device)


def _by_name(model: nn.Module, optimizers: Optimizers) -> dict[str, Tensor]:
    return {
        f"{optimizer_name}/{name}/{key}": value.detach().cpu().contiguous()
        for optimizer_name, part in optimizers.parts.items()
        for name, parameter in _named(model, part).items()
        for key, value in part.state.get(parameter, {}).items()
    }


def _named(model: nn.Module, part: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    members = {id(parameter) for group in part.param_groups for parameter in group["params"]}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in members}
