"""One pass of the model over the new tokens of all requests: `model.py` again, without what only training needs.

Requests that go on by one token stand first, in the order of their slots; behind them pieces of prompts. All share each
matrix product, which for few tokens costs what it costs to read the weights. Attention is apart: neighbouring slots of
about the same length are one batched product, and each piece of a prompt attends by itself.

Two things differ from `model.py` and change nothing but rounding. Products with the same input are fused. And the two
coordinates that a rotation turns stand side by side, which makes it one complex product: q·k does not depend on the
order of the coordinates. `tests/generation/test_forward.py` compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind.generation.packed_weights import Product, pack
from minimind.generation.precision import fuse
from minimind.generation.slots import Slots
from minimind.model import Attention, Block, FeedForward, ModelConfig, Transformer, rotary_frequencies

__all__ = ["Forward", "NewTokens"]

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
class _Pass:
    """What all layers need to know of the new tokens."""

    rotation: Tensor
    places: Tensor
    spans: Sequence[_Span]
    pieces: Sequence[_Piece]


class Forward:
    """Computes the hidden states of new tokens, and stores their keys and values in `slots`."""

    def __init__(self, model: Transformer, slots: Slots) -> None:
        config = model.config
        self._slots = slots
        self._embedding = model.embed_tokens.weight.detach().float()
        self._output = pack(model.output_weight.detach().float())
        self._norm = _Norm(model.norm.weight.detach(), config.rms_norm_eps)
        self._layers = [_Layer(cast(Block, block), config) for block in model.layers]
        self._turns = _rotations(config, slots.capacity).to(self._embedding.device)

    def __call__(self, chunks: Sequence[NewTokens]) -> Tensor:
        """[N, D] hidden states of all new tokens, in order: chunks of one token first, by their slots.

        The caller counts the tokens as stored, with `Slots.append`.
        """
        lengths = self._slots.lengths
        starts = np.array([lengths[chunk.slot] for chunk in chunks])
        counts = np.array([len(chunk.ids) for chunk in chunks])
        owners = np.repeat(np.arange(len(chunks)), counts)
        positions = starts[owners] + np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]
        slots = np.array([chunk.slot for chunk in chunks])[owners]
        device = self._embedding.device
        tokens = torch.tensor([index for chunk in chunks for index in chunk.ids], device=device)
        around = _Pass(
            self._turns[torch.from_numpy(positions).to(device), None],
            self._slots.places(slots, positions),
            *_parts(chunks, lengths, device),
        )
        x = self._embedding[tokens]
        for index, layer in enumerate(self._layers):
            x = layer(x, self._slots.keys[index], self._slots.values[index], around)
        return self._norm(x)

    def logits(self, states: Tensor) -> Tensor:
        """[N, D] -> [N, V]."""
        return self._output(states)


class _Norm:
    """RMSNorm of float32 rows; the weight may have a row for each head."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight.float()
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        scale = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(self._eps).rsqrt_()
        return (x * scale.unsqueeze(-1)).mul_(self._weight)


class _Layer:
    """A block, its weights fused and its query and key coordinates reordered."""

    def __init__(self, block: Block, config: ModelConfig) -> None:
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._head_dim = config.head_dim
        self._before_attention = _Norm(block.input_layernorm.weight.detach(), config.rms_norm_eps)
        self._before_mlp = _Norm(block.post_attention_layernorm.weight.detach(), config.rms_norm_eps)
        attention, mlp = block.self_attn, block.mlp
        self._qkv = fuse([attention.q_proj, attention.k_proj, attention.v_proj])
        self._out = fuse([attention.o_proj])
        self._head_norm = _head_norm(attention, config)
        self._mlp = _feed_forward(mlp) if isinstance(mlp, FeedForward) else _mixture(mlp)

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, around: _Pass) -> Tensor:
        """x [N, D]; keys and values [slots, G, capacity, K] of this layer."""
        qkv = self._qkv(self._before_attention(x)).view(len(x), -1, self._head_dim)  # [N, H + 2G, K]
        qk = qkv[:, : self._heads + self._groups]
        if self._head_norm is not None:
            qk = self._head_norm(qk)
        # [..., K] as [2, K/2], the pairs (i, i + K/2) brought together.
        pairs = qk.unflatten(-1, (2, -1)).transpose(-1, -2).contiguous()
        qk = torch.view_as_real(torch.view_as_complex(pairs) * around.rotation).flatten(-2)
        q, k = qk[:, : self._heads], qk[:, self._heads :]
        keys.view(-1, self._head_dim).index_copy_(0, around.places, k.reshape(-1, self._head_dim))
        v = qkv[:, self._heads + self._groups :]
        values.view(-1, self._head_dim).index_copy_(0, around.places, v.reshape(-1, self._head_dim))
        x = x + self._out(_attend(q, keys, values, around))
        return x + self._mlp(self._before_mlp(x))


def _attend(q: Tensor, keys: Tensor, values: Tensor, around: _Pass) -> Tensor:
    """q [N, H, K] -> what each query gathers, [N, H * K]."""
    parts = [_attend_span(q, keys, values, span) for span in around.spans]
    parts += [_attend_piece(q, keys, values, piece) for piece in around.pieces]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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


def _head_norm(attention: Attention, config: ModelConfig) -> _Norm | None:
    if not config.qk_norm:
        return None
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    q, k = (cast(Tensor, norm.weight).detach() for norm in (attention.q_norm, attention.k_norm))
    return _Norm(torch.cat([q.expand(heads, -1), k.expand(groups, -1)]), config.rms_norm_eps)


def _feed_forward(mlp: FeedForward) -> Product:
    gate_up, down = fuse([mlp.gate_proj, mlp.up_proj]), fuse([mlp.down_proj])

    def product(x: Tensor) -> Tensor:
        gate, up = gate_up(x).chunk(2, dim=-1)
        return down(F.silu(gate).mul_(up))

    return product


def _mixture(mlp: nn.Module) -> Product:
    return lambda x: mlp(x[:, None])[0][:, 0]


def _rotations(config: ModelConfig, capacity: int) -> Tensor:
    """[capacity, K/2] complex: what each pair of coordinates is multiplied by at each position."""
    frequencies, scale = rotary_frequencies(config)
    angles = torch.arange(capacity)[:, None] * frequencies
    return torch.complex(angles.cos() * scale, angles.sin() * scale)
