"""What a recipe leaves open follows from the data: little of it is passed over often enough, in steps small enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.training.budget import ENOUGH_STEPS, DataSize, suited
from minimind.training.settings import TrainConfig

SIZES = st.builds(
    lambda tokens, share, context, kind: DataSize(tokens, max(1, int(tokens * share)), context, kind),
    st.integers(2, 10**9),
    st.floats(0, 1),
    st.sampled_from([32, 512, 1000, 1024, 8192]),
    st.sampled_from(["text", "conversation"]),
)


def test_three_hundred_short_conversations_are_passed_over_often_in_small_steps() -> None:
    train, line = suited(TrainConfig(), DataSize(10_685, 3_109, 1024, "conversation"))
    assert (train.epochs, train.batch_tokens, train.warmup_steps) == (14, 1024, 15)
    assert line.startswith("train.epochs 14, train.batch_tokens 1024, train.warmup_steps 15 for 10,685 tokens of data")


@pytest.mark.parametrize("kind", ["text", "conversation"])
def test_enough_data_are_passed_over_once_in_steps_of_4096_tokens(kind: str) -> None:
    train, _ = suited(TrainConfig(), DataSize(10_000_000, 9_000_000, 1024, kind))
    assert (train.epochs, train.batch_tokens, train.warmup_steps) == (1, 4096, 40)


@given(size=SIZES)
def test_a_step_is_at_least_a_row_and_a_warm_up_ends_long_before_the_run(size: DataSize) -> None:
    train, _ = suited(TrainConfig(), size)
    assert train.batch_tokens and train.epochs and train.warmup_steps is not None
    assert train.batch_tokens >= size.context and 1 <= train.epochs <= 20
    assert train.warmup_steps * 10 <= size.steps(train.batch_tokens, train.epochs)


@given(size=SIZES)
def test_the_data_are_passed_over_no_more_often_than_makes_enough_steps(size: DataSize) -> None:
    train, _ = suited(TrainConfig(), size)
    assert train.batch_tokens and train.epochs
    assert train.epochs == 1 or size.steps(train.batch_tokens, train.epochs - 1) < ENOUGH_STEPS[size.kind]


def test_a_step_is_not_made_so_small_that_next_to_nothing_in_it_is_learnt() -> None:
    assert suited(TrainConfig(), DataSize(20_000, 320, 512, "conversation"))[0].batch_tokens == 4096


@given(size=SIZES, epochs=st.floats(0.1, 9), batch=st.integers(8192, 10**6), warmup=st.integers(0, 10**4))
def test_what_is_given_wins_and_is_not_spoken_of(size: DataSize, epochs: float, batch: int, warmup: int) -> None:
    settings = TrainConfig(epochs=epochs, batch_tokens=batch, warmup_steps=warmup)
    assert suited(settings, size) == (settings, "")


@given(size=SIZES)
def test_the_same_data_and_options_always_come_to_the_same(size: DataSize) -> None:
    train, _ = suited(TrainConfig(), size)
    assert suited(TrainConfig(), size)[0] == train == suited(train, size)[0]


def test_what_follows_follows_from_what_is_given() -> None:
    size = DataSize(10_685, 3_109, 1024, "conversation")
    assert suited(TrainConfig(steps=50), size)[0].warmup_steps == 5
    assert "epochs" not in suited(TrainConfig(steps=50), size)[1], "steps leave no say to epochs"
    assert suited(TrainConfig(batch_tokens=2048), size)[0].batch_tokens == 2048
