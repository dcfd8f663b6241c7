"""A new model has the tokenizer's vocabulary and weights that its seed decides."""

import pytest
import torch

from minimind.errors import ConfigError
from minimind.model import ModelConfig
from minimind.stages.shared.fresh_model import make_model
from minimind.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the big old cat sat on the small red mat and looked at the moon over the hill"], 320)


def test_the_vocabulary_is_the_tokenizers_unless_more_is_asked_for() -> None:
    assert make_model(ModelConfig(num_hidden_layers=1), TOKENIZER, 0).config.vocab_size == 320
    assert make_model(ModelConfig(num_hidden_layers=1, vocab_size=384), TOKENIZER, 0).config.vocab_size == 384


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.vocab_size is 300, the tokenizer has 320 ids; leave the option out"):
        make_model(ModelConfig(vocab_size=300), TOKENIZER, 0)


def test_weights_depend_on_the_seed_alone() -> None:
    config = ModelConfig(num_hidden_layers=1, hidden_size=32)
    one = make_model(config, TOKENIZER, 5).embed_tokens.weight
    torch.rand(7)
    assert torch.equal(one, make_model(config, TOKENIZER, 5).embed_tokens.weight)
    assert not torch.equal(one, make_model(config, TOKENIZER, 6).embed_tokens.weight)
