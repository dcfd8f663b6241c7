"""Packed weights give the same products up to rounding, for as long as they are asked for and no longer."""

from collections.abc import Iterator

import psutil
import pytest
import torch
from tests.tiny import EXPERTS, random_model
from torch import nn

from minimind.generation.packed_weights import _rounded, pack, packed
from minimind.model import Transformer

TOKENS = torch.arange(60).view(2, 30)


def changed(model: Transformer) -> list[nn.Module]:
    return [module for module in model.modules() if "forward" in vars(module)]


@pytest.fixture(params=[{}, EXPERTS], ids=["dense", "mixture"])
def model(request: pytest.FixtureRequest) -> Iterator[Transformer]:
    with torch.no_grad():
        yield random_model(attention_bias=True, **request.param)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1,), (3,), (5,), (32,), (100,), (2, 5), (3, 1, 7), (0,), ()])
@pytest.mark.parametrize("has_bias", [True, False])
def test_packed_products_are_the_products(shape: tuple[int, ...], has_bias: bool) -> None:
    layer = nn.Linear(64, 96, has_bias)
    x = torch.randn(*shape, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pack(layer.weight, layer.bias)(x), layer(x), atol=1e-6, rtol=1e-6)


@torch.inference_mode()
def test_products_of_every_number_of_rows_take_little_memory() -> None:
    """oneDNN keeps what it compiles for each, most of a megabyte."""
    product, process = pack(torch.randn(104, 40)), psutil.Process()
    product(torch.randn(2, 40))
    before = process.memory_info().rss
    for rows in range(1, 321):
        product(torch.randn(rows, 40))
    assert process.memory_info().rss - before < 64 * 2**20


def test_rows_are_rounded_to_few_numbers_that_waste_little() -> None:
    assert [_rounded(rows) for rows in (1, 2, 3, 4, 5, 7, 9, 13, 17, 33, 65, 129, 257)] == [
        1, 2, 3, 4, 6, 8, 12, 16, 24, 48, 96, 160, 288
    ]  # fmt: skip
    assert len({_rounded(rows) for rows in range(1, 289)}) == 19
    assert len({_rounded(rows) for rows in range(1, 65537)}) < 90
    assert all(rows <= _rounded(rows) <= rows * 1.5 for rows in range(1, 65537))
    assert all(_rounded(rows) <= rows * 1.25 for rows in range(128, 65537))


def test_a_model_computes_the_same_with_packed_weights_and_is_itself_again_afterwards(model: Transformer) -> None:
    expected = model.hidden_states(TOKENS).states
    with packed(model):
        assert len(changed(model)) > 10
        found = model.hidden_states(TOKENS).states
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert changed(model) == [] and model.hidden_states(TOKENS).states.equal(expected)


def test_an_error_inside_leaves_the_model_as_it_was(model: Transformer) -> None:
    with pytest.raises(KeyError), packed(model):
        raise KeyError
    assert changed(model) == []


def test_weights_that_training_changed_are_packed_anew(model: Transformer) -> None:
    with packed(model):
        before = model.hidden_states(TOKENS).states
    for parameter in model.layers.parameters():
        parameter.mul_(0.5)
    with packed(model):
        found = model.hidden_states(TOKENS).states
    torch.testing.assert_close(found, model.hidden_states(TOKENS).states, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, before, atol=1e-2)


def test_under_autocast_products_are_those_of_its_type(model: Transformer) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        expected = model.hidden_states(TOKENS[:, :1]).states
        with packed(model):
            found = model.hidden_states(TOKENS[:, :1]).states
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found.float(), expected.float(), atol=0.05, rtol=0.05)


def test_inside_another_nothing_is_packed_again(model: Transformer) -> None:
    with packed(model):
        products = [vars(module)["forward"] for module in changed(model)]
        with packed(model):
            assert [vars(module)["forward"] for module in changed(model)] == products
        assert [vars(module)["forward"] for module in changed(model)] == products


# Loading its compiler, torch warns of its own parts.
@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_are_left_alone(model: Transformer) -> None:
    model.layers[0].compile()
    with packed(model):
        assert changed(model) == []
