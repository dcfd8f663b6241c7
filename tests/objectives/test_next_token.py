"""Next-token prediction is a sum over weighted tokens; the balance of experts is one over documents."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import EXPERTS, random_batch, random_model
from torch import Tensor

from minimind.interfaces import Batch
from minimind.objectives.next_token import NextToken, balance_experts


@pytest.mark.parametrize("lengths", [None, (5, 7, 3, 9)])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}])
def test_the_loss_of_a_dense_model_is_the_weighted_sum_of_cross_entropies(
    changes: dict[str, Any], lengths: tuple[int, ...] | None
) -> None:
    model, batch = random_model(**changes), random_batch(lengths)
    loss = NextToken()(model, batch)
    logits = model.logits(model.hidden_states(batch.tokens, lengths).states).flatten(0, 1)
    expected = F.cross_entropy(logits, batch.targets.flatten(), reduction="none") @ batch.weights.flatten()
    torch.testing.assert_close(loss.total, expected, rtol=1e-6, atol=0)
    assert set(loss.means) == {"loss"}
    assert loss.means["loss"].total == loss.total.detach() and loss.means["loss"].weight == batch.weights.sum()


def test_a_mixture_adds_its_coefficient_times_the_balance() -> None:
    model, batch = random_model(**EXPERTS), random_batch()
    plain, balanced = NextToken(0.0)(model, batch), NextToken(0.5)(model, batch)
    balance = balanced.means["router_balance"]
    torch.testing.assert_close(balanced.total - plain.total, 0.5 * balance.total, rtol=1e-4, atol=1e-4)
    assert balanced.means["loss"].total == plain.total.detach(), "the loss to report is that of the language alone"
    assert balance.weight == batch.weights.sum()


@pytest.mark.parametrize("chosen", [1, 2])
def test_the_balance_is_the_formula_summed_over_documents(chosen: int) -> None:
    batch = random_batch()
    router_logits = tuple(torch.randn(2, 24, 4, generator=torch.Generator().manual_seed(2)))
    expected = 0.0
    for logits in router_logits:
        parts = zip(logits.split(batch.lengths or ()), batch.weights.flatten().split(batch.lengths or ()), strict=True)
        for document, weights in parts:
            probabilities = document.softmax(-1)
            picked = torch.stack([(row >= row.sort().values[-chosen]).float() for row in probabilities])
            share = weights @ picked / chosen / weights.sum()
            mean = weights @ probabilities / weights.sum()
            expected += float(weights.sum() * 4 * (share * mean).sum()) / len(router_logits)
    assert balance_experts(router_logits, batch, chosen).item() == pytest.approx(expected, rel=1e-5)


def one_document(weights: Tensor) -> Batch:
    tokens = torch.zeros(1, len(weights), dtype=torch.int64)
    return Batch(tokens=tokens, targets=tokens, weights=weights[None], num_tokens=len(weights))


def test_equal_use_of_all_experts_has_balance_one_and_use_of_a_single_one_as_many_as_there_are() -> None:
    """Each of four tokens is all but certain of another expert; then all of the same."""
    even, single = 50 * torch.eye(4), 50 * torch.eye(4)[[2, 2, 2, 2]]
    batch = one_document(torch.ones(4))
    assert balance_experts((even,), batch, 1).item() / 4 == pytest.approx(1.0)
    assert balance_experts((single,), batch, 1).item() / 4 == pytest.approx(4.0)
    pair = (50 * torch.eye(4)[[1]] + 49 * torch.eye(4)[[3]]).expand(4, 4)
    assert 1.5 < balance_experts((pair,), batch, 2).item() / 4 <= 2.0


def test_tokens_without_weight_do_not_count_in_the_balance() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    other = torch.cat([logits[:4], -logits[4:]])
    batch = one_document(torch.tensor([1.0, 0.5, 1.0, 1.0, 0.0, 0.0]))
    assert torch.equal(balance_experts((logits,), batch, 2), balance_experts((other,), batch, 2))


def test_a_document_without_weight_gives_neither_balance_nor_gradient_nor_nan() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(3), requires_grad=True)
    balance = balance_experts((logits,), one_document(torch.zeros(6)), 2)
    (gradient,) = torch.autograd.grad(balance, logits)
    assert balance == 0 and torch.equal(gradient, torch.zeros(6, 4))


def test_descending_the_balance_evens_out_the_experts() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(64, 4, generator=generator) + torch.tensor([2.0, 0.0, 0.0, 0.0])).requires_grad_()
    batch = one_document(torch.ones(64))
    before = balance_experts((logits,), batch, 1)
    for _ in range(50):
        (gradient,) = torch.autograd.grad(balance_experts((logits,), batch, 1), logits)
        logits = (logits - gradient).detach().requires_grad_()
    after = balance_experts((logits,), batch, 1)
    assert before / 64 > 1.5 and after / 64 < 1.1
