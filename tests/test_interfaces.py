"""A batch's weight is exact however large it is, and moving a batch loses nothing of it."""

import torch

from minimind.interfaces import Batch


def test_the_weight_of_a_batch_is_exact_beyond_what_float32_can_count() -> None:
    ones = torch.ones(1).expand(1, 2**24 + 1)
    batch = Batch(tokens=ones, targets=ones, weights=ones, num_tokens=2**24 + 1)
    assert batch.weight == 2**24 + 1 != float(ones.sum())


def test_a_moved_batch_keeps_all_its_parts() -> None:
    tokens, weights = torch.arange(6).view(2, 3), torch.rand(2, 3)
    batch = Batch(tokens=tokens, targets=tokens + 1, weights=weights, lengths=(3, 1, 2), num_tokens=5)
    moved = batch.to("meta")
    assert {part.device.type for part in (moved.tokens, moved.targets, moved.weights)} == {"meta"}
    assert (moved.lengths, moved.num_tokens) == ((3, 1, 2), 5) and moved.weights.shape == (2, 3)
