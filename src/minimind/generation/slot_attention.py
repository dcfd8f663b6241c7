"""Attention over slots: the new tokens of all requests in one pass, each to what its own slot holds.

Requests that go on by one token stand first, in the order of their slots; behind them pieces of prompts. Neighbouring
slots of about the same length are one batched product, and each piece of a prompt attends by itself. `forward.py` and
`live_forward.py` compute everything else of a pass; `engine.py` decides what is in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minimind.generation.slots import Slots
from minimind.variants import is_near

__all__ = ["NewTokens", "SlotPass"]

# A further batched product costs about what it costs to attend to so many more tokens.
TOKENS_PER_SPAN = 256


class NewTokens(NamedTuple):
    """New tokens of one slot, behind those that it holds."""

    slot: int
    ids: Sequence[int]


class _Span(NamedTuple):
    """Tokens `first` to `last` of the pass, each the newest of a slot; the slots are neighbours from `slot` on.

    hidden:  [rows, 1, longest], -inf behind each row's own tokens; None when all have the same length
    """

    first: int
    last: int
    slot: int
    longest: int
    hidden: Tensor | None


class _Piece(NamedTuple):
    """Tokens `first` to `last` of the pass, a piece of one prompt. visible: [last - first, stored], None if first."""

    first: int
    last: int
    slot: int
    stored: int
    visible: Tensor | None


@dataclass(frozen=True)
class SlotPass:
    """The new tokens of one pass, N of them, and where each stands.

    ids:        [N]
    positions:  [N], each in its own slot
    places:     [N * G], where their keys and values go: rows of a layer seen as [slots * G * capacity, K]
    """

    ids: Tensor
    positions: Tensor
    places: Tensor
    spans: Sequence[_Span]
    pieces: Sequence[_Piece]

    @classmethod
    def of(cls, chunks: Sequence[NewTokens], slots: Slots) -> "SlotPass":
        """chunks: those of one token first, by their slots"""
        device, lengths = slots.keys.device, slots.lengths
        starts = np.array([lengths[chunk.slot] for chunk in chunks])
        counts = np.array([len(chunk.ids) for chunk in chunks])
        owners = np.repeat(np.arange(len(chunks)), counts)
        positions = starts[owners] + np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]
        owned = np.array([chunk.slot for chunk in chunks])[owners]
        return cls(
            torch.tensor([index for chunk in chunks for index in chunk.ids], device=device),
            torch.from_numpy(positions).to(device),
            slots.places(owned, positions),
            *_parts(chunks, lengths, device),
        )

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, window: int | None = None
    ) -> Tensor:
        """Store new keys and values in a layer, then let each query gather from its slot up to its own position.

        q [N, H, K], k and v [N, G, K]; keys and values [slots, G, capacity, K] -> [N, H * K]
        window:  positions that a query sees, its own included; None is all before it
        """
        width = q.shape[-1]
        keys.view(-1, width).index_copy_(0, self.places, k.reshape(-1, width))
        values.view(-1, width).index_copy_(0, self.places, v.reshape(-1, width))
        spans, pieces = self.spans, self.pieces
        if window is not None:
            spans = [self._near_span(span, window) for span in spans]
            pieces = [self._near_piece(piece, window) for piece in pieces]
        parts = [_attend_span(q, keys, values, span) for span in spans]
        parts += [_attend_piece(q, keys, values, piece) for piece in pieces]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _near_span(self, span: _Span, window: int) -> _Span:
        if span.longest <= window:
            return span
        seen = self._near(span.first, span.last, span.longest, window)
        return span._replace(
            hidden=torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)[:, None]
        )

    def _near_piece(self, piece: _Piece, window: int) -> _Piece:
        if piece.stored <= window:
            return piece
        return piece._replace(visible=self._near(piece.first, piece.last, piece.stored, window))

    def _near(self, first: int, last: int, stored: int, window: int) -> Tensor:
        """Which of the tokens stored in its slot each token of the pass sees, [last - first, stored]."""
        places = torch.arange(stored, device=self.positions.device)
        return is_near(self.positions[first:last, None], places, window)


def _attend_span(q: Tensor, keys: Tensor, values: Tensor, span: _Span) -> Tensor:
    _, groups, capacity, width = keys.shape
    rows = span.last - span.first
    stored = slice(span.slot * groups, (span.slot + rows) * groups)
    k = keys.view(-1, capacity, width)[stored, : span.longest]  # [rows * G, longest, K]
    v = values.view(-1, capacity, width)[stored, : span.longest]
    q = q[span.first : span.last].reshape(rows * groups, -1, width) * width**-0.5  # [rows * G, H/G, K]
    scores = q @ k.mT
    if span.hidden is not None:
        scores.view(rows, -1, span.longest).add_(span.hidden)
    return (scores.softmax(-1) @ v).view(rows, -1)


def _attend_piece(q: Tensor, keys: Tensor, values: Tensor, piece: _Piece) -> Tensor:
    q = q[piece.first : piece.last].transpose(0, 1)[None]  # [1, H, T, K]
    k, v = (stored[piece.slot, None, :, : piece.stored] for stored in (keys, values))
    y = F.scaled_dot_product_attention(
        q, k, v, attn_mask=piece.visible, is_causal=piece.visible is None, enable_gqa=True
    )
    return y[0].transpose(0, 1).flatten(1)


def _parts(
    chunks: Sequence[NewTokens], lengths: Sequence[int], device: torch.device
) -> tuple[list[_Span], list[_Piece]]:
    """How attention is cut: spans of neighbouring slots of like length, and a piece for each longer chunk."""
    runs: list[list[int]] = []  # the lengths of neighbours, the new token counted
    starts: list[tuple[int, int]] = []  # their first token and slot
    pieces, first = [], 0
    for chunk in chunks:
        stored = lengths[chunk.slot] + len(chunk.ids)
        if len(chunk.ids) > 1:
            pieces.append(_piece(chunk, first, stored, device))
        elif runs and starts[-1][1] + len(runs[-1]) == chunk.slot and _is_like(runs[-1], stored):
            runs[-1].append(stored)
        else:
            runs.append([stored])
            starts.append((first, chunk.slot))
        first += len(chunk.ids)
    spans = []
    for run, (at, slot) in zip(runs, starts, strict=True):
        longest, hidden = max(run), None
        if min(run) < longest:
            behind = torch.arange(longest, device=device) >= torch.tensor(run, device=device)[:, None]
            hidden = torch.zeros(behind.shape, device=device).masked_fill_(behind, -torch.inf)[:, None]
        spans.append(_Span(at, at + len(run), slot, longest, hidden))
    return spans, pieces


def _is_like(run: Sequence[int], length: int) -> bool:
    """Is a row of `length` better added to a run of rows than attended to apart?"""
    wasted = (len(run) + 1) * max(length, *run) - sum(run) - length
    return wasted <= TOKENS_PER_SPAN + sum(run) // 4


def _piece(chunk: NewTokens, first: int, stored: int, device: torch.device) -> _Piece:
    size, visible = len(chunk.ids), None
    if stored > size:
        own = torch.arange(stored - size, stored, device=device)
        visible = torch.arange(stored, device=device) <= own[:, None]
    return _Piece(first, first + size, chunk.slot, stored, visible)
