"""One pass over the new tokens of all requests with weights that stay: `model.py` again, for speed alone.

All tokens share each matrix product, which for few tokens costs what it costs to read the weights. Two things differ
from `model.py` and change nothing but rounding. Products with the same input are fused. And the two coordinates that a
rotation turns stand side by side, which makes it one complex product: q·k does not depend on the order of the
coordinates. `tests/generation/test_forward.py` compares the two, and `live_forward.py` is the same pass through the
model itself. What it is worth stands in docs/decisions/0012-a-second-forward-pass-for-serving.md.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind.generation.packed_weights import Product, pack
from minimind.generation.precision import fuse
from minimind.generation.slot_attention import NewTokens, SlotPass
from minimind.generation.slots import Slots
from minimind.model import Attention, Block, FeedForward, ModelConfig, Transformer, rotary_frequencies

__all__ = ["Forward"]


class Forward:
    """Computes the hidden states of new tokens, and stores their keys and values in `slots`."""

    def __init__(self, model: Transformer, slots: Slots) -> None:
        config = model.config
        assert type(config) is ModelConfig, (
            f"{config} is another family's; `fastest_forward` takes the model's own pass"
        )
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
        around = SlotPass.of(chunks, self._slots)
        rotation = self._turns[around.positions, None]
        x = self._embedding[around.ids]
        for index, layer in enumerate(self._layers):
            x = layer(x, self._slots.keys[index], self._slots.values[index], around, rotation)
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

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, around: SlotPass, rotation: Tensor) -> Tensor:
        """x [N, D] -> [N, D]; keys and values [slots, G, capacity, K] of this layer; rotation [N, 1, K/2] complex."""
        qkv = self._qkv(self._before_attention(x)).view(len(x), -1, self._head_dim)  # [N, H + 2G, K]
        qk = qkv[:, : self._heads + self._groups]
        if self._head_norm is not None:
            qk = self._head_norm(qk)
        # [..., K] as [2, K/2], the pairs (i, i + K/2) brought together.
        pairs = qk.unflatten(-1, (2, -1)).transpose(-1, -2).contiguous()
        qk = torch.view_as_real(torch.view_as_complex(pairs) * rotation).flatten(-2)
        q, k = qk[:, : self._heads], qk[:, self._heads :]
        v = qkv[:, self._heads + self._groups :]
        x = x + self._out(around.attend(q, k, v, keys, values))
        return x + self._mlp(self._before_mlp(x))


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
