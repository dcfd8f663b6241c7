"""A tiny model whose weights are large enough to have opinions."""

import pytest
import torch

from minimind.model import ModelConfig, Transformer
from minimind.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def opinionated() -> tuple[Transformer, Tokenizer]:
    tokenizer = Tokenizer.train(["the cat sat on the mat. Question: Answer: A. B. C. D. " * 3], 320)
    torch.manual_seed(0)
    model = Transformer(
        ModelConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            intermediate_size=32,
            max_position_embeddings=48,
        )
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), tokenizer
