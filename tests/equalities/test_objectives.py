"""The one idea, for every objective of post-training: a step's loss and gradient depend on its rows, not on the cut."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import EXPERTS, SHAPE, random_model
from torch import Tensor, nn

from minimind.interfaces import Batch, Objective, PairBatch, RolloutBatch, TeacherBatch
from minimind.model import Transformer
from minimind.objectives.actor_critic import ActorCritic, ClippedActorCritic
from minimind.objectives.distillation import Distillation, KeptDistillation, keep_likeliest
from minimind.objectives.policy import LOSSES, ClippedPolicy
from minimind.objectives.preference import Preference
from minimind.training.optimizer import make_optimizers
from minimind.training.settings import TrainConfig
from minimind.training.trainer import Trainer

ROWS, TIME = 12, 10
# Rows without weight: a whole pair, one side of a pair, two rollouts, two documents.
MASKED = [2, 3, 7]


def actor_critic(policy: Transformer) -> ActorCritic:
    model = ActorCritic(policy)
    with torch.no_grad():
        model.value_head.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(3))
    return model


def random_figures(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(ROWS, TIME, generator=generator) for _ in range(count)]


def plain() -> Batch:
    """Rows of different lengths, padded on the right; prompts and the rows of MASKED weigh nothing."""
    generator = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(0, SHAPE.vocab_size, (2, ROWS, TIME), generator=generator)
    weights = torch.zeros(ROWS, TIME)
    for row in range(ROWS):
        if row not in MASKED:
            weights[row, 2 : 4 + row % 6] = 1
    return Batch(tokens=tokens, targets=targets, weights=weights, num_tokens=ROWS * TIME)


def shared_by(batch: Batch) -> dict[str, Any]:
    return {field.name: getattr(batch, field.name) for field in fields(Batch)}


def pairs() -> PairBatch:
    (noise,) = random_figures(1)
    return PairBatch(**shared_by(plain()), reference=-20 + 3 * noise[:, 0])


def kept() -> TeacherBatch:
    return keep_likeliest(random_model(1), plain(), 8, temperature=2.0)


def rollouts(loss: str) -> RolloutBatch:
    advantages, old, reference, values, returns = random_figures(5)
    batch = plain()
    weights, _ = LOSSES[loss].token_weights(batch.weights, TIME)
    shared = shared_by(batch) | {"weights": weights}
    return RolloutBatch(
        **shared,
        advantages=advantages + 0.5,
        old_logprobs=-8 + old,
        reference_logprobs=-8 + reference,
        old_values=values,
        returns=returns,
    )


@dataclass(frozen=True)
class Case:
    """Rows of one step, and what learns from them.

    rows_of_unit: rows that may not be cut apart
    divisor:      of some rows; None is the sum of their weights
    """

    model: nn.Module
    objective: Objective
    rows: Batch
    rows_of_unit: int = 1
    divisor: Callable[[Batch], float] | None = None


def whole_pairs(batch: Batch) -> float:
    return float((batch.weights.sum(-1).view(-1, 2) > 0).all(-1).sum())


def sampled_rows(batch: Batch) -> float:
    return float((batch.weights.sum(-1) > 0).sum())


def cases() -> dict[str, Case]:
    dense, mixture = random_model(), random_model(**EXPERTS)
    beside: dict[str, Any] = {"kl_coefficient": 0.1, "router_coefficient": 0.3}
    preference = {
        "sigmoid": Preference(0.1, label_smoothing=0.1, router_coefficient=0.3),
        "ipo": Preference(0.1, "ipo", router_coefficient=0.3),
        "length-normalised": Preference(2.0, length_normalised=True, router_coefficient=0.3),
    }
    teachers = {"a dense teacher": random_model(1), "a mixture": mixture}
    found = {name: Case(dense, objective, pairs(), 2, whole_pairs) for name, objective in preference.items()}
    found["sigmoid, mixture"] = Case(mixture, preference["sigmoid"], pairs(), 2, whole_pairs)
    for name, teacher in teachers.items():
        found[f"distillation, {name}"] = Case(dense, Distillation(teacher), plain())
    found["distillation, mixture"] = Case(mixture, Distillation(dense, router_coefficient=0.3), plain())
    found["kept distillation"] = Case(dense, KeptDistillation(), kept())
    for name in ("grpo", "dr_grpo", "dapo", "cispo"):
        divisor = sampled_rows if name in ("grpo", "dr_grpo") else None
        found[name] = Case(dense, ClippedPolicy(LOSSES[name], kl_coefficient=0.1), rollouts(name), 1, divisor)
        found[f"{name}, mixture"] = Case(mixture, ClippedPolicy(LOSSES[name], **beside), rollouts(name), 1, divisor)
    found["ppo"] = Case(actor_critic(dense), ClippedActorCritic(kl_coefficient=0.1), rollouts("ppo"))
    found["ppo, mixture"] = Case(actor_critic(mixture), ClippedActorCritic(**beside), rollouts("ppo"))
    return found


CASES = cases()


@dataclass
class Given:
    """A source that gives these micro-batches at every step."""

    batches: Sequence[Batch]
    steps_per_epoch: int = 1

    def micro_batches(self, step: int) -> Sequence[Batch]:
        return self.batches

    def accepts(self, metrics: Mapping[str, float]) -> bool:
        return True


def part(case: Case, units: Sequence[int], spare: int = 0) -> Batch:
    """These units as a batch; `spare` more columns of padding, in which any token may stand."""
    rows = [case.rows_of_unit * unit + row for unit in units for row in range(case.rows_of_unit)]
    changes: dict[str, Any] = {"num_tokens": len(rows) * TIME}
    for field in fields(case.rows):
        if isinstance(value := getattr(case.rows, field.name), Tensor):
            chosen = value[rows]
            padding = chosen.new_zeros(len(rows), spare, *chosen.shape[2:]) if chosen.ndim > 1 else None
            changes[field.name] = chosen if padding is None else torch.cat([chosen, padding], 1)
    batch = replace(case.rows, **changes)
    return replace(batch, divisor=case.divisor(batch)) if case.divisor else batch


def update(case: Case, batches: Sequence[Batch]) -> tuple[dict[str, float], Tensor]:
    """The metrics of one step of a fresh copy of the model, and its gradient before any clipping."""
    model = copy.deepcopy(case.model)
    rates: dict[str, Any] = {"muon_lr": 0.02, "lr": 0.01, "embedding_lr": 0.01, "weight_decay": 0.0}
    trainer = Trainer(
        model=model,
        objective=case.objective,
        source=Given(batches),  # type: ignore[arg-type]
        optimizers=make_optimizers(model, name="adamw", betas=(0.8, 0.95), **rates),
        settings=TrainConfig(clip=1e9),
        total_steps=10,
    )
    update = trainer.update()
    metrics = {**update.figures, "gradient_norm": update.gradient_norm}
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return metrics, torch.cat([gradient.flatten() for gradient in gradients])


def assert_equal(case: Case, batches: Sequence[Batch], expected: tuple[dict[str, float], Tensor]) -> None:
    metrics, gradient = update(case, batches)
    for name in expected[0]:
        scale = 1e-6 if name == "loss" else 1e-5
        assert metrics[name] == pytest.approx(expected[0][name], rel=scale, abs=scale), name
    torch.testing.assert_close(gradient, expected[1], rtol=1e-4, atol=1e-5 * expected[1].abs().max().item())


WHOLE = {name: update(case, [part(case, range(ROWS // case.rows_of_unit))]) for name, case in CASES.items()}


@st.composite
def cuts(draw: st.DrawFn, units: int) -> list[list[int]]:
    """The units in any order, cut into micro-batches."""
    order = draw(st.permutations(range(units)))
    places = sorted(draw(st.sets(st.integers(1, units - 1), max_size=units)))
    return [list(order[start:end]) for start, end in zip([0, *places], [*places, units], strict=True)]


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=12)
@given(data=st.data())
def test_any_cut_and_order_of_the_rows_is_the_same_step(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    batches = [part(case, units) for units in data.draw(cuts(ROWS // case.rows_of_unit))]
    assert_equal(case, batches, WHOLE[name])


@pytest.mark.parametrize("name", CASES)
def test_every_unit_alone_is_the_same_step(name: str) -> None:
    """So some micro-batches have no weight at all."""
    case = CASES[name]
    batches = [part(case, [unit]) for unit in range(ROWS // case.rows_of_unit)]
    assert any(batch.weight == 0 for batch in batches)
    assert_equal(case, batches, WHOLE[name])


@pytest.mark.parametrize("name", CASES)
def test_padding_and_rows_without_weight_change_nothing(name: str) -> None:
    case = CASES[name]
    units = list(range(ROWS // case.rows_of_unit))
    rows = [range(case.rows_of_unit * unit, case.rows_of_unit * (unit + 1)) for unit in units]
    learnt = [unit for unit in units if not set(rows[unit]) & set(MASKED)]
    assert 0 < len(learnt) < len(units)
    alone = [part(case, learnt[:2], spare=3), part(case, learnt[2:])]
    assert_equal(case, alone, WHOLE[name])


@pytest.mark.parametrize("name", CASES)
def test_these_tests_can_fail(name: str) -> None:
    """A mean of means, the usual shortcut, would be noticed."""
    case = CASES[name]
    parts = [part(case, [0]), part(case, range(1, ROWS // case.rows_of_unit))]
    losses = [update(case, [batch])[0]["loss"] for batch in parts]
    expected = WHOLE[name][0]["loss"]
    assert abs(sum(losses) / 2 - expected) > 1e-4 * abs(expected)
