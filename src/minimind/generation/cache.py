"""The key/value cache: keys and values of earlier tokens, so that a new token costs one position, not the whole text.

`Transformer.hidden_states(tokens, cache=cache)` reads and fills it; `generate.py` is what comes next.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from minimind.model import Attend, ModelConfig, attend_to_earlier
from minimind.variants import is_near

__all__ = ["KeyValueCache"]


class KeyValueCache:
    """Keys and values of the tokens seen so far, [layers, B, capacity, G, K] each.

    Rows may have different lengths. New tokens are written behind each row's own; only `advance` makes them count, so
    the padding of a ragged prompt is written, never counted, and overwritten by what comes next.
    """

    def __init__(self, keys: Tensor, values: Tensor, lengths: Tensor) -> None:
        self.keys = keys
        self.values = values
        self.lengths = lengths  # [B] int64, tokens stored in each row

    @classmethod
    def allocate(
        cls,
        config: ModelConfig,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> "KeyValueCache":
        shape = (config.num_hidden_layers, batch, capacity, config.num_key_value_heads, config.head_dim)
        # Zeros, not `empty`: a masked score times a stray NaN would still be NaN.
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return cls(keys, values, torch.zeros(batch, dtype=torch.int64, device=device))

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def advance(self, counts: int | Tensor) -> None:
        """Count the tokens just written as seen: one number, or [B] when rows got different numbers of real tokens."""
        self.lengths = self.lengths + counts

    def layer(self, index: int, positions: Tensor) -> Attend:
        """How layer `index` attends to what is stored, after the new tokens at `positions` [B, T] were added."""
        assert positions.max() < self.capacity, f"cache holds {self.capacity} tokens, asked for {positions.max() + 1}"
        return _LayerCache(self.keys[index], self.values[index], positions)


class _LayerCache(NamedTuple):
    """One layer's part of the cache during one forward pass, with the positions [B, T] of the new tokens."""

    keys: Tensor
    values: Tensor
    positions: Tensor

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the new keys and values, then attend to all that is stored up to each query's own position."""
        keys, values = self._store(k, v)
        if keys.shape[1] == q.shape[1]:
            # All rows begin here: a mask would say the same, and grow with the square of a long prompt.
            return attend_to_earlier(q, keys.to(q.dtype), values.to(q.dtype))
        return self._attend(q, keys, values, window=keys.shape[1])

    def near(self, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """The same, but no further back than a window."""
        return self._attend(q, *self._store(k, v), window)

    def _store(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All that is stored of the layer now, [B, used, G, K] each."""
        rows = torch.arange(k.shape[0], device=k.device)[:, None]
        self.keys[rows, self.positions] = k.to(self.keys.dtype)
        self.values[rows, self.positions] = v.to(self.values.dtype)
        used = int(self.positions.max()) + 1
        return self.keys[:, :used], self.values[:, :used]

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, window: int) -> Tensor:
        places = torch.arange(keys.shape[1], device=q.device)
        visible = is_near(self.positions[:, None, :, None], places, window)  # [B, 1, T, used]
        return attend_to_earlier(q, keys.to(q.dtype), values.to(q.dtype), visible)
