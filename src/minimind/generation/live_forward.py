"""The same pass as `forward.py` through the model itself, whose weights may change between passes.

Training samples with it: what is sampled from is computed by the modules that learn, under the autocast that they learn
under, adapters beside their layers included. It makes no copy of the weights but the packed ones of
`packed_weights.py`, and is a little slower.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minimind.generation.slot_attention import NewTokens, SlotPass
from minimind.generation.slots import Slots
from minimind.model import Attend, Transformer

__all__ = ["LiveForward"]


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
        keys, values = self.slots.keys[index], self.slots.values[index]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            """q [N, 1, H, K], k and v [N, 1, G, K] -> [N, 1, H, K]."""
            # In float32, as keys and values are stored; what is rounded by autocast was rounded before.
            with torch.autocast(q.device.type, enabled=False):
                one, key, value = (part[:, 0].float() for part in (q, k, v))
                gathered = self.around.attend(one, key, value, keys, values)
            return gathered.view(q.shape).to(q.dtype)

        return attend
