"""The sliced, weighted cross entropy is torch's, loss and gradients, and never makes more than a slice of logits."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.objectives.watch import Watch
from torch import Tensor

from minimind.objectives.cross_entropy import SLICE_TOKENS, weighted_cross_entropy

WIDTH, VOCABULARY = 16, 50


def problem(tokens: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    return {
        "states": torch.randn(tokens, WIDTH, generator=generator).to(dtype).requires_grad_(),
        "output_weight": torch.randn(VOCABULARY, WIDTH, generator=generator).requires_grad_(),
        "targets": torch.randint(0, VOCABULARY, (tokens,), generator=generator),
        "weights": torch.rand(tokens, generator=generator),
    }


def by_hand(states: Tensor, output_weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """All logits at once, in float64."""
    losses = F.cross_entropy(states.double() @ output_weight.double().T, targets, reduction="none")
    return (losses * weights.double()).sum()


def loss_and_gradients(function: Callable[..., Tensor], inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    loss = function(**inputs)
    gradients = torch.autograd.grad(3.0 * loss, [inputs["states"], inputs["output_weight"]])
    return loss.detach(), *gradients


def assert_same(inputs: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    expected = loss_and_gradients(by_hand, inputs)
    for ours, theirs in zip(loss_and_gradients(weighted_cross_entropy, inputs), expected, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("tokens", [1, SLICE_TOKENS - 1, SLICE_TOKENS, SLICE_TOKENS + 1, 2 * SLICE_TOKENS + 7])
def test_loss_and_gradients_are_those_of_torch_across_slices(tokens: int) -> None:
    assert_same(problem(tokens))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_tokens_of_weight_zero_are_as_if_they_were_not_there(share: float) -> None:
    inputs = problem(600)
    inputs["weights"] = (torch.rand(600, generator=torch.Generator().manual_seed(0)) > share).float()
    assert 0 < inputs["weights"].sum() < 600
    assert_same(inputs)


def test_negative_and_large_weights_are_weights_like_others() -> None:
    inputs = problem(300)
    inputs["weights"] = 1000 * (inputs["weights"] - 0.5)
    assert_same(inputs, tolerance=1e-5)


def test_without_any_weight_loss_and_gradients_are_zero() -> None:
    inputs = problem(300)
    inputs["weights"] = torch.zeros(300)
    loss, *gradients = loss_and_gradients(weighted_cross_entropy, inputs)
    assert loss == 0
    for name, gradient in zip(("states", "output_weight"), gradients, strict=True):
        assert torch.equal(gradient, torch.zeros_like(inputs[name]))


def test_what_a_token_of_weight_zero_holds_cannot_matter() -> None:
    """A padded position may hold anything, NaN included: 0 times NaN would spoil a masked sum."""
    inputs = problem(10)
    inputs["weights"][3] = 0
    clean = loss_and_gradients(weighted_cross_entropy, inputs)
    states = inputs["states"].detach().clone()
    states[3] = torch.nan
    spoilt = loss_and_gradients(weighted_cross_entropy, inputs | {"states": states.requires_grad_()})
    assert all(torch.equal(a, b) for a, b in zip(clean, spoilt, strict=True))


def test_bfloat16_states_give_a_close_loss_and_gradients_of_their_own_type() -> None:
    inputs = problem(300, torch.bfloat16)
    loss, states_gradient, matrix_gradient = loss_and_gradients(weighted_cross_entropy, inputs)
    assert (loss.dtype, states_gradient.dtype, matrix_gradient.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert_same(inputs, tolerance=0.02)


def test_under_autocast_the_sum_is_not_rounded() -> None:
    """Autocast would make a product of two vectors in bfloat16, and report a loss of three digits."""
    inputs = problem(300, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = weighted_cross_entropy(**inputs)
    torch.testing.assert_close(inside, weighted_cross_entropy(**inputs), rtol=1e-6, atol=0)


def test_what_is_frozen_gets_no_gradient_and_changes_none() -> None:
    inputs = problem(300)
    _, states_gradient, matrix_gradient = loss_and_gradients(weighted_cross_entropy, inputs)
    for frozen, free, expected in (
        ("output_weight", "states", states_gradient),
        ("states", "output_weight", matrix_gradient),
    ):
        loss = weighted_cross_entropy(**(inputs | {frozen: inputs[frozen].detach()}))
        assert torch.equal(torch.autograd.grad(3.0 * loss, inputs[free])[0], expected)


def test_no_more_than_a_slice_of_logits_is_ever_held() -> None:
    inputs = problem(4 * SLICE_TOKENS)
    with Watch() as watch:
        loss_and_gradients(weighted_cross_entropy, inputs)
    assert watch.largest <= SLICE_TOKENS * max(VOCABULARY, 4 * WIDTH)
    with Watch() as watch:
        by_hand(**inputs)
    assert watch.largest == 4 * SLICE_TOKENS * VOCABULARY


def test_measuring_without_learning_costs_one_product_a_slice() -> None:
    inputs = problem(4 * SLICE_TOKENS)
    with torch.no_grad(), Watch() as watch:
        loss = weighted_cross_entropy(**inputs)
    assert watch.products == 4 and not loss.requires_grad
    assert torch.equal(loss, weighted_cross_entropy(**inputs).detach())
