"""Weights as they are served: float32, bfloat16, or int8 with a scale for each row.

Only the products of a block change. Embedding and output matrix stay float32, and so does everything between products:
that part decides quality, and costs little. int8 keeps of each row of a weight the largest magnitude, and of each
number how many 127ths of that it is; the product multiplies bfloat16 activations by whole numbers and scales the sum.
`set_precision` changes a model in place, so that an evaluation measures what a server serves; `fuse` makes one product
of those that read the same input, packed (`packed_weights.py`).
"""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind.errors import ConfigError
from minimind.generation.packed_weights import Product, pack
from minimind.lora import LoraLinear
from minimind.model import Transformer

__all__ = ["PRECISIONS", "Bfloat16Linear", "Int8Linear", "Precision", "fuse", "set_precision"]

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


class Int8Linear(nn.Module):
    """y = (x · q) * scale: q [out, in] int8, scale [out] float32, the largest magnitude of each row over 127."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, layer: nn.Linear) -> "Int8Linear":
        weight = layer.weight.detach().float()
        # A row of zeros has any scale.
        scale = weight.abs().amax(1).clamp_min(1e-12) / 127
        whole = (weight / scale[:, None]).round().to(torch.int8)
        return cls(whole, scale, None if layer.bias is None else layer.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        y = torch.ops.aten._weight_int8pack_mm(x.flatten(0, -2).to(torch.bfloat16), self.weight, self.scale.bfloat16())
        y = y.view(*x.shape[:-1], -1).to(x.dtype)
        return y if self.bias is None else y + self.bias


class Bfloat16Linear(nn.Module):
    """y = x · w in bfloat16, summed in float32."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().bfloat16())
        self.register_buffer("bias", None if bias is None else bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.bfloat16(), self.weight, self.bias).to(x.dtype)


def set_precision(model: Transformer, precision: str) -> None:
    """Replace the linear layers of all blocks, in place. Errors: ConfigError for a name that is none of PRECISIONS"""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if precision == "fp32":
        return
    for name, layer in [*model.layers.named_modules()]:
        # A router is a few rows, and a token near its border would go to another expert.
        if isinstance(layer, nn.Linear) and not name.endswith("mlp.gate"):
            parent, _, last = name.rpartition(".")
            other = Int8Linear.of(layer) if precision == "int8" else Bfloat16Linear(layer.weight, layer.bias)
            setattr(model.layers.get_submodule(parent), last, other)


def fuse(layers: Sequence[nn.Module]) -> Product:
    """One product in place of several of the same kind and input, their outputs side by side; adapters are merged."""
    first = layers[0]
    weights = (layer.merged_weight() if isinstance(layer, LoraLinear) else layer.weight for layer in layers)
    weight = torch.cat([cast(Tensor, part).detach() for part in weights])
    biases = [cast(Tensor | None, layer.bias) for layer in layers]
    bias = None if biases[0] is None else torch.cat([cast(Tensor, part).detach() for part in biases])
    if isinstance(first, Int8Linear):
        return Int8Linear(weight, torch.cat([cast(Tensor, layer.scale) for layer in layers]), bias)
    if isinstance(first, Bfloat16Linear):
        product = pack(weight, bias)
        return lambda x: product(x.bfloat16()).float()
    return pack(weight, bias)
