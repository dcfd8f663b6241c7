"""`minimind average`: the mean of several checkpoints' weights, as one model folder.

    w = Σ_i a_i · w_i,    Σ_i a_i = 1

Late checkpoints of one run lie around a minimum that none of them is at, and their mean is closer to it than each: the
cheapest way to a better model where the learning rate has not come to rest. Source: Izmailov et al. 2018,
arXiv:1803.05407 (uniform); Polyak & Juditsky 1992 and the moving average of weights (exponential).
"""

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from minimind.config import REQUIRED, Config, option
from minimind.errors import CheckpointError, ConfigError
from minimind.storage.adapters import is_adapter
from minimind.storage.checkpoint import find_checkpoint, load_model, save_checkpoint
from minimind.storage.run import RunReader
from minimind.terminal.notes import say

if TYPE_CHECKING:
    from minimind.model import Transformer
    from minimind.text.tokenizer import Tokenizer

__all__ = ["AverageConfig", "run", "shares_of"]


class AverageConfig(Config):
    """Average the checkpoints of one run, or several models of the same shape and tokenizer."""

    positional: ClassVar[str] = "models"

    models: list[Path] = option(
        REQUIRED,
        "One run, whose kept checkpoints are averaged (train.keep_checkpoints says how many it keeps); or "
        "several run, checkpoint or model folders, the newest last.",
        min_length=1,
    )
    out: Path = option(REQUIRED, "The model folder to write; it must not exist yet.")
    weights: Literal["uniform", "exponential"] = option("uniform", "All alike, or each `decay` times the one after it.")
    decay: float = option(0.5, "For exponential: the weight of a model to the next.", gt=0, lt=1)
    last: int | None = option(None, "Of one run: only so many of its newest checkpoints.", ge=2)


def run(config: AverageConfig) -> None:
    """Write `config.out`, whole or not at all, and say what went into it."""
    if config.out.exists():
        raise ConfigError(f"{config.out} exists already; choose another --out")
    folders = _folders(config)
    shares = shares_of(len(folders), config.decay if config.weights == "exponential" else 1.0)
    model, tokenizer = _average(folders, shares)
    save_checkpoint(config.out, model, tokenizer)
    for folder, share in zip(folders, shares, strict=True):
        say(f"{share:7.2%}  {folder}")
    say(f"{config.out}: the average of {len(folders)} models; measure it: minimind evaluate {config.out} --text ...")


def shares_of(count: int, decay: float) -> list[float]:
    """Weights that sum to 1, the last the largest; decay 1 is uniform."""
    raw = [decay ** (count - 1 - place) for place in range(count)]
    return [value / math.fsum(raw) for value in raw]


def _average(folders: Sequence[Path], shares: Sequence[float]) -> "tuple[Transformer, Tokenizer]":
    """The weighted mean, summed in float64. Only one model beside the sum is in memory at a time.

    Errors: CheckpointError for models of other shapes or tokenizers, naming both
    """
    model, tokenizer = load_model(folders[0])
    sums = {name: tensor.double() * shares[0] for name, tensor in model.state_dict().items()}
    for folder, share in zip(folders[1:], shares[1:], strict=True):
        other, its_tokenizer = load_model(folder)
        _refuse_others(folders[0], model, tokenizer, folder, other, its_tokenizer)
        for name, tensor in other.state_dict().items():
            sums[name] += tensor.double() * share
    model.load_state_dict({name: tensor.float() for name, tensor in sums.items()})
    return model, tokenizer


def _folders(config: AverageConfig) -> list[Path]:
    if len(config.models) == 1:
        found = RunReader(config.models[0]).checkpoint_folders()[-(config.last or 0) :]
        if len(found) < 2:
            raise ConfigError(
                f"{config.models[0]}: has {len(found)} checkpoints to average, expected 2 or more; train with "
                "--train.keep_checkpoints 5, or name several folders"
            )
    elif config.last is not None:
        raise ConfigError("--last is for the checkpoints of one run; of several folders, name those to average")
    else:
        found = [find_checkpoint(folder) for folder in config.models]
    for folder in found:
        if is_adapter(folder):
            raise ConfigError(
                f"{folder}: holds an adapter, and the mean of two adapters is no adapter; merge each with its base "
                "first (minimind merge)"
            )
    return found


def _refuse_others(
    first: Path, model: "Transformer", tokenizer: "Tokenizer", second: Path, other: "Transformer", its: "Tokenizer"
) -> None:
    for field in fields(model.config):
        mine, theirs = (getattr(one.config, field.name) for one in (model, other))
        if mine != theirs:
            raise CheckpointError(
                f"{first} has {field.name} {mine} and {second} {theirs}; only models of one shape can be averaged"
            )
    if tokenizer.fingerprint != its.fingerprint:
        raise CheckpointError(
            f"{first} has tokenizer {tokenizer.fingerprint[:12]} and {second} {its.fingerprint[:12]}; only models with "
            "one tokenizer can be averaged"
        )
