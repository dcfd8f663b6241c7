"""A small real tokenizer and a small real policy."""

from collections.abc import Callable

import pytest
import torch

from minimind.model import ModelConfig, Transformer
from minimind.text.tokenizer import Tokenizer

WORDS = "the cat sat on a mat; add 12 and 345, then say what it is. 今天天气很好，我们去公园散步。"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([WORDS * 20], 330)


@pytest.fixture(scope="session")
def make_policy(tokenizer: Tokenizer) -> Callable[..., Transformer]:
    """A tiny model; the same seed gives the same weights, and their spread makes what it says depend on the prompt."""

    def make(seed: int = 0, spread: float = 0.3, context: int = 96) -> Transformer:
        config = ModelConfig(
            # A few rows more than there are ids, as in models whose embedding was padded.
            vocab_size=tokenizer.vocab_size + 5,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            intermediate_size=24,
            max_position_embeddings=context,
        )
        model = Transformer(config).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, spread, generator=generator)
        return model

    return make
