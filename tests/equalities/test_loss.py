"""The one idea: the loss of a step depends on its tokens and their weights, not on how they are cut and laid out."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind.data.loader import PackedRows, Piece, collate
from minimind.interfaces import Batch
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.training.optimizer import make_optimizers
from minimind.training.settings import TrainConfig
from minimind.training.trainer import Trainer

CONTEXT = 16
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
}


def random_model(**changes: Any) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**{**SHAPE, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2).add_(1.0 if parameter.ndim == 1 else 0.0)
    return model


MODELS = {
    "dense": random_model(),
    "mixture": random_model(num_experts=4, num_experts_per_tok=2, norm_topk_prob=True),
    "top-1 mixture": random_model(num_experts=4, num_experts_per_tok=1),
}
OBJECTIVE = NextToken(router_coefficient=0.3)


class Documents:
    """Some as long as three rows, some of two ids; every fourth has no weight at all, others have fractions."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.lengths = random.choice([2, 3, 5, 8, 13, 20, 45], 30)
        self.ids = [random.integers(0, SHAPE["vocab_size"], size) for size in self.lengths]
        self.weights = [
            (random.random(size) * (random.random(size) < 0.6) * (number % 4 > 0)).astype(np.float32)
            for number, size in enumerate(self.lengths)
        ]

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        return self.ids[document], self.weights[document]


DOCUMENTS = Documents()
ROWS = PackedRows(DOCUMENTS, context=CONTEXT, batch_tokens=5 * CONTEXT, seed=0)
STEPS = {
    "a full step": 0,
    "the last step, of few rows": ROWS.steps_per_epoch - 1,
    "a step of the next epoch": ROWS.steps_per_epoch,
}
assert len(ROWS.rows) % 5 > 0, "the last step has to be a partial one"


@dataclass
class Given:
    """A source that gives these micro-batches at every step."""

    batches: Sequence[Batch]

    def micro_batches(self, step: int) -> Sequence[Batch]:
        return self.batches

    def accepts(self, metrics: Mapping[str, float]) -> bool:
        return True


def update(kind: str, batches: Sequence[Batch]) -> dict[str, float]:
    """The metrics of one step of a fresh copy of the model."""
    model = copy.deepcopy(MODELS[kind])
    rates: dict[str, Any] = {"muon_lr": 0.02, "lr": 0.01, "embedding_lr": 0.01, "weight_decay": 0.0}
    trainer = Trainer(
        model=model,
        objective=OBJECTIVE,
        source=Given(batches),
        optimizers=make_optimizers(model, name="adamw", betas=(0.8, 0.95), **rates),
        settings=TrainConfig(),
        total_steps=10,
    )
    update = trainer.update()
    return {**update.figures, "gradient_norm": update.gradient_norm}


def pieces_of(step: int) -> list[Piece]:
    return [piece for index in ROWS.items_of_step(step) for piece in ROWS.rows[index]]


def big_batch(kind: str, step: int) -> dict[str, float]:
    """All rows of the step at once, as the loader gives them."""
    return update(kind, ROWS.micro_batches(step))


def assert_equal(ours: dict[str, float], expected: dict[str, float]) -> None:
    assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert ours["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-5)
    assert ours.get("router_balance", 0) == pytest.approx(expected.get("router_balance", 0), rel=1e-6)


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[slice]:
    """A sequence cut into parts."""
    places = sorted(draw(st.sets(st.integers(1, max(size - 1, 1)), max_size=size)) - {size})
    return [slice(start, end) for start, end in zip([0, *places], [*places, size], strict=True)]


@pytest.mark.parametrize("step", STEPS)
def test_the_step_is_the_weighted_mean_of_every_target_alone(step: str) -> None:
    """The oracle, in float64 and without any of the parts under test: one document after the other, one division."""
    model = copy.deepcopy(MODELS["dense"]).double()
    total, weight = torch.zeros(()), 0.0
    for piece in pieces_of(STEPS[step]):
        ids, weights = (
            torch.from_numpy(part[piece.start : piece.start + piece.size + 1]) for part in DOCUMENTS[piece.document]
        )
        logits = model.hidden_states(ids[None, :-1]).states[0] @ model.output_weight.T
        total = total + F.cross_entropy(logits, ids[1:], reduction="none") @ weights[1:].double()
        weight += weights[1:].sum().item()
    gradients = torch.autograd.grad(total / weight, list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert_equal(big_batch("dense", STEPS[step]), {"loss": total.item() / weight, "gradient_norm": norm.item()})


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("accumulate", [2, 3, 5, 64])
def test_accumulating_changes_nothing(kind: str, step: str, accumulate: int) -> None:
    source = PackedRows(DOCUMENTS, context=CONTEXT, batch_tokens=5 * CONTEXT, seed=0, accumulate=accumulate)
    assert_equal(update(kind, source.micro_batches(STEPS[step])), big_batch(kind, STEPS[step]))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("is_packed", [True, False])
@settings(max_examples=15)
@given(data=st.data())
def test_padding_instead_of_packing_in_any_order_and_cut_changes_nothing(
    kind: str, is_packed: bool, data: st.DataObject
) -> None:
    pieces = data.draw(st.permutations(pieces_of(0)))
    batches = [
        collate(DOCUMENTS, [(piece,) for piece in pieces[part]], is_packed) for part in data.draw(cuts(len(pieces)))
    ]
    assert_equal(update(kind, batches), big_batch(kind, 0))


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=15)
@given(data=st.data())
def test_packing_into_other_rows_changes_nothing(kind: str, data: st.DataObject) -> None:
    """Rows of any number of pieces, as long as they come, and micro-batches of any number of rows."""
    pieces = data.draw(st.permutations(pieces_of(0)))
    rows = [tuple(pieces[part]) for part in data.draw(cuts(len(pieces)))]
    batches = [collate(DOCUMENTS, rows[part]) for part in data.draw(cuts(len(rows)))]
    assert_equal(update(kind, batches), big_batch(kind, 0))


@pytest.mark.parametrize("kind", MODELS)
def test_rows_without_weight_change_nothing(kind: str) -> None:
    masked = [(piece,) for piece in pieces_of(0) if piece.document % 4 == 0]
    assert masked, "the step has documents without weight"
    rest = [(piece,) for piece in pieces_of(0) if piece.document % 4]
    alone = update(kind, [collate(DOCUMENTS, rest)])
    assert_equal(alone, big_batch(kind, 0))
    assert_equal(update(kind, [collate(DOCUMENTS, masked), collate(DOCUMENTS, rest), collate(DOCUMENTS, [])]), alone)


@pytest.mark.parametrize("factor", [0.001, 1000.0])
def test_scaling_all_weights_changes_nothing(factor: float) -> None:
    """Only shares count, also in the balance of the experts."""
    (batch,) = ROWS.micro_batches(0)
    scaled = Batch(
        tokens=batch.tokens,
        targets=batch.targets,
        weights=batch.weights * factor,
        lengths=batch.lengths,
        num_tokens=batch.num_tokens,
    )
    for kind in MODELS:
        assert_equal(update(kind, [scaled]), update(kind, [batch]))


def test_a_mean_of_means_would_be_noticed() -> None:
    """These tests can fail: on the same data the usual shortcut is off by more than a thousandth."""
    rows = [collate(DOCUMENTS, [(piece,)]) for piece in pieces_of(0)]
    losses = [update("dense", [row])["loss"] for row in rows if row.weight]
    expected = big_batch("dense", 0)["loss"]
    assert abs(sum(losses) / len(losses) - expected) > 1e-3 * expected


def test_forgotten_boundaries_would_be_noticed() -> None:
    (batch,) = ROWS.micro_batches(0)
    whole = Batch(tokens=batch.tokens, targets=batch.targets, weights=batch.weights, num_tokens=batch.num_tokens)
    expected = big_batch("dense", 0)["loss"]
    assert abs(update("dense", [whole])["loss"] - expected) > 1e-3 * expected
