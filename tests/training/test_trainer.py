"""A step divides once, refuses what it cannot learn from, and waits for the device once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from minimind.errors import TrainingError
from minimind.interfaces import Batch, Loss, Mean
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.training.optimizer import make_optimizers, optimizers_for
from minimind.training.schedule import rate_scale
from minimind.training.settings import TrainConfig
from minimind.training.trainer import Trainer, seed_of

WIDTH = 6


class Regression:
    """Half the weighted squared distance of targets from a map of the tokens: quick, and weighted row by row."""

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        y = model(batch.tokens.float())
        total = 0.5 * ((y - batch.targets) ** 2).mean(-1) @ batch.weights[:, 0]
        return Loss(total, {"loss": Mean(total.detach(), batch.weights.sum())})


def random_batch(seed: int, rows: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(rows, WIDTH)
    weights[:, 0] = torch.rand(rows, generator=generator)
    tokens, targets = torch.randint(-3, 4, (2, rows, WIDTH), generator=generator)
    return Batch(tokens=tokens, targets=targets, weights=weights, num_tokens=rows * WIDTH)


@dataclass
class Stream:
    """A source: a number of micro-batches for each step, made by a function of step and number."""

    make: Callable[[int, int], Batch] = lambda step, number: random_batch(10 * step + number)
    observed: list[Mapping[str, float]] = field(default_factory=list)
    refused: tuple[int, ...] = ()
    number: int = 2

    def micro_batches(self, step: int) -> Sequence[Batch]:
        return [self.make(step, number) for number in range(self.number)]

    def accepts(self, metrics: Mapping[str, float]) -> bool:
        self.observed.append(metrics)
        return len(self.observed) - 1 not in self.refused


def make_trainer(source: Stream | None = None, *, total: int = 12, objective: Any = None, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.RMSNorm(WIDTH))
    optimizers = make_optimizers(
        model, name="muon", muon_lr=0.02, lr=0.01, embedding_lr=0.01, weight_decay=0.0, betas=(0.8, 0.95)
    )
    config = TrainConfig(**{"valid_every": 4, "checkpoint_every": 5, "warmup_steps": 2, **settings})
    return Trainer(
        model=model,
        objective=objective or Regression(),
        source=source or Stream(),
        optimizers=optimizers,
        settings=config,
        total_steps=total,
    )


def with_bad(*steps: int, value: float = torch.nan) -> Callable[[int, int], Batch]:
    """Batches of which those of some steps weigh NaN or infinity in one place."""

    def make(step: int, number: int) -> Batch:
        batch = random_batch(10 * step + number)
        if step in steps and number == 1:
            batch.weights[1, 0] = value
        return batch

    return make


def state_of(trainer: Trainer) -> list[Tensor]:
    """Every weight and all that the optimisers remember, copied."""
    memory = [
        value
        for part in trainer.optimizers.parts.values()
        for parameter in trainer.model.parameters()
        for value in part.state.get(parameter, {}).values()
    ]
    return [tensor.detach().clone() for tensor in (*trainer.model.parameters(), *memory)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_the_gradient_is_that_of_the_sum_over_all_micro_batches_divided_once_by_their_weight() -> None:
    trainer = make_trainer(clip=1e9)
    batches = Stream().micro_batches(0)
    total = torch.stack([Regression()(trainer.model, batch).total for batch in batches]).sum()
    weight = sum(float(batch.weight) for batch in batches)
    expected = [gradient / weight for gradient in torch.autograd.grad(total, list(trainer.model.parameters()))]
    update = trainer.update()
    for parameter, gradient in zip(trainer.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert update.loss == pytest.approx(total.item() / weight, rel=1e-6)
    norm = torch.cat([gradient.flatten() for gradient in expected]).norm().item()
    assert update.gradient_norm == pytest.approx(norm, rel=1e-5)


def test_the_norm_is_told_before_the_gradient_is_clipped() -> None:
    loose, tight = make_trainer(clip=1e9), make_trainer(clip=0.01)
    assert tight.update().gradient_norm == loose.update().gradient_norm > 0.01
    clipped = torch.cat([parameter.grad.flatten() for parameter in tight.model.parameters()])  # type: ignore[union-attr]
    assert clipped.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_gradients_of_one_step_do_not_leak_into_the_next() -> None:
    one, other = make_trainer(), make_trainer()
    one.update()
    for trainer in (one, other):
        trainer.step = 1
        trainer.model.load_state_dict(make_trainer().model.state_dict())
    assert one.update().gradient_norm == other.update().gradient_norm


def test_metrics_count_steps_and_tokens_over_the_whole_run() -> None:
    trainer = make_trainer()
    updates = [trainer.update() for _ in range(3)]
    assert [update.num_tokens for update in updates] == [36] * 3 and (trainer.tokens, trainer.step) == (108, 3)


def test_a_step_without_any_weight_is_an_error_that_says_why_and_changes_nothing() -> None:
    def empty(step: int, number: int) -> Batch:
        batch = random_batch(number)
        return Batch(tokens=batch.tokens, targets=batch.targets, weights=torch.zeros(3, WIDTH), num_tokens=18)

    trainer = make_trainer(Stream(empty))
    before = state_of(trainer)
    with pytest.raises(
        TrainingError, match=r"step 1: none of its 36 tokens has weight.*assistant answers.*more data per step"
    ):
        trainer.update()
    assert same(state_of(trainer), before)


def test_a_micro_batch_without_weight_is_no_error_and_no_nan() -> None:
    def half_empty(step: int, number: int) -> Batch:
        batch = random_batch(step)
        weights = batch.weights * number
        return Batch(tokens=batch.tokens, targets=batch.targets, weights=weights, num_tokens=18)

    trainer = make_trainer(Stream(half_empty))
    update = trainer.update()
    assert update.skipped == 0 and update.loss > 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_changes_no_weight_and_no_memory_by_a_single_bit(value: float) -> None:
    trainer = make_trainer(Stream(with_bad(2, 3, value=value)))
    for _ in range(2):
        trainer.update()
    before = state_of(trainer)
    assert [trainer.update().skipped for _ in range(2)] == [1, 2]
    assert same(state_of(trainer), before) and trainer.step == 4
    assert trainer.update().skipped == 0, "the next good step starts the count anew"
    assert not same(state_of(trainer), before)


def test_a_gradient_that_is_not_finite_is_noticed_though_the_loss_is() -> None:
    class Cliff(Regression):
        def __call__(self, model: nn.Module, batch: Batch) -> Loss:
            loss = super().__call__(model, batch)
            return Loss(loss.total + (model[0].bias * 0).clamp_min(0).sqrt().sum(), loss.means)  # type: ignore[index]

    trainer = make_trainer(objective=Cliff())
    before = state_of(trainer)
    update = trainer.update()
    assert update.loss < 100 and update.skipped == 1 and same(state_of(trainer), before)


def test_rates_and_momentum_follow_the_step_alone() -> None:
    """So a resumed run has the ones of an uninterrupted run; the momentum rises over 300 steps by 0.1 to its value."""
    trainer = make_trainer(total=1000, momentum=0.9)
    for step, momentum in ((7, 0.8 + 0.1 * 7 / 300), (150, 0.85), (600, 0.9)):
        trainer.step = step
        update = trainer.update()
        assert update.learning_rate == pytest.approx(0.02 * rate_scale(step, 1000, trainer.settings))
        assert trainer.optimizers.parts["muon"].param_groups[0]["momentum"] == pytest.approx(momentum)


def test_measuring_is_a_weighted_mean_and_leaves_no_trace() -> None:
    trainer = make_trainer()
    trainer.model.train()
    before, batches = state_of(trainer), [random_batch(1), random_batch(2, rows=5)]
    totals = [Regression()(trainer.model, batch).total.item() for batch in batches]
    expected = sum(totals) / sum(float(batch.weight) for batch in batches)
    assert trainer.measure(batches) == {"loss": pytest.approx(expected)}
    assert same(state_of(trainer), before) and trainer.model.training
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_the_source_is_told_the_figures_and_may_refuse_an_update() -> None:
    trainer = make_trainer(total=3)
    updates = [trainer.update() for _ in range(3)]
    assert trainer.source.observed == [update.figures for update in updates]  # type: ignore[attr-defined]
    trainer = make_trainer(Stream(refused=(1,)), total=3)
    states = [state_of(trainer)]
    for _ in range(3):
        trainer.update()
        states.append(state_of(trainer))
    is_same = [all(map(torch.equal, before, after)) for before, after in pairwise(states)]
    assert is_same == [False, True, False] and trainer.step == 3


# ---- what a step waits for


class Reads(TorchFunctionMode):
    """Counts how often the processor asks for the value of a tensor, which on a GPU it would have to wait for."""

    ASKING = ("item", "tolist", "__float__", "__int__", "__bool__", "__index__", "cpu", "numpy", "__array__")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in self.ASKING:
            self.seen.append(function.__name__)
        return function(*args, **kwargs or {})


class Scalars(TorchDispatchMode):
    """Counts values that operations themselves, those of the backward pass included, hand to the processor."""

    seen = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("experts", [0, 4])
def test_a_step_waits_for_the_device_once_however_many_micro_batches_it_has(accumulate: int, experts: int) -> None:
    """And a mixture once more for each pass through each of its layers: each expert is told how many tokens it has."""
    shape = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    shape |= {"vocab_size": 40, "num_hidden_layers": 2, "intermediate_size": 24, "moe_intermediate_size": 12}
    model = Transformer(ModelConfig(num_experts=experts, **shape))
    settings = TrainConfig(warmup_steps=0)
    optimizers = optimizers_for(model, settings, torch.float32)
    batches = [learnable(seed) for seed in range(accumulate)]
    source = Stream(lambda step, number: batches[number], number=accumulate)
    trainer = Trainer(
        model=model, objective=NextToken(), source=source, optimizers=optimizers, settings=settings, total_steps=9
    )
    trainer.update()
    with Reads() as reads, Scalars() as scalars:
        trainer.update()
    assert reads.seen == ["tolist"] * (1 + (2 * accumulate if experts else 0)) and scalars.seen == 0


def learnable(seed: int) -> Batch:
    """Documents packed into rows, as a run would have them."""
    ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(seed))
    weights = (torch.arange(8) > 2).float().expand(2, 8).contiguous()
    return Batch(tokens=ids[:, :-1], targets=ids[:, 1:], weights=weights, lengths=(3, 5, 8), num_tokens=16)


def test_every_step_and_rank_of_a_run_draws_from_a_seed_of_its_own() -> None:
    seeds = [seed_of(seed, step, rank) for seed in range(3) for step in (0, 1, 999_999) for rank in (0, 1, 1007)]
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 0 and seed_of(2**62, 5, 1) < 2**63
