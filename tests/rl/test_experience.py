"""Rows and their batches: each figure at its target, each loss with its weights, and the same bits back from a file."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minimind.rl.experience import (
    Experience,
    collate_rollouts,
    collate_targets,
    cut,
    experience_from_json,
    experience_to_json,
)

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
    batch = collate_targets(ROWS[:2], "dapo", max_tokens=8)
    assert batch.tokens.tolist() == [[10, 11, 12, 13], [20, 21, 0, 0]]
    assert batch.targets.tolist() == [[11, 12, 13, 14], [21, 22, 0, 0]]
    assert batch.weights.tolist() == [[1, 1, 0, 1], [0, 1, 0, 0]]
    assert (batch.lengths, batch.num_tokens, batch.weight) == (None, 6, 4)


@pytest.mark.parametrize(
    ("kind", "first", "weight"), [("grpo", 1 / 3, 2), ("dr_grpo", 1 / 8, 2), ("cispo", 1, 4), ("ppo", 1, 4)]
)
def test_weights_and_divisor_are_those_of_the_loss(kind: str, first: float, weight: float) -> None:
    batch = collate_targets(ROWS[:2], kind, max_tokens=8)
    assert batch.weights[0].tolist() == pytest.approx([first, first, 0, first])
    assert batch.weight == weight


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo", "ppo"])
def test_no_rows_are_a_batch_without_weight(kind: str) -> None:
    batch = collate_rollouts([], kind, 8, [*NAMES, "reference_logprobs"], {})
    assert batch.tokens.shape == (1, 1) and batch.weight == 0 and batch.num_tokens == 0
    assert batch.reference_logprobs is not None and batch.returns is None


def test_figures_stand_at_their_targets_and_padding_has_none() -> None:
    batch = collate_rollouts(ROWS, "grpo", 8, NAMES, {})
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
        again = experience_from_json(json.loads(json.dumps(experience_to_json(one))))
        assert vars(again) | {"tensors": None} == vars(one) | {"tensors": None}
        assert all(torch.equal(again.tensors[name], tensor) for name, tensor in one.tensors.items())
        assert again.tensors.keys() == one.tensors.keys()


def test_a_row_with_too_few_figures_is_refused() -> None:
    value = experience_to_json(ROWS[0])
    value["tensors"]["advantages"].pop()
    with pytest.raises((ValueError, RuntimeError)):
        experience_from_json(value)
