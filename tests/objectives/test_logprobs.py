"""Log-probabilities are torch's, gradients too; a slice of logits is all that is held; a gradient changes no bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.objectives.watch import Watch
from torch import Tensor

from minimind.interfaces import Batch
from minimind.model import Transformer
from minimind.objectives.cross_entropy import SLICE_TOKENS
from minimind.objectives.logprobs import batch_logprobs, token_logprobs, token_logprobs_and_entropy

WIDTH, VOCABULARY = 16, 50


def problem(tokens: int, dtype: torch.dtype = torch.float32, num_ids: int = VOCABULARY) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    return {
        "states": torch.randn(tokens, WIDTH, generator=generator).to(dtype).requires_grad_(),
        "output_weight": torch.randn(VOCABULARY, WIDTH, generator=generator).requires_grad_(),
        "targets": torch.randint(0, num_ids, (tokens,), generator=generator),
    }


def by_hand(
    states: Tensor, output_weight: Tensor, targets: Tensor, temperature: float = 1.0, num_ids: int | None = None
) -> Tensor:
    """All logits at once, in float64."""
    logits = (states.double() @ output_weight.double().T)[:, :num_ids] / temperature
    return logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)


def values_and_gradients(logprobs: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Of a sum in which each token counts something else."""
    factors = torch.linspace(-1, 2, len(logprobs), dtype=logprobs.dtype)
    gradients = torch.autograd.grad((logprobs * factors).sum(), [inputs["states"], inputs["output_weight"]])
    return logprobs.detach(), *gradients


def assert_same(inputs: dict[str, Tensor], tolerance: float = 1e-5, **settings: Any) -> None:
    expected = values_and_gradients(by_hand(**inputs, **settings), inputs)
    for ours, theirs in zip(values_and_gradients(token_logprobs(**inputs, **settings), inputs), expected, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("tokens", [1, SLICE_TOKENS - 1, SLICE_TOKENS, SLICE_TOKENS + 1, 2 * SLICE_TOKENS + 7])
def test_values_and_gradients_are_those_of_torch_across_slices(tokens: int) -> None:
    assert_same(problem(tokens))


@pytest.mark.parametrize("temperature", [0.3, 1.7])
@pytest.mark.parametrize("num_ids", [None, 31])
def test_temperature_and_the_tokenizers_ids_decide_what_is_sampled_from(
    temperature: float, num_ids: int | None
) -> None:
    assert_same(problem(300, num_ids=num_ids or VOCABULARY), temperature=temperature, num_ids=num_ids)


def test_rows_that_no_id_stands_for_get_no_gradient() -> None:
    inputs = problem(20, num_ids=31)
    logprobs = token_logprobs(**inputs, num_ids=31)
    (gradient,) = torch.autograd.grad(logprobs.sum(), inputs["output_weight"])
    assert gradient[:31].any() and not gradient[31:].any()


def test_the_entropy_is_that_of_the_distribution_and_has_no_gradient() -> None:
    inputs = problem(300, num_ids=31)
    logprobs, entropy = token_logprobs_and_entropy(**inputs, temperature=0.7, num_ids=31)
    logits = (inputs["states"] @ inputs["output_weight"].T)[:, :31] / 0.7
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy().detach())
    assert logprobs.requires_grad and not entropy.requires_grad
    assert torch.equal(logprobs, token_logprobs(**inputs, temperature=0.7, num_ids=31))


def test_bfloat16_states_give_close_float32_figures() -> None:
    inputs = problem(300, torch.bfloat16)
    logprobs, states_gradient, matrix_gradient = values_and_gradients(token_logprobs(**inputs), inputs)
    assert (logprobs.dtype, states_gradient.dtype, matrix_gradient.dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.float32,
    )
    assert_same(inputs, tolerance=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_no_bit(dtype: torch.dtype) -> None:
    """The products take the type of the states; and the backward pass, outside autocast, makes the same logits."""
    inputs = problem(300, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        inside = token_logprobs(**inputs)
    expected = values_and_gradients(token_logprobs(**inputs), inputs)
    assert all(map(torch.equal, values_and_gradients(inside, inputs), expected))


def test_what_is_frozen_gets_no_gradient_and_changes_none() -> None:
    inputs = problem(300)
    _, states_gradient, matrix_gradient = values_and_gradients(token_logprobs(**inputs), inputs)
    factors = torch.linspace(-1, 2, 300)
    for frozen, free, expected in (
        ("output_weight", "states", states_gradient),
        ("states", "output_weight", matrix_gradient),
    ):
        logprobs = token_logprobs(**(inputs | {frozen: inputs[frozen].detach()}))
        assert torch.equal(torch.autograd.grad((logprobs * factors).sum(), inputs[free])[0], expected)


def test_no_tokens_give_no_figures_and_a_gradient_of_zero() -> None:
    inputs = problem(0)
    logprobs, states_gradient, matrix_gradient = values_and_gradients(token_logprobs(**inputs), inputs)
    assert (len(logprobs), states_gradient.shape) == (0, (0, WIDTH)) and not matrix_gradient.any()


def test_no_more_than_a_slice_of_logits_is_held_in_either_pass() -> None:
    inputs = problem(4 * SLICE_TOKENS)
    with Watch() as watch:
        values_and_gradients(token_logprobs(**inputs), inputs)
    assert watch.largest <= SLICE_TOKENS * max(VOCABULARY, 4 * WIDTH)
    with Watch() as watch:
        by_hand(**inputs)
    assert watch.largest == 4 * SLICE_TOKENS * VOCABULARY


def random_batch(lengths: tuple[int, ...] | None = None) -> Batch:
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(0, 300, (2, 3, 12), generator=generator)
    weights = torch.rand(3, 12, generator=generator) * (torch.rand(3, 12, generator=generator) > 0.4)
    weights[1] = 0
    return Batch(tokens=tokens, targets=targets, weights=weights, lengths=lengths, num_tokens=36)


def test_a_batch_has_a_figure_at_each_weighted_target_and_zero_elsewhere(
    make_model: Callable[..., Transformer],
) -> None:
    model, batch = make_model(), random_batch()
    expected = model(batch.tokens).log_softmax(-1).gather(-1, batch.targets[..., None]).squeeze(-1)
    torch.testing.assert_close(
        batch_logprobs(model, batch), torch.where(batch.weights != 0, expected, 0.0), rtol=1e-5, atol=1e-5
    )


def test_targets_without_weight_cost_no_product(make_model: Callable[..., Transformer]) -> None:
    model, batch = make_model(), random_batch()
    keep = batch.weights != 0
    with torch.no_grad(), Watch() as whole:
        batch_logprobs(model, batch)
    with torch.no_grad(), Watch() as states:
        hidden = model.hidden_states(batch.tokens).states[keep]
    with torch.no_grad(), Watch() as head:
        token_logprobs(hidden, model.output_weight, batch.targets[keep])
    assert whole.products == states.products + head.products and head.products == 1


@pytest.mark.parametrize("changes", [{}, {"num_experts": 4, "num_experts_per_tok": 2}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize("lengths", [None, (5, 7, 10, 2, 12)])
@pytest.mark.parametrize("is_bfloat16", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_call_with_gradient_gives_the_bits_of_one_without(
    make_model: Callable[..., Transformer],
    changes: dict[str, Any],
    lengths: tuple[int, ...] | None,
    is_bfloat16: bool,
    recompute: bool,
) -> None:
    """So the ratio of a policy to itself is exactly 1."""
    model, batch = make_model(**changes), random_batch(lengths)
    model.recompute_blocks = recompute
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
        learning = batch_logprobs(model, batch, temperature=0.8, num_ids=299)
        with torch.no_grad():
            looking = batch_logprobs(model, batch, temperature=0.8, num_ids=299)
    assert learning.requires_grad and not looking.requires_grad
    assert learning.dtype == torch.float32 and torch.equal(learning, looking)
