"""`minimind merge ADAPTER`: a base model and its adapter as one model folder, which any program reads."""

from pathlib import Path
from typing import ClassVar

from minimind.config import REQUIRED, Config, option
from minimind.errors import ConfigError
from minimind.storage.adapters import is_adapter
from minimind.storage.checkpoint import find_checkpoint, load_model, save_checkpoint
from minimind.terminal.figures import millions
from minimind.terminal.notes import say

__all__ = ["MergeConfig", "run"]


class MergeConfig(Config):
    """Add an adapter to its base model, and write the sum as a model folder of its own."""

    positional: ClassVar[str] = "adapter"

    adapter: Path = option(REQUIRED, "A LoRA run, its checkpoint, or a folder that PEFT wrote.")
    model: Path | None = option(None, "The base model, where it is not at the place the adapter names.")
    out: Path = option(REQUIRED, "The model folder to write; it must not exist yet.")


def run(config: MergeConfig) -> None:
    """Write `config.out`, whole or not at all."""
    if config.out.exists():
        raise ConfigError(f"{config.out} exists already; choose another --out")
    folder = find_checkpoint(config.adapter)
    if not is_adapter(folder):
        raise ConfigError(f"{folder}: holds a model and no adapter; expected a LoRA run, nothing else needs merging")
    model, tokenizer = load_model(folder) if config.model is None else load_model(config.model, adapter=folder)
    save_checkpoint(config.out, model, tokenizer)
    say(f"{config.out}: a model of {millions(sum(p.numel() for p in model.parameters()))} parameters")
