"""Slots are taken and given back, and what one holds is found again by the next prompt that begins so."""

import numpy as np
import pytest
import torch

from minimind.generation.slots import Slots
from minimind.model import Transformer


def filled(model: Transformer, *texts: list[int]) -> Slots:
    """A slot for each text, all of them free again, and one more."""
    slots = Slots(model.config, len(texts) + 1, 64)
    for text in texts:
        slot, _ = slots.acquire(np.array(text), reuse=False)
        slots.append(slot, text)
        slots.keys[:, slot, :, : len(text)] = torch.tensor(text, dtype=torch.float32)[:, None]
    for slot in range(len(texts)):
        slots.release(slot)
    return slots


@pytest.mark.parametrize(
    ("prompt", "slot", "kept"),
    [
        ([1, 2, 3, 4, 5, 6], 0, 4),
        ([1, 2, 9, 9], 1, 3),
        ([1, 2, 9], 0, 2),
        ([1, 2, 3, 4], 0, 3),
        ([7], 2, 0),
        ([8, 2, 3], 2, 0),
    ],
)
def test_the_longest_beginning_is_found_and_the_last_token_left(
    model: Transformer, prompt: list[int], slot: int, kept: int
) -> None:
    slots = filled(model, [1, 2, 3, 4], [1, 2, 9])
    assert slots.acquire(np.array(prompt)) == (slot, kept)
    assert slots.lengths[slot] == kept and slots.num_free == 2


def test_a_long_beginning_in_use_is_copied(model: Transformer) -> None:
    slots = filled(model, list(range(40)))
    assert slots.acquire(np.array([*range(40), 50])) == (0, 40)
    slot, kept = slots.acquire(np.array([*range(30), 60, 61]))
    assert (slot, kept) == (1, 30)
    assert torch.equal(slots.keys[:, 1, :, :30], slots.keys[:, 0, :, :30])
    assert slots.keys[:, 1, :, 30:].eq(0).all()


def test_without_a_match_the_slot_that_waited_longest_is_taken(model: Transformer) -> None:
    slots = filled(model, [1], [2], [3])
    slots.acquire(np.array([9]))
    slots.append(3, [9])
    taken = [slots.acquire(np.array([9, 9]), reuse=False)[0] for _ in range(3)]
    assert taken == [0, 1, 2] and slots.num_free == 0


def test_what_is_to_be_forgotten_is_zero(model: Transformer) -> None:
    slots = filled(model, [1, 2, 3])
    slot, _ = slots.acquire(np.array([1, 2, 3]))
    slots.keys[:, slot] = float("nan")
    slots.release(slot, forget=True)
    assert slots.lengths[slot] == 0 and slots.keys[:, slot].eq(0).all()


def test_places_are_those_of_the_tokens_in_a_flat_layer(model: Transformer) -> None:
    slots = Slots(model.config, 3, 10)
    flat = slots.keys[0].view(-1, slots.keys.shape[-1])
    flat[slots.places(np.array([2, 0]), np.array([4, 7]))] = 1
    assert slots.keys[0, 2, :, 4].eq(1).all() and slots.keys[0, 0, :, 7].eq(1).all()
    assert slots.keys[0].sum() == 2 * slots.keys[0, 0, :, 0].numel()
    assert slots.bytes_per_token == 2 * 2 * 2 * 8 * 4
