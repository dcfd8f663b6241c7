"""Tokens in = tokens out: every target of every document comes exactly once an epoch, in rows that are nearly full."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.loader import PackedRows, collate, plan_rows
from minimind.errors import DataError
from minimind.interfaces import Batch

CONTEXT = 16
SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=40).filter(lambda sizes: max(sizes) > 1)


class Numbered:
    """Documents whose ids are all different, so that each can be followed; weights tell them apart, too."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.lengths = np.array(sizes, dtype=np.int64)
        # A number between two documents stays unused, so that the end of one does not lead to the next.
        self.starts = np.cumsum(self.lengths + 1) - self.lengths

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.arange(self.lengths[document]) + self.starts[document]
        return ids.astype(np.uint32), (ids % 3 / 2).astype(np.float32)

    def pairs(self) -> Counter[tuple[int, int, float]]:
        """(id, following id, weight of predicting it) of all documents."""
        documents = [self[document] for document in range(len(self.lengths))]
        return Counter(
            (int(a), int(b), float(w))
            for ids, ws in documents
            for a, b, w in zip(ids[:-1], ids[1:], ws[1:], strict=True)
        )


def realistic(documents: int) -> np.ndarray:
    """Lengths as web text has them: a median of 200 ids, one in a hundred above 2,000."""
    return np.random.default_rng(0).lognormal(np.log(200), 1.0, documents).astype(np.int64) + 2


def rows_of(documents: Numbered, **changes: int) -> PackedRows:
    options = {"context": CONTEXT, "batch_tokens": 3 * CONTEXT, "seed": 7}
    return PackedRows(documents, **{**options, **changes})  # type: ignore[arg-type]


def content(batches: Sequence[Batch]) -> Counter[tuple[int, int, float]]:
    """(token, target, weight) of all positions that are not padding; ids count from 1."""
    columns = [torch.cat([getattr(b, name).flatten() for b in batches]) for name in ("tokens", "targets", "weights")]
    return Counter(triple for triple in zip(*(column.tolist() for column in columns), strict=True) if triple[0])


# ---- the plan


@given(sizes=SIZES, context=st.integers(1, 70), seed=st.integers(0, 5))
def test_pieces_cover_each_position_that_has_a_next_id_exactly_once(sizes: list[int], context: int, seed: int) -> None:
    pieces = [piece for row in plan_rows(np.array(sizes), context, seed) for piece in row]
    covered = Counter((p.document, position) for p in pieces for position in range(p.start, p.start + p.size))
    assert covered == Counter((document, at) for document, size in enumerate(sizes) for at in range(size - 1))


@given(sizes=SIZES, context=st.integers(1, 70))
def test_no_row_is_longer_than_the_context_or_empty(sizes: list[int], context: int) -> None:
    assert all(0 < sum(piece.size for piece in row) <= context for row in plan_rows(np.array(sizes), context, 0))


def test_documents_are_cut_no_more_often_than_they_must() -> None:
    sizes = realistic(500)
    pieces = Counter(piece.document for row in plan_rows(sizes, 512, 0) for piece in row)
    assert [pieces[document] for document in range(500)] == [-(-(size - 1) // 512) for size in sizes.tolist()]


@pytest.mark.parametrize("context", [256, 1024])
def test_rows_of_real_lengths_are_almost_full(context: int) -> None:
    rows = plan_rows(realistic(6000), context, 0)
    positions = sum(piece.size for row in rows for piece in row)
    assert positions / (len(rows) * context) > 0.98


def test_short_conversations_fill_their_rows_too() -> None:
    sizes = np.random.default_rng(0).integers(60, 700, 3000)
    rows = plan_rows(sizes, 768, 0)
    assert int((sizes - 1).sum()) / (len(rows) * 768) > 0.97


def test_documents_of_no_or_one_id_have_nothing_to_predict() -> None:
    rows = plan_rows(np.array([0, 1, 5, 1, 0, 2]), CONTEXT, 0)
    assert {piece.document for row in rows for piece in row} == {2, 5}


def test_neighbours_in_the_data_are_not_neighbours_in_the_rows() -> None:
    """Data is often sorted; windows of the plan are drawn from all of it."""
    rows = plan_rows(np.full(1000, CONTEXT // 2 + 1), CONTEXT, 0)
    distances = [abs(a.document - b.document) for a, b in rows]
    assert np.mean(distances) > 200


# ---- rows as a batch


def test_a_batch_tells_where_its_documents_end() -> None:
    documents = Numbered([7, 4, 9])
    rows = plan_rows(documents.lengths, 12, 0)
    batch = collate(documents, rows)
    assert batch.lengths is not None and sum(batch.lengths) == batch.tokens.numel()
    for part, following in zip(
        batch.tokens.flatten().split(batch.lengths), batch.targets.flatten().split(batch.lengths), strict=True
    ):
        steps = part[1:] - part[:-1]
        assert (steps == 1).all() or not part.any(), "a part is one document or padding"
        assert torch.equal(part[1:], following[:-1])
    assert batch.num_tokens == 6 + 3 + 8


def test_padding_weighs_nothing_and_is_a_document_of_its_own() -> None:
    documents = Numbered([9, 4])
    batch = collate(documents, [*plan_rows(np.array([9, 0]), 12, 0), *plan_rows(np.array([0, 4]), 12, 0)])
    assert batch.tokens.shape == (2, 8), "no wider than the longest row"
    assert batch.lengths == (8, 3, 5) and not batch.weights[1, 3:].any() and not batch.tokens[1, 3:].any()


def test_rows_of_a_single_piece_can_be_padded_instead() -> None:
    documents = Numbered([9, 4])
    rows = plan_rows(documents.lengths, 8, 0)
    packed, padded = collate(documents, rows), collate(documents, rows, is_packed=False)
    assert padded.lengths is None and torch.equal(packed.tokens, padded.tokens)
    assert torch.equal(packed.weights, padded.weights) and torch.equal(packed.targets, padded.targets)


def test_no_rows_make_one_position_without_weight() -> None:
    batch = collate(Numbered([5]), [])
    assert (batch.tokens.shape, batch.lengths, batch.weight, batch.num_tokens) == ((1, 1), (1,), 0.0, 0)


# ---- steps


@given(sizes=SIZES, accumulate=st.integers(1, 4), ranks=st.integers(1, 3), seed=st.integers(0, 3))
def test_an_epoch_gives_each_target_of_each_document_exactly_once(
    sizes: list[int], accumulate: int, ranks: int, seed: int
) -> None:
    documents = Numbered(sizes)
    sources = [rows_of(documents, accumulate=accumulate, rank=r, ranks=ranks, seed=seed) for r in range(ranks)]
    for epoch in range(2):
        steps = range(epoch * sources[0].steps_per_epoch, (epoch + 1) * sources[0].steps_per_epoch)
        batches = [batch for source in sources for step in steps for batch in source.micro_batches(step)]
        assert content(batches) == documents.pairs()
        assert sum(batch.num_tokens for batch in batches) == documents.pairs().total()


@given(accumulate=st.integers(1, 9), ranks=st.integers(1, 5))
def test_a_step_has_the_same_rows_whatever_ranks_and_micro_batches(accumulate: int, ranks: int) -> None:
    documents = Numbered(realistic(12).tolist())
    whole = rows_of(documents, batch_tokens=7 * CONTEXT)
    parts = [
        rows_of(documents, batch_tokens=7 * CONTEXT, accumulate=accumulate, rank=r, ranks=ranks) for r in range(ranks)
    ]
    for step in (0, 1, whole.steps_per_epoch - 1, whole.steps_per_epoch):
        batches = [batch for part in parts for batch in part.micro_batches(step)]
        assert content(batches) == content(whole.micro_batches(step))
        assert all(part.micro_batches(step) for part in parts), "a rank without rows still takes part"


def test_a_step_depends_on_the_seed_and_the_step_alone() -> None:
    documents = Numbered(realistic(40).tolist())
    source = rows_of(documents)
    forwards = [source.micro_batches(step)[0].tokens for step in range(40)]
    other = rows_of(documents)
    for step in (39, 0, 17, 5, 17):
        assert torch.equal(other.micro_batches(step)[0].tokens, forwards[step])
    assert not torch.equal(rows_of(documents, seed=8).micro_batches(0)[0].tokens, forwards[0])


def test_each_epoch_has_an_order_of_its_own() -> None:
    source = rows_of(Numbered(realistic(40).tolist()))
    first, second = (
        np.concatenate(
            [source.items_of_step(epoch * source.steps_per_epoch + step) for step in range(source.steps_per_epoch)]
        )
        for epoch in range(2)
    )
    assert sorted(first) == sorted(second) == list(range(len(source.rows)))
    assert (first != second).mean() > 0.5


def test_the_last_step_of_an_epoch_takes_what_is_left() -> None:
    source = rows_of(Numbered([CONTEXT + 1] * 7))
    assert source.steps_per_epoch == 3 and source.fill == 1.0
    assert [len(source.items_of_step(step)) for step in range(6)] == [3, 3, 1, 3, 3, 1]


def test_a_step_too_small_for_a_row_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"train.batch_tokens is 15, less than one row of data.context = 16 tokens; raise"
    ):
        rows_of(Numbered([5]), batch_tokens=15)


@pytest.mark.parametrize("sizes", [[], [0], [1, 1, 0]])
def test_data_without_anything_to_predict_is_refused(sizes: list[int]) -> None:
    with pytest.raises(DataError, match="no document of at least two tokens"):
        rows_of(Numbered(sizes))
