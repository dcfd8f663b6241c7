"""Keys and values of all requests, a slot for each, allocated once; and what of them the next request can use again.

A slot keeps its ids after its request has ended. The next request whose prompt begins with the same ids goes on behind
them: in a chat that is everything said so far. `cache.py` is the simple form of the same thing.
"""

import numpy as np
import torch
from torch import Tensor

from minimind.model import ModelConfig

__all__ = ["Slots"]

# To copy so many tokens' keys and values from a slot in use costs less than to compute them; fewer are not worth it.
MIN_COPIED = 16


class Slots:
    """`num_slots` rows of `capacity` tokens: keys and values are [layers, slots, G, capacity, K].

    lengths:  tokens stored in each slot
    """

    def __init__(
        self, config: ModelConfig, num_slots: int, capacity: int, *, device: torch.device | str = "cpu"
    ) -> None:
        self.num_groups = config.num_key_value_heads
        self.capacity = capacity
        shape = (config.num_hidden_layers, num_slots, self.num_groups, capacity, config.head_dim)
        # NumPy's zeros take memory when they are first written: a slot costs what it holds, not what it could hold.
        self.keys, self.values = (torch.from_numpy(np.zeros(shape, np.float32)).to(device) for _ in range(2))
        self.lengths = [0] * num_slots
        self._ids = np.zeros((num_slots, capacity), np.int32)
        self._free = set(range(num_slots))
        self._last_used = [0] * num_slots
        self._clock = 0

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def bytes_per_token(self) -> int:
        return self.keys.element_size() * 2 * self.keys[:, 0, :, 0].numel()

    def acquire(self, prompt: np.ndarray, *, reuse: bool = True) -> tuple[int, int]:
        """A free slot and how many of the prompt's tokens it holds already; the last one is always to be computed."""
        assert self._free, "no slot is free"
        matches = self._matches(prompt) if reuse else np.zeros(len(self.lengths), np.int64)
        # The longest match; among equals an empty slot, then the one that waits the longest.
        slot = min(self._free, key=lambda s: (-matches[s], self.lengths[s] > 0, self._last_used[s], s))
        best = int(matches.argmax())
        kept = int(matches[slot])
        if matches[best] >= kept + MIN_COPIED:
            kept = int(matches[best])
            for stored in (self.keys, self.values):
                stored[:, slot, :, :kept] = stored[:, best, :, :kept]
            self._ids[slot, :kept] = prompt[:kept]
        self.lengths[slot] = kept
        self._free.remove(slot)
        return slot, kept

    def append(self, slot: int, ids: list[int] | np.ndarray) -> None:
        """Count tokens as stored, whose keys and values were just written."""
        start = self.lengths[slot]
        self._ids[slot, start : start + len(ids)] = ids
        self.lengths[slot] = start + len(ids)

    def release(self, slot: int, *, forget: bool = False) -> None:
        """Free a slot. What it holds stays for the next one, unless it is to be forgotten."""
        self._clock += 1
        self._last_used[slot] = self._clock
        self._free.add(slot)
        if forget:
            # Zeros, for what is not a number would spoil even what a mask leaves out.
            self.keys[:, slot] = 0
            self.values[:, slot] = 0
            self.lengths[slot] = 0

    def places(self, slots: np.ndarray, positions: np.ndarray) -> Tensor:
        """Where the new tokens' keys go, as rows of a layer seen as [slots * G * capacity, K]: [N * G]."""
        groups = np.arange(self.num_groups)
        rows = (slots[:, None] * self.num_groups + groups) * self.capacity + positions[:, None]
        return torch.from_numpy(rows.reshape(-1)).to(self.keys.device)

    def _matches(self, prompt: np.ndarray) -> np.ndarray:
        """How many tokens each slot and the prompt, its last token left out, have in common from the start."""
        size = min(len(prompt) - 1, max(self.lengths))
        if size == 0:
            return np.zeros(len(self.lengths), np.int64)
        same = self._ids[:, :size] == prompt[:size]
        run = np.where(same.all(1), size, same.argmin(1))
        return np.minimum(run, self.lengths)
