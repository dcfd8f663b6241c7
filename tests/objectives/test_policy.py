"""Policy losses are TRL's, gradients too, on the same tiny Qwen3; what must be exactly zero is exactly zero."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minimind.errors import ConfigError
from minimind.interfaces import Loss, RolloutBatch
from minimind.model import Transformer
from minimind.objectives.logprobs import batch_logprobs
from minimind.objectives.policy import LOSSES, ClippedPolicy, clipped_gain, group_advantages, k3

# What TRL and its dependencies warn of is none of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = [name for name, loss in LOSSES.items() if loss.advantages is not None]
NAN = torch.nan
PROMPT, TEMPERATURE, MAX_TOKENS = 4, 0.7, 9
# Sampled tokens of each rollout; places among them that a tool wrote.
LENGTHS, TOOL_PLACES = [9, 3, 6, 1], {0: [2, 3], 2: [1]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}


def rollouts(model: Transformer, loss: str, drift: float = 0.3) -> RolloutBatch:
    """Rollouts of a policy that was another by `drift` when it sampled; both signs of advantages, tools in between."""
    generator = torch.Generator().manual_seed(5)
    # transformers keeps the gradient from the embedding of id 0, its padding; ours learns it like any other.
    ids = torch.randint(1, 300, (len(LENGTHS), PROMPT + MAX_TOKENS), generator=generator)
    sampled = torch.zeros(len(LENGTHS), PROMPT + MAX_TOKENS - 1)
    for row, length in enumerate(LENGTHS):
        sampled[row, PROMPT - 1 : PROMPT - 1 + length] = 1
        for place in TOOL_PLACES.get(row, []):
            sampled[row, PROMPT - 1 + place] = 0
    weights, divisor = LOSSES[loss].token_weights(sampled, MAX_TOKENS)
    batch = RolloutBatch(
        tokens=ids[:, :-1],
        targets=ids[:, 1:],
        weights=weights,
        num_tokens=int(sampled.sum()),
        divisor=divisor,
        advantages=torch.tensor([1.0, -0.5, -1.2, 0.8])[:, None].expand(sampled.shape),
        old_logprobs=torch.zeros(sampled.shape),
    )
    with torch.no_grad():
        logprobs = batch_logprobs(model, batch, temperature=TEMPERATURE)
    noise = [drift * torch.randn(sampled.shape, generator=generator) for _ in range(2)]
    return replace(batch, old_logprobs=logprobs + noise[0], reference_logprobs=logprobs + noise[1])


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Transformer]) -> Transformer:
    return make_model(0)


def gradients(loss: Loss, model: Transformer) -> dict[str, Tensor]:
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss.total, list(model.parameters())), strict=True))


# ---- against TRL


@pytest.fixture(scope="module")
def oracle(
    model: Transformer,
    save_for_transformers: Callable[[Transformer], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """TRL's trainer around the same model; it is given rollouts, and samples none."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    transformers = pytest.importorskip("transformers")
    folder = save_for_transformers(model)
    trainer = trl.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            use_cpu=True,
            bf16=False,
            report_to=[],
            per_device_train_batch_size=4,
            num_generations=2,
            temperature=TEMPERATURE,
            max_completion_length=MAX_TOKENS,
            steps_per_generation=1,
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "hello"}] * 4),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder),
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def their_loss(oracle: Any, batch: RolloutBatch, settings: dict[str, Any]) -> Tensor:
    """In TRL a rollout is a prompt and a completion; a tool's tokens are in it and not in the mask."""
    loss, is_cispo = settings["loss"], settings["loss"] == "cispo"
    oracle.loss_type, oracle.beta = loss, settings["kl_coefficient"]
    oracle.epsilon_low = settings["clip_low"]
    # TRL bounds cispo's ratio by the number itself.
    oracle.epsilon_high = settings["clip_high"] + is_cispo
    assert batch.reference_logprobs is not None
    completion = slice(PROMPT - 1, None)
    mask = torch.tensor([[place < length for place in range(MAX_TOKENS)] for length in LENGTHS]).long()
    sampled = (batch.weights[:, completion] != 0).long()
    return oracle.compute_loss(
        oracle.model,
        {
            "prompt_ids": batch.tokens[:, :PROMPT],
            "prompt_mask": torch.ones(len(LENGTHS), PROMPT, dtype=torch.int64),
            "completion_ids": batch.targets[:, completion],
            "completion_mask": mask,
            "tool_mask": sampled,
            "advantages": batch.advantages[:, 0],
            "old_per_token_logps": batch.old_logprobs[:, completion],
            "ref_per_token_logps": batch.reference_logprobs[:, completion],
            "num_items_in_batch": sampled.sum(),
        },
    )


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.3])
@pytest.mark.parametrize("clip_high", [0.2, 0.4])
@pytest.mark.parametrize("loss", NAMES)
def test_values_and_gradients_are_those_of_trl(
    model: Transformer, oracle: Any, loss: str, clip_high: float, kl_coefficient: float
) -> None:
    settings: dict[str, Any] = {"loss": loss, "clip_low": 0.2, "clip_high": clip_high, "kl_coefficient": kl_coefficient}
    batch = rollouts(model, loss)
    ours = ClippedPolicy(**settings | {"loss": LOSSES[settings["loss"]]}, temperature=TEMPERATURE)(model, batch)
    assert 0 < ours.means["clip_fraction"].total < ours.means["clip_fraction"].weight, "some are clipped, others not"
    oracle.model.zero_grad()
    theirs = their_loss(oracle, batch, settings)
    theirs.backward()
    torch.testing.assert_close(ours.total / batch.weight.float(), theirs, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(ours, model).items():
        expected = oracle.model.get_parameter(f"model.{name}").grad
        scale = expected.abs().max().item()
        torch.testing.assert_close(gradient / batch.weight.float(), expected, rtol=1e-4, atol=1e-5 * scale)


def test_the_figures_are_means_over_sampled_tokens_and_those_of_trl(model: Transformer, oracle: Any) -> None:
    settings: dict[str, Any] = {"loss": "grpo", "clip_low": 0.2, "clip_high": 0.3, "kl_coefficient": 0.1}
    batch = rollouts(model, "grpo")
    means = ClippedPolicy(**settings | {"loss": LOSSES[settings["loss"]]}, temperature=TEMPERATURE)(model, batch).means
    oracle._metrics["train"].clear()
    their_loss(oracle, batch, settings)
    theirs = {name: values[-1] for name, values in oracle._metrics["train"].items()}
    for ours, name in (("kl", "kl"), ("entropy", "entropy"), ("clip_fraction", "clip_ratio/region_mean")):
        assert (means[ours].total / means[ours].weight).item() == pytest.approx(theirs[name], rel=1e-4), ours


# ---- what is exact


@pytest.mark.parametrize("changes", [{}, EXPERTS])
@pytest.mark.parametrize("is_bfloat16", [False, True])
@pytest.mark.parametrize("loss", NAMES)
def test_the_ratio_of_a_policy_to_itself_is_exactly_1(
    make_model: Callable[..., Transformer], loss: str, is_bfloat16: bool, changes: dict[str, Any]
) -> None:
    model = make_model(**changes)
    batch = rollouts(model, loss)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
        with torch.no_grad():
            old = batch_logprobs(model, batch, temperature=TEMPERATURE, num_ids=300)
        means = ClippedPolicy(LOSSES[loss], temperature=TEMPERATURE, num_ids=300)(
            model, replace(batch, old_logprobs=old)
        ).means
    assert means["ratio"].total == means["ratio"].weight == (batch.weights != 0).sum()
    assert means["clip_fraction"].total == 0 and means["approx_kl"].total == 0


@pytest.mark.parametrize("changes", [{}, EXPERTS])
@pytest.mark.parametrize("loss", NAMES)
def test_equal_rewards_give_exactly_no_gradient(
    make_model: Callable[..., Transformer], loss: str, changes: dict[str, Any]
) -> None:
    model = make_model(**changes)
    batch = rollouts(model, loss)
    batch = replace(batch, advantages=torch.zeros_like(batch.weights))
    assert not any(gradient.any() for gradient in gradients(ClippedPolicy(LOSSES[loss])(model, batch), model).values())


@pytest.mark.parametrize("loss", NAMES)
def test_a_token_without_weight_gets_exactly_no_gradient_and_may_hold_anything(model: Transformer, loss: str) -> None:
    """Asked of the hidden state that predicts it, because later tokens do learn from having read it."""
    batch, objective = rollouts(model, loss), ClippedPolicy(LOSSES[loss], kl_coefficient=0.1)
    assert batch.reference_logprobs is not None
    seen: list[Tensor] = []

    def remember(module: torch.nn.Module, given: Any, states: Tensor) -> None:
        states.retain_grad()
        seen.append(states)

    hook = model.norm.register_forward_hook(remember)
    clean = objective(model, batch)
    hook.remove()
    clean.total.backward()
    model.zero_grad()
    gradient, hidden = seen[0].grad, batch.weights == 0
    assert gradient is not None and not gradient[hidden].any() and gradient[~hidden].any(-1).all()
    names = ("advantages", "old_logprobs", "reference_logprobs")
    spoilt = {name: getattr(batch, name).masked_fill(hidden, torch.nan) for name in names}
    targets = batch.targets.masked_fill(hidden, 10**6)
    other = objective(model, replace(batch, targets=targets, **spoilt))
    assert torch.equal(other.total, clean.total)


@pytest.mark.parametrize("changes", [{}, EXPERTS])
def test_without_weight_there_is_neither_loss_nor_gradient_nor_nan(
    make_model: Callable[..., Transformer], changes: dict[str, Any]
) -> None:
    model = make_model(**changes)
    batch = rollouts(model, "dapo")
    loss = ClippedPolicy(LOSSES["dapo"], kl_coefficient=0.1)(
        model, replace(batch, weights=torch.zeros_like(batch.weights))
    )
    assert all(mean.total == 0 and mean.weight == 0 for mean in loss.means.values())
    assert not any(gradient.any() for gradient in gradients(loss, model).values())


# ---- the parts


def test_a_token_that_has_moved_far_enough_has_no_more_gradient_and_one_that_moved_back_has() -> None:
    ratio = torch.tensor([0.5, 0.9, 1.1, 1.5, 0.5, 0.9, 1.1, 1.5], requires_grad=True)
    advantages = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0])
    gain, is_clipped = clipped_gain(ratio, ratio.log(), advantages, 0.2, 0.3)
    (gradient,) = torch.autograd.grad(gain.sum(), ratio)
    assert is_clipped.tolist() == [False, False, False, True, True, False, False, False]
    assert gradient.tolist() == [1, 1, 1, 0, 0, -1, -1, -1]
    assert gain.tolist() == pytest.approx([0.5, 0.9, 1.1, 1.3, -0.8, -0.9, -1.1, -1.5])


def test_cispo_keeps_the_gradient_of_every_token_and_bounds_its_size(model: Transformer) -> None:
    ratio, logprobs = torch.tensor([0.01, 1.0, 5.0]), torch.tensor([-3.0, -1.0, -2.0], requires_grad=True)
    gain, is_clipped = LOSSES["cispo"].gain(ratio, logprobs, torch.tensor([1.0, 1.0, -0.5]), 0.0, 1.0)
    (gradient,) = torch.autograd.grad(gain.sum(), logprobs)
    assert gradient.tolist() == pytest.approx([0.01, 1.0, -1.0]) and is_clipped.tolist() == [False, False, True]


def test_k3_is_never_negative_and_its_mean_is_the_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 6, generator=generator).log_softmax(-1)
    each = k3(p, q)
    assert (each >= 0).all()
    torch.testing.assert_close((p.exp() * each).sum(), (p.exp() * (p - q)).sum())


def test_weighted_by_the_ratio_k3_has_the_gradient_of_the_divergence() -> None:
    """The expectation over all ids that the old policy may have sampled; without the weight it is another gradient."""
    generator = torch.Generator().manual_seed(0)
    logits, old, reference = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    old, reference = old.log_softmax(-1), reference.log_softmax(-1)
    p = logits.requires_grad_().log_softmax(-1)
    divergence = (p.exp() * (p - reference)).sum()
    weighted = (old.exp() * (p - old).exp() * k3(p, reference)).sum()
    alone = (p.detach().exp() * k3(p, reference)).sum()
    expected, ours, other = (
        torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (divergence, weighted, alone)
    )
    torch.testing.assert_close(weighted, divergence)
    torch.testing.assert_close(ours, expected)
    assert (other - expected).abs().max() > 0.2 * expected.abs().max()


def test_a_group_is_compared_with_its_mean_and_divided_by_its_sample_deviation() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 0.0, 0.5, 0.1]])
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(group_advantages(rewards), expected)
    torch.testing.assert_close(group_advantages(rewards, is_scaled=False), rewards - rewards.mean(1, keepdim=True))


def test_each_loss_compares_as_its_paper_does() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.5]])
    for name, loss in LOSSES.items():
        if loss.advantages is None:
            assert name == "ppo"
        else:
            is_scaled = name != "dr_grpo"
            assert torch.equal(loss.advantages(rewards), group_advantages(rewards, is_scaled=is_scaled))


@pytest.mark.parametrize("is_scaled", [True, False])
@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=6), st.data())
def test_a_dropped_rollout_changes_nothing_for_the_others(
    is_scaled: bool, rewards: list[float], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(rewards)))
    dropped = [*rewards[:place], NAN, *rewards[place:]]
    found = group_advantages(torch.tensor([dropped]), is_scaled=is_scaled)[0].tolist()
    assert found.pop(place) == 0
    assert found == pytest.approx(group_advantages(torch.tensor([rewards]), is_scaled=is_scaled)[0].tolist(), abs=1e-6)


@pytest.mark.parametrize("is_scaled", [True, False])
@given(st.floats(-100, 100), st.integers(1, 16))
def test_equal_rewards_and_lone_rollouts_have_exactly_no_advantage(is_scaled: bool, reward: float, size: int) -> None:
    """Exactly, though the mean of several 0.1 is not 0.1."""
    assert not group_advantages(torch.full((1, size), reward, dtype=torch.float64), is_scaled=is_scaled).any()
    assert not group_advantages(torch.tensor([[reward, NAN, NAN], [NAN, NAN, NAN]]), is_scaled=is_scaled).any()


def test_weights_say_what_a_token_counts_in_each_loss() -> None:
    sampled = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]]).float()
    each, divisor = LOSSES["grpo"].token_weights(sampled, 8)
    assert each.sum(-1).tolist() == [1, 1, 0] and each[0, 1] == 0.25 and divisor == 2
    each, divisor = LOSSES["dr_grpo"].token_weights(sampled, 8)
    assert torch.equal(each, sampled / 8) and divisor == 2
    for loss in ("dapo", "cispo", "ppo"):
        each, divisor = LOSSES[loss].token_weights(sampled, 8)
        assert torch.equal(each, sampled) and divisor is None
    assert LOSSES["grpo"].token_weights(torch.zeros(1, 1), 8)[1] == 0


def test_a_mixture_is_balanced_on_request(make_model: Callable[..., Transformer]) -> None:
    model = make_model(**EXPERTS)
    batch = rollouts(model, "dapo")
    plain, balanced = (ClippedPolicy(LOSSES["dapo"], router_coefficient=c)(model, batch) for c in (0.0, 0.5))
    torch.testing.assert_close(
        balanced.total - plain.total, 0.5 * balanced.means["router_balance"].total, rtol=1e-4, atol=1e-5
    )
    assert torch.equal(balanced.means["loss"].total, plain.total.detach())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"clip_low": 1.5}, r"clip_low is 1.5, .*; expected 0 to 1"),
        ({"clip_high": -0.1}, r"clip_high -0.1"),
        ({"kl_coefficient": -1.0}, r"kl_coefficient -1.0"),
        ({"temperature": 0.0}, r"temperature 0.0; .* above 0"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ClippedPolicy(**settings)
