"""A model to begin with where nothing was trained yet: of a given shape, with the vocabulary of a tokenizer."""

import dataclasses

import torch

from minimind.errors import ConfigError
from minimind.model import ModelConfig, Transformer
from minimind.storage.config_json import json_from_shape
from minimind.text.tokenizer import Tokenizer

__all__ = ["make_model"]


def make_model(config: ModelConfig, tokenizer: Tokenizer, seed: int) -> Transformer:
    """A fresh model with the tokenizer's vocabulary; `vocab_size` may ask for more rows than it has, not for fewer."""
    if config.vocab_size == ModelConfig.vocab_size:
        config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    if config.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size is {config.vocab_size}, the tokenizer has {tokenizer.vocab_size} ids; "
            "leave the option out to take the tokenizer's"
        )
    # What config.json cannot say would otherwise fail at the first checkpoint.
    json_from_shape(dataclasses.asdict(config), "model")
    torch.manual_seed(seed)
    return Transformer(config)
