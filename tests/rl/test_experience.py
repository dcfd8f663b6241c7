"""Rows, batches, files: each figure at its target, each loss with its weights, the same bits back on any ranks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minimind.errors import CheckpointError
from minimind.objectives.policy import LOSSES
from minimind.rl.experience import (
    STATE_FILE,
    Experience,
    Iteration,
    collate_rollouts,
    collate_targets,
    cut,
    merge_iterations,
    read_iteration,
)
from minimind.rl.rollouts import RolloutSettings


def settings(loss: str) -> RolloutSettings:
    return RolloutSettings(loss=LOSSES[loss], prompts_per_step=4, group=2, max_tokens=8)


NAMES = ["advantages", "old_logprobs"]


def row(place: int, weights: list[int], seed: int = 0) -> Experience:
    """Ids 10, 11, ...; random figures where something was sampled."""
    generator = torch.Generator().manual_seed(seed + place)
    sampled = torch.tensor(weights[1:], dtype=torch.float32)
    tensors = {name: torch.randn(len(sampled), generator=generator) * sampled for name in NAMES}
    ids = tuple(range(10 * place, 10 * place + len(weights)))
    return Experience(place, 0, ids, tuple(map(float, weights)), {"reward": (0.1 * place, 1.0)}, tensors)


ROWS = [row(1, [0, 1, 1, 0, 1]), row(2, [0, 0, 1]), row(3, [0, 1, 1, 1])]


def test_a_target_is_the_next_id_and_has_its_weight() -> None:
    batch = collate_targets(ROWS[:2], settings("dapo"))
    assert batch.tokens.tolist() == [[10, 11, 12, 13], [20, 21, 0, 0]]
    assert batch.targets.tolist() == [[11, 12, 13, 14], [21, 22, 0, 0]]
    assert batch.weights.tolist() == [[1, 1, 0, 1], [0, 1, 0, 0]]
    assert (batch.lengths, batch.num_tokens, batch.weight) == (None, 6, 4)


@pytest.mark.parametrize(
    ("loss", "first", "weight"), [("grpo", 1 / 3, 2), ("dr_grpo", 1 / 8, 2), ("cispo", 1, 4), ("ppo", 1, 4)]
)
def test_weights_and_divisor_are_those_of_the_loss(loss: str, first: float, weight: float) -> None:
    batch = collate_targets(ROWS[:2], settings(loss))
    assert batch.weights[0].tolist() == pytest.approx([first, first, 0, first])
    assert batch.weight == weight


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "ppo"])
def test_no_rows_are_a_batch_without_weight(loss: str) -> None:
    batch = collate_rollouts([], settings(loss), [*NAMES, "reference_logprobs"], {})
    assert batch.tokens.shape == (1, 1) and batch.weight == 0 and batch.num_tokens == 0
    assert batch.reference_logprobs is not None and batch.returns is None


def test_figures_stand_at_their_targets_and_padding_has_none() -> None:
    batch = collate_rollouts(ROWS, settings("grpo"), NAMES, {})
    for index, one in enumerate(ROWS):
        assert torch.equal(batch.old_logprobs[index, : len(one.ids) - 1], one.tensors["old_logprobs"])
        assert not batch.advantages[index, len(one.ids) - 1 :].any()


@given(st.lists(st.integers(2, 9), max_size=12), st.integers(1, 5))
def test_cutting_loses_nothing_and_puts_like_lengths_together(sizes: list[int], parts: int) -> None:
    rows = [row(place, [0] * (size - 1) + [1]) for place, size in enumerate(sizes)]
    found = cut(rows, parts)
    assert 1 <= len(found) <= parts and (all(found) or not rows)
    lengths = [len(one.ids) for part in found for one in part]
    assert lengths == sorted(sizes)
    assert sorted(one.place for part in found for one in part) == list(range(len(rows)))
    assert cut(rows[::-1], parts) == found, "the order they come in does not matter"


def test_a_file_gives_the_same_bits_back() -> None:
    for one in [*ROWS, Experience(9, 1, (), (), {"dropped": (1.0, 1.0)})]:
        again = Experience.from_json(json.loads(json.dumps(one.to_json())))
        assert vars(again) | {"tensors": None} == vars(one) | {"tensors": None}
        assert all(torch.equal(again.tensors[name], tensor) for name, tensor in one.tensors.items())
        assert again.tensors.keys() == one.tensors.keys()


def test_a_row_with_too_few_figures_is_refused() -> None:
    value = ROWS[0].to_json()
    value["tensors"]["advantages"].pop()
    with pytest.raises((ValueError, RuntimeError)):
        Experience.from_json(value)


# ---- what a checkpoint keeps: all of it while it is needed, for any number of ranks

GROUP = 2


def places_of(rank: int, ranks: int) -> Callable[[int], Sequence[int]]:
    """Four places in each iteration."""
    return lambda number: range(4 * number, 4 * number + 4)[rank::ranks]


def short_rows(places: Sequence[int]) -> list[Experience]:
    return [
        Experience(place, member, (1, 40 + place), (0.0, 1.0), {"reward": (0.1, 1.0)})
        for place in places
        for member in range(GROUP)
    ]


def iteration(rank: int = 0, ranks: int = 1, **changes: int | bool) -> Iteration:
    found = Iteration(3, start=9, updates=3, rows=short_rows(places_of(rank, ranks)(3)), last_step=9)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def write(folder: Path, contents: Sequence[bytes]) -> Path:
    path = folder / STATE_FILE
    path.write_bytes(merge_iterations(contents))
    return path


def test_an_iteration_covers_its_updates_unless_it_was_ended() -> None:
    assert [step for step in range(20) if iteration().covers(step)] == [9, 10, 11]
    assert not any(iteration(is_over=True).covers(step) for step in range(20))
    assert [iteration(last_step=step).is_spent for step in (9, 10, 11)] == [False, False, True]
    assert iteration(is_over=True).is_spent


def test_it_reads_back_equal(tmp_path: Path) -> None:
    path = write(tmp_path, [iteration(last_step=10).to_bytes()])
    assert read_iteration(path, places_of(0, 1), GROUP) == iteration(last_step=10)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_any_number_of_ranks_can_take_up_what_two_left(tmp_path: Path, ranks: int) -> None:
    path = write(tmp_path, [iteration(rank, 2).to_bytes() for rank in range(2)])
    for rank in range(ranks):
        assert read_iteration(path, places_of(rank, ranks), GROUP) == iteration(rank, ranks)


def test_of_a_spent_iteration_only_its_number_is_kept(tmp_path: Path) -> None:
    for spent in (iteration(last_step=11), iteration(is_over=True)):
        path = write(tmp_path, [spent.to_bytes()])
        found = read_iteration(path, places_of(0, 1), GROUP)
        assert found.number == 3 and not found.rows and not found.covers(found.last_step + 1)


def test_rollouts_that_are_missing_or_no_rollouts_at_all_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [iteration(0, 2).to_bytes()])
    with pytest.raises(CheckpointError, match="holds 0 rollouts of this process, expected 4"):
        read_iteration(path, places_of(1, 2), GROUP)
    for content in ("[]", "{", json.dumps({"number": 3}), json.dumps({"number": 3, "rows": [{"place": 12}]})):
        path.write_text(content)
        with pytest.raises(CheckpointError, match=r"holds no rollouts.*earlier checkpoint"):
            read_iteration(path, places_of(0, 1), GROUP)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_iteration(tmp_path / "none.json", places_of(0, 1), GROUP)
