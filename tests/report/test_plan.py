"""Operations are those that the mathematics needs, and advice is followed by what it promises."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minimind.model import ModelConfig, Transformer
from minimind.report.plan import (
    Cost,
    Memory,
    Shape,
    advice_for_hours,
    advice_for_memory,
    operations_per_token,
    positions_seen,
)

MODEL = ModelConfig(
    vocab_size=100,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    moe_intermediate_size=48,
)
SHAPE = Shape(model=MODEL, context=64, tokens=1024, accumulate=1, seen=32.5)


def memory_of(shape: Shape, activation_bytes: float = 2e6) -> Memory:
    sizes = {"trained": 10_000, "state": 20_000, "largest_group": 100, "dtype_bytes": 4}
    return Memory.of(shape, activation_bytes=activation_bytes, **sizes)


def test_operations_are_what_torch_counts() -> None:
    # As plain products attention is counted over all 64 positions, seen or not.
    shape = dataclasses.replace(SHAPE, seen=64)
    model, tokens = Transformer(MODEL), torch.randint(100, (1, 64))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens).sum().backward()
    assert counter.get_total_flops() / 64 == operations_per_token(shape)


def test_only_what_is_learnt_meets_the_head_and_only_chosen_experts_count() -> None:
    head = 6 * 100 * 32
    half = dataclasses.replace(SHAPE, learnt=0.5)
    assert operations_per_token(SHAPE) - operations_per_token(half) == pytest.approx(head / 2)
    untied = dataclasses.replace(SHAPE, model=dataclasses.replace(MODEL, tie_word_embeddings=False))
    assert operations_per_token(untied) == operations_per_token(SHAPE)
    mixture = dataclasses.replace(SHAPE, model=dataclasses.replace(MODEL, num_experts=4))
    assert operations_per_token(mixture) - operations_per_token(SHAPE) == 6 * 2 * 4 * 32


def test_a_token_sees_half_of_its_document_on_average() -> None:
    assert positions_seen([9]) == 5
    sizes = [3, 10, 1]
    plain = [position + 1 for size in sizes for position in range(size)]
    assert positions_seen(sizes) == pytest.approx(np.mean(plain))


def test_what_a_step_holds_at_once_is_whole_rows() -> None:
    assert SHAPE.micro_tokens == 1024 and dataclasses.replace(SHAPE, accumulate=3).micro_tokens == 6 * 64
    assert dataclasses.replace(SHAPE, accumulate=1000).micro_tokens == 64


def test_following_the_advice_makes_it_fit() -> None:
    memory = memory_of(SHAPE)
    assert advice_for_memory(SHAPE, memory, 1e12, recompute=False)[0].startswith("it fits")
    [line] = advice_for_memory(SHAPE, memory, 0.8e9, recompute=False)
    assert line.startswith("--train.accumulate 8 ")
    cut = dataclasses.replace(SHAPE, accumulate=8)
    assert memory_of(cut).total <= 0.8e9 < memory_of(dataclasses.replace(SHAPE, accumulate=4)).total
    assert "--train.recompute" in advice_for_memory(SHAPE, memory_of(SHAPE, 2e7), 1.2e9, recompute=False)[0]
    assert "no cut of the batch fits" in advice_for_memory(SHAPE, memory, 1e8, recompute=False)[0]


def test_hours_are_met_by_fewer_steps() -> None:
    cost = Cost(times={"training steps": 1000, "saves": 10}, seconds_each={"training steps": 7.0, "saves": 20.0})
    assert cost.total == 7200 and cost.seconds["saves"] == 200
    assert advice_for_hours(1000, cost, 2, 64)[0].startswith("it ends within 2 h")
    lines = advice_for_hours(1000, cost, 0.5, 64)
    assert lines[0].startswith("--train.steps 250: 25%") and "16,000 tokens" in lines[0] and "4 processes" in lines[2]
    assert advice_for_hours(1000, cost, 1e-6, 64)[0].startswith("not even one step")
