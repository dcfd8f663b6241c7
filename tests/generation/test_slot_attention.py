"""How the attention of a pass is cut, and where its keys go."""

import torch

from minimind.generation.slot_attention import NewTokens, SlotPass, _parts
from minimind.generation.slots import Slots
from minimind.model import ModelConfig


def test_neighbours_of_like_length_attend_in_one_product() -> None:
    chunks = [NewTokens(slot, [1]) for slot in (0, 1, 2, 4, 5)]
    spans, pieces = _parts(chunks, [10, 12, 3000, 0, 2990, 2995], torch.device("cpu"))
    assert [(span.first, span.last, span.slot, span.longest) for span in spans] == [
        (0, 2, 0, 13),
        (2, 3, 2, 3001),
        (3, 5, 4, 2996),
    ]
    assert pieces == []


def test_each_new_token_has_the_position_behind_what_its_slot_holds() -> None:
    config = ModelConfig(num_hidden_layers=1, num_key_value_heads=2, num_attention_heads=2, head_dim=4)
    slots = Slots(config, 3, 10)
    slots.append(1, [5, 6])
    around = SlotPass.of([NewTokens(1, [7]), NewTokens(2, [8, 9])], slots)
    assert around.ids.tolist() == [7, 8, 9] and around.positions.tolist() == [2, 0, 1]
    # Slot, then head, then position.
    assert around.places.tolist() == [22, 32, 40, 50, 41, 51]
