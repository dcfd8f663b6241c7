"""Sums over micro-batches are exact, and are read as means over all of them."""

import pytest
import torch

from minimind.interfaces import Batch, Loss, Mean
from minimind.training.distributed import World
from minimind.training.step_sums import StepSums


def batch(weight: float, **means: Mean) -> Batch:
    ids = torch.zeros(1, 1, dtype=torch.int64)
    return Batch(tokens=ids, targets=ids, weights=torch.tensor([[weight]]), num_tokens=1, means=means)


def loss(total: float, weight: float) -> Loss:
    return Loss(torch.tensor(total), {"loss": Mean(torch.tensor(total), torch.tensor(weight))})


def test_a_figure_is_its_total_over_its_weight_of_all_micro_batches() -> None:
    sums = StepSums(World())
    reward = Mean(torch.tensor(3), torch.tensor(2))
    sums.add(batch(1.0, reward=reward), loss(4.0, 1.0))
    sums.add(batch(3.0, reward=Mean(torch.tensor(0), torch.tensor(4))), loss(2.0, 3.0))
    figures, found = sums.read({"tokens": 7, "stop": True}, {"norm": torch.tensor(0.5)})
    assert figures == {"loss": 1.5, "reward": 0.5}
    assert found == {"weight": 4.0, "tokens": 7.0, "stop": 1.0, "norm": 0.5}


def test_a_figure_without_weight_is_0_and_not_nan() -> None:
    sums = StepSums(World())
    sums.add(batch(0.0), loss(0.0, 0.0))
    assert sums.read() == ({"loss": 0.0}, {"weight": 0.0})


def test_a_weight_beyond_what_float32_can_count_stays_exact() -> None:
    sums = StepSums(World())
    for weight in (2.0**24, 1.0, 1.0):
        sums.add(batch(weight), loss(1.0, weight))
    figures, found = sums.read()
    assert found["weight"] == 2**24 + 2 and figures["loss"] == pytest.approx(3 / (2**24 + 2), rel=1e-15)
