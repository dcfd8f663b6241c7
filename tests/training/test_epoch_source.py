"""Items come once an epoch, in an order that seed and epoch decide, and the ranks of a step share those of one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.interfaces import Batch
from minimind.training.epoch_source import EpochSource


class Numbers(EpochSource):
    """A source of nothing but numbers."""

    def describe(self) -> str:
        return "numbers"

    def micro_batches(self, step: int) -> Sequence[Batch]:
        raise NotImplementedError


class Forgetful(Numbers):
    def state_files(self) -> dict[str, bytes]:
        return {"state": b"1"}


def items(source: Numbers, epoch: int) -> list[int]:
    steps = range(epoch * source.steps_per_epoch, (epoch + 1) * source.steps_per_epoch)
    return np.concatenate([source.items_of_step(step) for step in steps]).tolist()


@given(count=st.integers(1, 40), per_step=st.integers(1, 12), seed=st.integers(0, 5))
def test_an_epoch_takes_each_item_once_and_its_last_step_what_is_left(count: int, per_step: int, seed: int) -> None:
    source = Numbers(count, per_step, seed=seed)
    for epoch in range(3):
        assert sorted(items(source, epoch)) == list(range(count))
    assert len(source.items_of_step(source.steps_per_epoch - 1)) == (count - 1) % per_step + 1


@given(count=st.integers(1, 40), ranks=st.integers(1, 4), accumulate=st.integers(1, 5), step=st.integers(0, 20))
def test_ranks_and_micro_batches_share_the_items_of_a_step_in_their_order(
    count: int, ranks: int, accumulate: int, step: int
) -> None:
    sources = [Numbers(count, 7, seed=3, accumulate=accumulate, rank=rank, ranks=ranks) for rank in range(ranks)]
    parts = [source.parts_of_step(step) for source in sources]
    assert all(parts), "a rank without items still takes part"
    shared = np.concatenate([part for of_rank in parts for part in of_rank])
    assert shared.tolist() == Numbers(count, 7, seed=3).items_of_step(step).tolist()


def test_seed_epoch_and_stream_each_decide_the_order() -> None:
    orders = [
        items(Numbers(30, 4, seed=0), 0),
        items(Numbers(30, 4, seed=0), 1),
        items(Numbers(30, 4, seed=1), 0),
        items(Numbers(30, 4, seed=0, stream=2), 0),
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert items(Numbers(30, 4, seed=0), 0) == orders[0]


def test_the_order_is_the_one_that_runs_were_started_with() -> None:
    """A resumed run must not see other rows because the package was updated."""
    assert Numbers(8, 8, seed=5).order(2).tolist() == [1, 7, 6, 2, 5, 0, 4, 3]


def test_a_source_that_keeps_a_state_has_to_read_it(tmp_path: Path) -> None:
    Numbers(3, 1, seed=0).load_state(tmp_path)
    with pytest.raises(AssertionError, match="Forgetful keeps a state and does not read it"):
        Forgetful(3, 1, seed=0).load_state(tmp_path)
