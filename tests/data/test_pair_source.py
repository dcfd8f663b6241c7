"""A step has the same pairs whatever ranks and micro-batches; what the reference says is computed once and kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minimind.data.pair_source import PairSource, collate_pairs, load_reference, reference_logprobs, save_reference
from minimind.data.pairs import Pairs, Side
from minimind.errors import DataError
from minimind.interfaces import Batch, PairBatch


def numbered(count: int) -> Pairs:
    """Pairs of different lengths whose ids tell pair and side: 100 · pair + 10 · side + place, from 100."""
    rows = []
    for pair in range(count):
        for side in (0, 1):
            ids = 100 * (pair + 1) + 10 * side + np.arange(3 + (3 * pair + 2 * side) % 5)
            rows.append(Side(ids.astype(np.uint32), (ids % 10 >= 2).astype(np.float32)))
    return Pairs(rows, [bytes([pair]) for pair in range(count)])


def source(pairs: Pairs, **changes: int) -> PairSource:
    reference = np.arange(2 * len(pairs), dtype=np.float32)
    return PairSource(pairs, reference=reference, **{"batch_pairs": 4, "seed": 7, **changes})  # type: ignore[arg-type]


def content(batches: Sequence[PairBatch]) -> list[tuple[int, float, int, float]]:
    """(first id, what the reference says, ids, their weight) of each row that is no filler."""
    return [
        (int(batch.tokens[row, 0]), float(batch.reference[row]), int((batch.tokens[row] > 0).sum()), float(weights))
        for batch in batches
        for row, weights in enumerate(batch.weights.sum(-1).tolist())
        if batch.tokens[row, 0]
    ]


def test_a_batch_has_two_rows_a_pair_padded_on_the_right() -> None:
    pairs = numbered(3)
    batch = collate_pairs(pairs, [2, 0], np.arange(6, dtype=np.float32))
    assert batch.reference.tolist() == [4, 5, 0, 1] and batch.divisor == batch.weight == 2 and batch.lengths is None
    for row, side in enumerate(pairs.rows[number] for number in (4, 5, 0, 1)):
        size = len(side.ids) - 1
        assert batch.tokens[row, :size].tolist() == side.ids[:-1].tolist()
        assert batch.targets[row, :size].tolist() == side.ids[1:].tolist()
        assert batch.weights[row, :size].tolist() == side.weights[1:].tolist()
        assert not batch.weights[row, size:].any() and not batch.tokens[row, size:].any()
    assert batch.tokens.shape[1] == max(len(pairs.rows[number].ids) for number in (4, 5, 0, 1)) - 1
    assert batch.num_tokens == sum(len(pairs.rows[number].ids) - 1 for number in (4, 5, 0, 1))


def test_no_pairs_make_a_pair_without_weight() -> None:
    batch = collate_pairs(numbered(2), [], np.zeros(4, dtype=np.float32))
    assert batch.tokens.shape == (2, 1) and batch.weight == 0 and not batch.weights.any() and batch.num_tokens == 0


@given(count=st.integers(1, 23), accumulate=st.integers(1, 4), ranks=st.integers(1, 3), seed=st.integers(0, 3))
def test_an_epoch_gives_each_pair_exactly_once(count: int, accumulate: int, ranks: int, seed: int) -> None:
    pairs = numbered(count)
    sources = [source(pairs, accumulate=accumulate, rank=rank, ranks=ranks, seed=seed) for rank in range(ranks)]
    expected = content([collate_pairs(pairs, range(count), sources[0].reference)])
    for epoch in range(2):
        steps = range(epoch * sources[0].steps_per_epoch, (epoch + 1) * sources[0].steps_per_epoch)
        batches = [batch for each in sources for step in steps for batch in each.micro_batches(step)]
        assert sorted(content(batches)) == sorted(expected)
        assert sum(batch.weight for batch in batches) == count


@given(accumulate=st.integers(1, 6), ranks=st.integers(1, 5))
def test_a_step_has_the_same_pairs_in_one_order_whatever_ranks_and_micro_batches(accumulate: int, ranks: int) -> None:
    whole = source(numbered(10))
    parts = [source(numbered(10), accumulate=accumulate, rank=rank, ranks=ranks) for rank in range(ranks)]
    for step in (0, 1, 2, 3):
        batches = [batch for part in parts for batch in part.micro_batches(step)]
        assert content(batches) == content(whole.micro_batches(step))
        assert all(part.micro_batches(step) for part in parts), "a rank without pairs still takes part"


def test_a_step_depends_on_the_seed_and_the_step_alone() -> None:
    forwards = [content(source(numbered(10)).micro_batches(step)) for step in range(9)]
    again = source(numbered(10))
    again.load_state(Path())
    assert again.accepts({"loss": 1.0})
    for step in (8, 0, 4, 2, 4):
        assert content(again.micro_batches(step)) == forwards[step]
    assert content(source(numbered(10), seed=8).micro_batches(0)) != forwards[0] and again.state_files() == {}


def test_each_epoch_has_an_order_of_its_own_and_ends_with_what_is_left() -> None:
    each = source(numbered(10))
    assert each.steps_per_epoch == 3 and [len(each.items_of_step(step)) for step in range(6)] == [4, 4, 2, 4, 4, 2]
    first, second = (np.concatenate([each.items_of_step(3 * epoch + step) for step in range(3)]) for epoch in range(2))
    assert sorted(first) == sorted(second) == list(range(10)) and (first != second).any()


def test_it_says_what_it_draws_from() -> None:
    assert source(numbered(10)).describe() == "10 pairs, 4 a step"


def test_data_without_a_pair_is_refused() -> None:
    with pytest.raises(DataError, match="no preference pair; give a file with 'chosen' and 'rejected'"):
        source(numbered(0))


# ---- the reference


class Oracle:
    """Says −target / 1000 of each target, whether it has weight or not, and counts its batches."""

    calls = 0

    def __call__(self, batch: Batch) -> Tensor:
        self.calls += 1
        assert not torch.is_grad_enabled()
        return -batch.targets.float() / 1000


@pytest.mark.parametrize("batch_pairs", [1, 3, 100])
def test_the_reference_is_the_sum_over_weighted_targets_of_each_row(batch_pairs: int) -> None:
    pairs, oracle = numbered(7), Oracle()
    figures = reference_logprobs(oracle, pairs, batch_pairs=batch_pairs)
    expected = [-float((side.ids[1:] * side.weights[1:]).sum()) / 1000 for side in pairs.rows]
    assert figures.dtype == np.float32 and figures.tolist() == pytest.approx(expected, rel=1e-6)
    assert oracle.calls == -(-7 // batch_pairs)


def test_what_was_kept_is_used_for_the_same_pairs_and_the_same_model_only(tmp_path: Path) -> None:
    path, figures = tmp_path / "new" / "reference.safetensors", np.array([-1.5, -2.5], dtype=np.float32)
    assert load_reference(path, pairs="p", model="m") is None
    save_reference(path, figures, pairs="p", model="m")
    kept = load_reference(path, pairs="p", model="m")
    assert kept is not None and np.array_equal(kept, figures) and kept.dtype == np.float32
    assert load_reference(path, pairs="q", model="m") is None
    assert load_reference(path, pairs="p", model="n") is None
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing temporary is left"


def test_a_damaged_file_is_computed_anew(tmp_path: Path) -> None:
    """Every bit flip and every truncation is noticed, or changes nothing that is read."""
    path, figures = tmp_path / "reference.safetensors", np.array([-1.5, -2.5], dtype=np.float32)
    save_reference(path, figures, pairs="p", model="m")
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(len(whole))]
    damaged += [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    ]
    for content in damaged:
        path.write_bytes(content)
        found = load_reference(path, pairs="p", model="m")
        assert found is None or (found.dtype == np.float32 and np.array_equal(found, figures))


def test_a_disk_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/reference: cannot be written: .*; choose another disk"):
        save_reference(tmp_path / "file" / "reference", np.zeros(2, dtype=np.float32), pairs="p", model="m")
