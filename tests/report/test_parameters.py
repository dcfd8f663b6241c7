"""Every parameter is in one part, and a mixture's idle experts are no part of what a token meets."""

import dataclasses

import torch

from minimind.model import ModelConfig, Transformer
from minimind.report.parameters import count_parameters

DENSE = ModelConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    intermediate_size=24,
    moe_intermediate_size=24,
)


def number(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Transformer(config).parameters())


def test_the_parts_are_the_whole() -> None:
    untied = dataclasses.replace(DENSE, tie_word_embeddings=False, attention_bias=True)
    for config in (DENSE, untied, dataclasses.replace(DENSE, num_experts=4)):
        assert count_parameters(config).total == number(config)
    parts = count_parameters(untied).parts
    assert parts["embedding"] == parts["output head"] == 50 * 16
    assert parts["feed-forward"] == 3 * 3 * 16 * 24
    assert parts["norms"] == 3 * (2 * 16 + 2 * 8) + 16


def test_a_token_meets_the_chosen_experts_only() -> None:
    mixture = dataclasses.replace(DENSE, num_experts=4, num_experts_per_tok=1)
    counted = count_parameters(mixture)
    router = counted.parts["router"]
    assert router == 3 * 4 * 16 and counted.active == number(DENSE) + router
    assert count_parameters(DENSE).active == number(DENSE)
