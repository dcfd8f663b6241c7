"""Preference losses are TRL's, gradients too, on the same tiny Qwen3; they start at log 2; they are never NaN."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minimind.errors import ConfigError
from minimind.interfaces import PairBatch
from minimind.model import Transformer
from minimind.objectives.logprobs import batch_logprobs
from minimind.objectives.next_token import balance_experts
from minimind.objectives.preference import Preference

# What TRL and its dependencies warn of is none of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

# (prompt, chosen, rejected) sizes in tokens.
SIZES = [(4, 7, 3), (6, 2, 5), (3, 4, 4)]
Triple = tuple[list[int], list[int], list[int]]


def triples() -> list[Triple]:
    generator = torch.Generator().manual_seed(3)
    # transformers keeps the gradient from the embedding of id 0, its padding; ours learns it like any other.
    return [tuple(torch.randint(1, 300, (size,), generator=generator).tolist() for size in sizes) for sizes in SIZES]  # type: ignore[misc]


def pair_batch(pairs: list[Triple], reference: Transformer | None = None) -> PairBatch:
    """Padded on the right; what the reference says is computed as a source does, or is 0 without one."""
    rows = [(prompt, answer) for prompt, *answers in pairs for answer in answers]
    width = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    tokens, targets = torch.zeros(2, len(rows), width, dtype=torch.int64)
    weights = torch.zeros(len(rows), width)
    for index, (prompt, answer) in enumerate(rows):
        ids = torch.tensor(prompt + answer)
        tokens[index, : len(ids) - 1], targets[index, : len(ids) - 1] = ids[:-1], ids[1:]
        weights[index, len(prompt) - 1 : len(ids) - 1] = 1
    batch = PairBatch(
        tokens=tokens,
        targets=targets,
        weights=weights,
        num_tokens=sum(len(prompt) + len(answer) - 1 for prompt, answer in rows),
        divisor=float(len(pairs)),
        reference=torch.zeros(len(rows)),
    )
    if reference is None:
        return batch
    with torch.no_grad():
        return replace(batch, reference=(batch_logprobs(reference, batch) * batch.weights).sum(-1))


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Transformer]) -> Transformer:
    return make_model(0)


@pytest.fixture(scope="module")
def reference(make_model: Callable[..., Transformer]) -> Transformer:
    return make_model(1)


def gradients(total: Tensor, model: Transformer) -> dict[str, Tensor]:
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(total, list(model.parameters())), strict=True))


# ---- against TRL


@pytest.fixture(scope="module")
def oracle(
    model: Transformer,
    reference: Transformer,
    save_for_transformers: Callable[[Transformer], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """TRL's trainer around the same two models."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    transformers = pytest.importorskip("transformers")
    folders = [save_for_transformers(each) for each in (model, reference)]
    theirs = [transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in folders]
    return trl.DPOTrainer(
        model=theirs[0],
        ref_model=theirs[1],
        args=trl.DPOConfig(output_dir=str(tmp_path_factory.mktemp("trl")), use_cpu=True, bf16=False, report_to=[]),
        train_dataset=datasets.Dataset.from_list([{"prompt": "hello", "chosen": " world", "rejected": " hello"}]),
        processing_class=transformers.AutoTokenizer.from_pretrained(folders[0]),
    )


def their_loss(oracle: Any, pairs: list[Triple], kinds: list[str], beta: float, smoothing: float = 0.0) -> Tensor:
    """TRL puts all chosen rows before all rejected ones."""
    examples = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in pairs
    ]
    oracle.loss_types, oracle.loss_weights, oracle.beta, oracle.label_smoothing = kinds, [1.0], beta, smoothing
    return oracle.compute_loss(oracle.model, oracle.data_collator(examples))


def assert_same(ours: Tensor, theirs: Tensor, model: Transformer, oracle: Any) -> None:
    """The mean over pairs, and its gradient by every parameter."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    oracle.model.zero_grad()
    theirs.backward()
    for name, gradient in gradients(ours, model).items():
        expected = oracle.model.get_parameter(f"model.{name}").grad
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"beta": 0.1}, "sigmoid"),
        ({"beta": 0.7}, "sigmoid"),
        ({"beta": 2.5, "length_normalised": True}, "sigmoid_norm"),
        ({"beta": 0.1, "loss": "ipo", "length_normalised": True}, "ipo"),
    ],
)
def test_values_and_gradients_are_those_of_trl(
    model: Transformer, reference: Transformer, oracle: Any, settings: dict[str, Any], kind: str
) -> None:
    ours = Preference(**settings)(model, pair_batch(triples(), reference)).total / len(SIZES)
    assert_same(ours, their_loss(oracle, triples(), [kind], settings["beta"]), model, oracle)


def test_smoothed_labels_are_those_of_trl(model: Transformer, reference: Transformer, oracle: Any) -> None:
    """TRL smooths in `aot`, which sorts the pairs of a batch: with one pair at a time it is the loss itself."""
    ours = Preference(0.5, label_smoothing=0.2)(model, pair_batch(triples(), reference)).total / len(SIZES)
    parts = [their_loss(oracle, [pair], ["aot"], 0.5, 0.2) for pair in triples()]
    assert_same(ours, sum(parts, torch.zeros(())) / len(SIZES), model, oracle)


# ---- by hand


def test_ipo_without_normalising_is_the_formula_of_the_paper(model: Transformer, reference: Transformer) -> None:
    batch = pair_batch(triples(), reference)
    sums = (batch_logprobs(model, batch) * batch.weights).sum(-1) - batch.reference
    expected = ((sums[::2] - sums[1::2] - 1 / (2 * 0.3)) ** 2).sum()
    torch.testing.assert_close(Preference(0.3, "ipo")(model, batch).total, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.3}, {"length_normalised": True, "beta": 2.0}])
@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_the_loss_starts_at_log_2(model: Transformer, settings: dict[str, Any], is_bfloat16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
        batch = pair_batch(triples(), model)
        loss = Preference(**settings)(model, batch)
    assert loss.total.item() / batch.weight == pytest.approx(math.log(2), rel=1e-6)
    assert loss.means["margin"].total == 0 and loss.means["accuracy"].total == 0


def test_the_figures_are_rewards_of_each_side_and_how_often_they_are_the_right_way_round(
    model: Transformer, reference: Transformer
) -> None:
    batch = pair_batch(triples(), reference)
    loss = Preference(0.4)(model, batch)
    rewards = 0.4 * ((batch_logprobs(model, batch) * batch.weights).sum(-1) - batch.reference).detach()
    figures = {name: mean.total.item() / mean.weight.item() for name, mean in loss.means.items()}
    assert figures["chosen_reward"] == pytest.approx(rewards[::2].mean().item(), rel=1e-5)
    assert figures["rejected_reward"] == pytest.approx(rewards[1::2].mean().item(), rel=1e-5)
    assert figures["margin"] == pytest.approx((rewards[::2] - rewards[1::2]).mean().item(), rel=1e-5)
    assert figures["accuracy"] == pytest.approx((rewards[::2] > rewards[1::2]).float().mean().item())
    assert figures["loss"] == pytest.approx(loss.total.item() / 3, rel=1e-6)


def test_likelier_compares_the_answers_by_token_whatever_the_reference(
    model: Transformer, reference: Transformer
) -> None:
    batch = pair_batch(triples(), reference)
    by_token = (batch_logprobs(model, batch) * batch.weights).sum(-1) / batch.weights.sum(-1)
    expected = (by_token[::2] > by_token[1::2]).sum()
    assert 0 < expected < 3, "the pairs have to differ for this to tell anything"
    for other in (reference, model):
        likelier = Preference()(model, pair_batch(triples(), other)).means["likelier"]
        assert likelier.total == expected and likelier.weight == 3


def test_descending_makes_the_chosen_likelier_than_the_rejected(model: Transformer) -> None:
    """And swapping the sides would undo it: the batch's order of rows is what tells them apart."""
    student, batch = copy.deepcopy(model), pair_batch(triples(), model)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        Preference(0.1)(student, batch).total.backward()
        optimizer.step()
    figures = Preference(0.1)(student, batch).means
    assert figures["accuracy"].total == 3 and figures["chosen_reward"].total > figures["rejected_reward"].total


@pytest.mark.parametrize("empty", [(2,), (3,), (2, 3)])
@pytest.mark.parametrize("changes", [{}, {"num_experts": 4, "num_experts_per_tok": 2}])
def test_a_pair_with_an_empty_side_is_as_if_it_were_not_there(
    make_model: Callable[..., Transformer], empty: tuple[int, ...], changes: dict[str, Any]
) -> None:
    """Whatever its reference says, NaN included."""
    model, objective = make_model(**changes), Preference(length_normalised=True, beta=2.0, router_coefficient=0.3)
    first, second, third = triples()
    whole = pair_batch([first, second, third])
    weights, figures = whole.weights.clone(), whole.reference.clone()
    for row in empty:
        weights[row], figures[row] = 0, torch.nan
    spoilt = objective(model, replace(whole, weights=weights, reference=figures, divisor=2.0))
    clean = objective(model, pair_batch([first, third]))
    torch.testing.assert_close(spoilt.total, clean.total, rtol=1e-5, atol=1e-6)
    for name, mean in clean.means.items():
        assert spoilt.means[name].weight == mean.weight == 2
        torch.testing.assert_close(spoilt.means[name].total, mean.total, rtol=1e-5, atol=1e-6)
    ours, theirs = gradients(spoilt.total, model), gradients(clean.total, model)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"num_experts": 4, "num_experts_per_tok": 2}])
def test_without_any_pair_loss_and_gradient_are_zero(
    make_model: Callable[..., Transformer], changes: dict[str, Any]
) -> None:
    model, batch = make_model(**changes), pair_batch(triples()[:1])
    loss = Preference(length_normalised=True)(model, replace(batch, weights=torch.zeros_like(batch.weights)))
    assert loss.total == 0 and all(mean.weight == 0 and mean.total == 0 for mean in loss.means.values())
    assert not any(gradient.any() for gradient in gradients(loss.total, model).values())


def test_the_balance_of_experts_is_a_mean_over_pairs_whatever_their_lengths(
    make_model: Callable[..., Transformer],
) -> None:
    model = make_model(num_experts=4, num_experts_per_tok=2)
    batch = pair_batch(triples())
    plain, balanced = Preference(router_coefficient=0.0)(model, batch), Preference(router_coefficient=0.5)(model, batch)
    mean = balanced.means["router_balance"]
    torch.testing.assert_close(balanced.total - plain.total, 0.5 * mean.total, rtol=1e-4, atol=1e-5)
    expected = 0.0
    for row in range(6):
        alone = replace(batch, **{name: getattr(batch, name)[[row]] for name in ("tokens", "targets", "weights")})
        hidden = model.hidden_states(alone.tokens)
        expected += (balance_experts(hidden.router_logits, alone, 2) / alone.weights.sum()).item() / 2
    assert mean.total.item() == pytest.approx(expected, rel=1e-5) and mean.weight.item() == pytest.approx(3)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"beta": 0.0}, "beta is 0.0; expected more than 0"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5; expected at least 0 and less than 0.5"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "loss = 'ipo' has no use for"),
        ({"loss": "hinge"}, "loss is 'hinge'; expected 'sigmoid' or 'ipo'"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Preference(**settings)
