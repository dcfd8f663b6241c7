"""A fresh model has the tokenizer's vocabulary."""

import pytest

from minimind.errors import ConfigError
from minimind.model import ModelConfig
from minimind.stages.pretrain import make_model
from minimind.tokenizer import Tokenizer

TEXTS = ["one two three four five six seven eight nine ten"] * 3


def shape(**changes: int) -> ModelConfig:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    return ModelConfig(**small, head_dim=16, intermediate_size=16, **changes)  # pyright: ignore[reportArgumentType]


def test_the_vocabulary_is_the_tokenizers_unless_more_rows_are_asked_for() -> None:
    tokenizer = Tokenizer.train(TEXTS, 300)
    assert make_model(shape(), tokenizer, 0).config.vocab_size == 300
    assert make_model(shape(vocab_size=320), tokenizer, 0).config.vocab_size == 320


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"299.*300"):
        make_model(shape(vocab_size=299), Tokenizer.train(TEXTS, 300), 0)
