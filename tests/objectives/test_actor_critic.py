"""PPO is its formula, values and gradients; the critic costs no second pass and starts with no opinion."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from minimind.errors import ConfigError
from minimind.interfaces import Loss, RolloutBatch
from minimind.model import Transformer
from minimind.objectives.actor_critic import ActorCritic, ClippedActorCritic, values
from minimind.objectives.logprobs import batch_logprobs
from minimind.objectives.policy import LOSSES, ClippedPolicy

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}


@pytest.fixture
def model(make_model: Callable[..., Transformer]) -> ActorCritic:
    return with_opinion(make_model(0))


def with_opinion(policy: Transformer) -> ActorCritic:
    model = ActorCritic(policy)
    with torch.no_grad():
        model.value_head.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(7))
        model.value_head.bias.fill_(0.3)
    return model


def rollouts(model: ActorCritic, drift: float = 0.3) -> RolloutBatch:
    """Of a policy and a critic that were others by `drift`."""
    generator = torch.Generator().manual_seed(2)
    tokens, targets = torch.randint(0, 300, (2, 3, 11), generator=generator)
    weights = (torch.rand(3, 11, generator=generator) > 0.4).float()
    noise = drift * torch.randn(5, 3, 11, generator=generator)
    nothing = torch.zeros(3, 11)
    batch = RolloutBatch(
        tokens=tokens, targets=targets, weights=weights, num_tokens=33, advantages=nothing, old_logprobs=nothing
    )
    with torch.no_grad():
        logprobs, _, expected, _ = model(batch)
    return replace(
        batch,
        advantages=noise[0] / max(drift, 0.1),
        old_logprobs=logprobs + noise[1],
        reference_logprobs=logprobs + noise[2],
        old_values=expected + noise[3],
        returns=expected + 2 * noise[4],
    )


def gradients(loss: Loss, model: ActorCritic) -> dict[str, Tensor]:
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss.total, list(model.parameters())), strict=True))


def by_hand(model: ActorCritic, batch: RolloutBatch) -> Tensor:
    """One token after the other, clip 0.2, value clip 0.1, coefficients 0.5 and 0.3."""
    states = model.policy.hidden_states(batch.tokens).states
    logprobs = model.policy.logits(states).log_softmax(-1).gather(-1, batch.targets[..., None]).squeeze(-1)
    expected = model.value_head(states).squeeze(-1)
    assert batch.old_values is not None and batch.returns is not None and batch.reference_logprobs is not None
    total = torch.zeros(())
    for row, at in batch.weights.nonzero().tolist():
        ratio, advantage = (logprobs - batch.old_logprobs)[row, at].exp(), batch.advantages[row, at]
        policy = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        old, goal = batch.old_values[row, at], batch.returns[row, at]
        near = torch.minimum(torch.maximum(expected[row, at], old - 0.1), old + 0.1)
        value = torch.maximum((expected[row, at] - goal) ** 2, (near - goal) ** 2)
        difference = (batch.reference_logprobs - logprobs)[row, at]
        total = total + policy + 0.5 * value + 0.3 * ratio * (difference.exp() - 1 - difference)
    return total


def test_loss_and_gradients_are_the_formula(model: ActorCritic) -> None:
    batch = rollouts(model)
    loss = ClippedActorCritic(0.2, 0.1, value_coefficient=0.5, kl_coefficient=0.3)(model, batch)
    expected = by_hand(model, batch)
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-5)
    ours = gradients(loss, model)
    for name, gradient in gradients(Loss(expected), model).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())


def test_without_the_critics_share_it_is_the_clipped_policy(model: ActorCritic) -> None:
    batch = rollouts(model)
    ours = ClippedActorCritic(0.2, value_coefficient=0.0, kl_coefficient=0.1)(model, batch)
    theirs = ClippedPolicy(LOSSES["dapo"], kl_coefficient=0.1)(model.policy, batch)
    assert torch.equal(ours.total, theirs.total)
    shared = ("loss", "kl", "approx_kl", "ratio", "clip_fraction", "entropy")
    assert all(torch.equal(ours.means[name].total, theirs.means[name].total) for name in shared)


@pytest.mark.parametrize("changes", [{}, EXPERTS])
@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_the_critic_changes_nothing_of_what_the_policy_says_and_begins_at_zero(
    make_model: Callable[..., Transformer], changes: dict[str, Any], is_bfloat16: bool
) -> None:
    model = ActorCritic(make_model(0, **changes))
    batch = rollouts(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
        output = model(batch, temperature=0.7, num_ids=299)
        with torch.no_grad():
            alone = batch_logprobs(model.policy, batch, temperature=0.7, num_ids=299)
        expected = values(model, batch)
    assert torch.equal(output.logprobs.detach(), alone)
    assert not expected.any() and expected.dtype == torch.float32 and not expected.requires_grad


def test_one_pass_gives_logprobs_and_values(model: ActorCritic) -> None:
    passes: list[int] = []
    hook = model.policy.norm.register_forward_hook(lambda module, given, states: passes.append(1))
    ClippedActorCritic()(model, rollouts(model))
    hook.remove()
    # The first pass made the batch.
    assert len(passes) == 2


@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_values_are_those_of_weighted_targets_with_all_their_digits(model: ActorCritic, is_bfloat16: bool) -> None:
    batch = rollouts(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16), torch.no_grad():
        expected = values(model, batch)
        states = model.policy.hidden_states(batch.tokens).states.float()
    by_head = (states @ model.value_head.weight.T + model.value_head.bias).squeeze(-1)
    torch.testing.assert_close(expected, by_head * batch.weights, rtol=1e-5, atol=1e-5)


def test_the_policy_learns_from_the_critics_mistakes_too(model: ActorCritic) -> None:
    """They share the blocks: that is what one module and one forward pass mean."""
    batch = rollouts(model)
    batch = replace(batch, advantages=torch.zeros(3, 11))
    found = gradients(ClippedActorCritic()(model, batch), model)
    assert found["value_head.weight"].any() and found["policy.layers.0.mlp.up_proj.weight"].any()


def test_at_the_first_update_nothing_is_clipped_and_nothing_has_moved(model: ActorCritic) -> None:
    batch = rollouts(model, drift=0.0)
    means = ClippedActorCritic()(model, batch).means
    assert means["ratio"].total == means["ratio"].weight == batch.weights.sum()
    assert all(means[name].total == 0 for name in ("clip_fraction", "approx_kl", "kl", "value_loss"))


def test_the_kl_that_stops_early_is_that_of_the_old_policy_to_the_new(model: ActorCritic) -> None:
    batch = rollouts(model)
    difference = (batch_logprobs(model.policy, batch) - batch.old_logprobs)[batch.weights != 0]
    expected = (difference.exp() - 1 - difference).mean().item()
    mean = ClippedActorCritic()(model, batch).means["approx_kl"]
    assert (mean.total / mean.weight).item() == pytest.approx(expected, rel=1e-5) and expected > 0


def test_explained_variance_comes_from_figures_that_add_up(model: ActorCritic) -> None:
    batch = rollouts(model)
    means = ClippedActorCritic()(model, batch).means
    metrics = {name: (mean.total / mean.weight).item() for name, mean in means.items()}
    assert batch.returns is not None
    keep = batch.weights != 0
    returns, expected = batch.returns[keep], values(model, batch)[keep]
    by_definition = 1 - (returns - expected).square().mean() / returns.var(correction=0)
    explained = 1 - metrics["value_error"] / (metrics["returns_squared"] - metrics["returns"] ** 2)
    assert explained == pytest.approx(by_definition.item(), rel=1e-4)


@pytest.mark.parametrize("changes", [{}, EXPERTS])
def test_without_weight_there_is_neither_loss_nor_gradient_and_what_stands_there_may_be_anything(
    make_model: Callable[..., Transformer], changes: dict[str, Any]
) -> None:
    model = with_opinion(make_model(0, **changes))
    names = ("advantages", "old_logprobs", "reference_logprobs", "old_values", "returns")
    nothing = {name: torch.full((3, 11), torch.nan) for name in names}
    loss = ClippedActorCritic(kl_coefficient=0.1)(
        model, replace(rollouts(model), weights=torch.zeros(3, 11), **nothing)
    )
    assert all(mean.total == 0 and mean.weight == 0 for mean in loss.means.values())
    assert not any(gradient.any() for gradient in gradients(loss, model).values())


def test_a_mixture_is_balanced_on_request(make_model: Callable[..., Transformer]) -> None:
    model = with_opinion(make_model(0, **EXPERTS))
    batch = rollouts(model)
    plain, balanced = (ClippedActorCritic(router_coefficient=c)(model, batch) for c in (0.0, 0.5))
    torch.testing.assert_close(
        balanced.total - plain.total, 0.5 * balanced.means["router_balance"].total, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "settings", [{"clip": 1.1}, {"value_clip": -0.1}, {"value_coefficient": -1.0}, {"temperature": 0.0}]
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"clip is .*; expected 0 to 1, three of at least 0, and above 0"):
        ClippedActorCritic(**settings)
