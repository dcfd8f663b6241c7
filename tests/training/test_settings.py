"""Every option of `train` says what it does, and values that make no sense are refused before anything runs."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from minimind.config import options
from minimind.training.settings import TrainConfig

NAMES = [option.name for option in options(TrainConfig)]
POSITIVE = ["steps", "epochs", "batch_tokens", "accumulate", "muon_lr", "lr", "embedding_lr", "clip", "log_every"]
POSITIVE += ["valid_every", "checkpoint_every", "keep_checkpoints"]
FLOATS = ["epochs", "muon_lr", "lr", "embedding_lr", "weight_decay", "beta1", "beta2", "momentum", "cooldown", "clip"]
FLOATS += ["final_scale", "router_coefficient"]
# What may differ when a run goes on: speed, memory, cadence. All else changes the numbers.
FREE = {"accumulate", "recompute", "device", "log_every", "valid_every", "checkpoint_every", "keep_checkpoints"}
FREE |= {"checkpoint_minutes"}


def test_every_option_has_a_description() -> None:
    assert [option.name for option in options(TrainConfig) if len(option.description) < 10] == []


def test_options_are_free_only_if_they_cannot_change_what_is_learnt() -> None:
    assert {option.name for option in options(TrainConfig) if option.kind == "free"} == FREE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-1, -0.5, "many", [1], {"a": 1}])
def test_nonsense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", POSITIVE)
def test_what_must_be_positive_is_not_zero(name: str) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**{name: 0})


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_numbers_are_finite(name: str, value: float) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", ["beta1", "beta2", "momentum"])
def test_a_memory_that_never_forgets_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**{name: 1.0})


@pytest.mark.parametrize("name", ["cooldown", "final_scale"])
def test_shares_are_at_most_one(name: str) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**{name: 1.01})
