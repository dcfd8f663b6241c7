"""Weights in fewer bits give nearly the same products; fused ones give the same."""

import copy

import pytest
import torch
from torch import nn

from minimind.errors import ConfigError
from minimind.generation.precision import PRECISIONS, Bfloat16Linear, Int8Linear, fuse, set_precision
from minimind.model import Transformer


@torch.no_grad()
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.0), ("bf16", 0.01), ("int8", 0.02)])
def test_a_model_in_fewer_bits_gives_nearly_the_same_states(
    model: Transformer, precision: str, tolerance: float
) -> None:
    tokens = torch.arange(40)[None]
    expected = model.hidden_states(tokens).states
    set_precision(model, precision)
    found = model.hidden_states(tokens).states
    assert (found - expected).norm() <= tolerance * 3 * expected.norm()
    kinds = {type(layer) for layer in model.modules() if hasattr(layer, "bias")}
    assert kinds <= {"fp32": {nn.Linear}, "bf16": {Bfloat16Linear}, "int8": {Int8Linear}}[precision]


def test_int8_keeps_each_number_to_half_a_step_of_its_row() -> None:
    layer = nn.Linear(64, 48)
    with torch.no_grad():
        layer.weight[3] = 0
        layer.weight[5] *= 1000
    quantised = Int8Linear.of(layer)
    error = (quantised.weight * quantised.scale[:, None] - layer.weight).abs()
    assert (error <= quantised.scale[:, None] * 0.5001).all()
    assert quantised.weight[3].eq(0).all() and quantised.weight[5].abs().max() == 127


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 32, 100])
@pytest.mark.parametrize("has_bias", [True, False])
def test_fused_products_are_the_products(rows: int, has_bias: bool) -> None:
    layers = [nn.Linear(64, out, has_bias) for out in (96, 32, 33)]
    x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([layer(x) for layer in layers], dim=1)
    torch.testing.assert_close(fuse(layers)(x), expected, atol=1e-6, rtol=1e-6)
    for kind in (Int8Linear.of, lambda layer: Bfloat16Linear(layer.weight, layer.bias)):
        others = [kind(copy.deepcopy(layer)) for layer in layers]
        apart = torch.cat([layer(x) for layer in others], dim=1)
        torch.testing.assert_close(fuse(others)(x), apart, atol=0.02, rtol=0.02)


def test_an_unknown_precision_is_named(model: Transformer) -> None:
    with pytest.raises(ConfigError, match="precision is 'int4'; expected one of fp32, bf16, int8"):
        set_precision(model, "int4")
    assert PRECISIONS == ("fp32", "bf16", "int8")
