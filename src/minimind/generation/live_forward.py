"""The same pass as `forward.py` through the model itself, whose weights may change between passes.

Training samples with it: what is sampled from is computed by the modules that learn, under the autocast that they learn
under, adapters beside their layers included. It makes no copy of the weights but the packed ones of
`packed_weights.py`, and is a little slower.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from minimind.generation.forward import Forward
from minimind.generation.slot_attention import NewTokens, SlotPass
from minimind.generation.slots import Slots
from minimind.model import Attend, ModelConfig, Transformer

__all__ = ["LiveForward", "fastest_forward"]


def fastest_forward(model: Transformer, slots: Slots) -> "Forward | LiveForward":
    """The pass for weights that stay: written out again where the model has the plain shape, else the model's own."""
    return Forward(model, slots) if type(model.config) is ModelConfig else LiveForward(model, slots)


class LiveForward:
    """Computes the hidden states of new tokens, and stores their keys and values in `slots`."""

    def __init__(self, model: Transformer, slots: Slots) -> None:
        self._model = model
        self._slots = slots

    def __call__(self, chunks: Sequence[NewTokens]) -> Tensor:
        """[N, D] hidden states of all new tokens, as `Forward` has them. To the model each is a row of its own."""
        around = SlotPass.of(chunks, self._slots)
        cache = _SlotCache(self._slots, around, around.positions)
        return self._model.hidden_states(around.ids[:, None], cache=cache).states[:, 0]

    def logits(self, states: Tensor) -> Tensor:
        """[N, D] -> [N, V]."""
        return self._model.logits(states)


@dataclass
class _SlotCache:
    """The slots as `model.py` sees a cache. lengths: [N], what stands before each new token."""

    slots: Slots
    around: SlotPass
    lengths: Tensor

    def layer(self, index: int, positions: Tensor) -> Attend:
        return _SlotLayer(self.slots.keys[index], self.slots.values[index], self.around)


class _SlotLayer(NamedTuple):
    """One layer's part of the slots during one pass. q [N, 1, H, K], k and v [N, 1, G, K] -> [N, 1, H, K]."""

    keys: Tensor
    values: Tensor
    around: SlotPass

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self._attend(q, k, v, None)

    def near(self, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """The same, but no further back than a window."""
        return self._attend(q, k, v, window)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        # In float32, as keys and values are stored; what is rounded by autocast was rounded before.
        with torch.autocast(q.device.type, enabled=False):
            one, key, value = (part[:, 0].float() for part in (q, k, v))
            gathered = self.around.attend(one, key, value, self.keys, self.values, window)
        return gathered.view(q.shape).to(q.dtype)
