"""The loop divides once, refuses what it cannot learn from, keeps its cadences, and stops cleanly when told to."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minimind.errors import TrainingError
from minimind.interfaces import Batch, Loss, Mean
from minimind.training.optimizer import make_optimizers
from minimind.training.schedule import rate_scale
from minimind.training.settings import TrainConfig
from minimind.training.trainer import MAX_SKIPPED, Hooks, StopSignal, Trainer, train

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
    """A source: two micro-batches for each step, made by a function of step and number."""

    make: Callable[[int, int], Batch] = lambda step, number: random_batch(10 * step + number)
    observed: list[Mapping[str, float]] = field(default_factory=list)
    refused: tuple[int, ...] = ()

    def micro_batches(self, step: int) -> Sequence[Batch]:
        return [self.make(step, number) for number in range(2)]

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


@dataclass
class Diary:
    """Hooks that write down when they were called."""

    entries: list[tuple[Any, ...]] = field(default_factory=list)
    bad: list[Batch] = field(default_factory=list)

    def hooks(self) -> Hooks:
        return Hooks(
            is_measured=lambda step: step > 0,
            validate=lambda: {"valid_loss": 1.0},
            sample=lambda step: self.entries.append(("sample", step)),
            log=lambda step, metrics: self.entries.append(("log", step, dict(metrics))),
            save=lambda step: self.entries.append(("save", step)),
            keep_bad=self.keep_bad,
        )

    def keep_bad(self, batches: list[Batch]) -> str:
        self.bad = batches
        return "bad.safetensors"

    def steps(self, kind: str) -> list[int]:
        return [entry[1] for entry in self.entries if entry[0] == kind]

    def metrics(self) -> dict[int, dict[str, float]]:
        return {entry[1]: entry[2] for entry in self.entries if entry[0] == "log"}


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


# ---- one update


def test_the_gradient_is_that_of_the_sum_over_all_micro_batches_divided_once_by_their_weight() -> None:
    trainer = make_trainer(clip=1e9)
    batches = Stream().micro_batches(0)
    total = torch.stack([Regression()(trainer.model, batch).total for batch in batches]).sum()
    weight = sum(batch.weight for batch in batches)
    expected = [gradient / weight for gradient in torch.autograd.grad(total, list(trainer.model.parameters()))]
    metrics = trainer.update()
    for parameter, gradient in zip(trainer.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert metrics["loss"] == pytest.approx(total.item() / weight, rel=1e-6)
    norm = torch.cat([gradient.flatten() for gradient in expected]).norm().item()
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)


def test_the_norm_is_told_before_the_gradient_is_clipped() -> None:
    loose, tight = make_trainer(clip=1e9), make_trainer(clip=0.01)
    assert tight.update()["gradient_norm"] == loose.update()["gradient_norm"] > 0.01
    clipped = torch.cat([parameter.grad.flatten() for parameter in tight.model.parameters()])  # type: ignore[union-attr]
    assert clipped.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_gradients_of_one_step_do_not_leak_into_the_next() -> None:
    one, other = make_trainer(), make_trainer()
    one.update()
    for trainer in (one, other):
        trainer.step = 1
        trainer.model.load_state_dict(make_trainer().model.state_dict())
    assert one.update()["gradient_norm"] == other.update()["gradient_norm"]


def test_metrics_count_steps_and_tokens_over_the_whole_run() -> None:
    trainer = make_trainer()
    metrics = [trainer.update() for _ in range(3)]
    assert [row["tokens"] for row in metrics] == [36, 72, 108] and trainer.step == 3


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
    metrics = trainer.update()
    assert metrics["skipped"] == 0 and metrics["loss"] > 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_changes_no_weight_and_no_memory_by_a_single_bit(value: float) -> None:
    trainer = make_trainer(Stream(with_bad(2, 3, value=value)))
    for _ in range(2):
        trainer.update()
    before = state_of(trainer)
    assert [trainer.update()["skipped"] for _ in range(2)] == [1, 2]
    assert same(state_of(trainer), before) and trainer.step == 4
    assert trainer.update()["skipped"] == 0, "the next good step starts the count anew"
    assert not same(state_of(trainer), before)


def test_a_gradient_that_is_not_finite_is_noticed_though_the_loss_is() -> None:
    class Cliff(Regression):
        def __call__(self, model: nn.Module, batch: Batch) -> Loss:
            loss = super().__call__(model, batch)
            return Loss(loss.total + (model[0].bias * 0).clamp_min(0).sqrt().sum(), loss.means)  # type: ignore[index]

    trainer = make_trainer(objective=Cliff())
    before = state_of(trainer)
    metrics = trainer.update()
    assert metrics["loss"] < 100 and metrics["skipped"] == 1 and same(state_of(trainer), before)


def test_rates_and_momentum_follow_the_step_alone() -> None:
    """So a resumed run has the ones of an uninterrupted run; the momentum rises over 300 steps by 0.1 to its value."""
    trainer = make_trainer(total=1000, momentum=0.9)
    for step, momentum in ((7, 0.8 + 0.1 * 7 / 300), (150, 0.85), (600, 0.9)):
        trainer.step = step
        metrics = trainer.update()
        assert metrics["learning_rate"] == pytest.approx(0.02 * rate_scale(step, 1000, trainer.settings))
        assert trainer.optimizers.parts["muon"].param_groups[0]["momentum"] == pytest.approx(momentum)


def test_measuring_is_a_weighted_mean_and_leaves_no_trace() -> None:
    trainer = make_trainer()
    trainer.model.train()
    before, batches = state_of(trainer), [random_batch(1), random_batch(2, rows=5)]
    totals = [Regression()(trainer.model, batch).total.item() for batch in batches]
    expected = sum(totals) / sum(batch.weight for batch in batches)
    assert trainer.measure(batches) == {"loss": pytest.approx(expected)}
    assert same(state_of(trainer), before) and trainer.model.training
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


# ---- the loop


def test_everything_happens_at_its_cadence_and_at_the_end() -> None:
    diary = Diary()
    train(make_trainer(total=11), diary.hooks())
    assert diary.steps("log") == list(range(12))
    assert [step for step, row in diary.metrics().items() if "valid_loss" in row] == [0, 4, 8, 11]
    assert diary.steps("sample") == [4, 8, 11]
    assert diary.steps("save") == [5, 10, 11]


def test_a_resumed_loop_takes_up_at_its_step_without_a_second_start() -> None:
    trainer, diary = make_trainer(total=11), Diary()
    trainer.step = 7
    train(trainer, diary.hooks())
    assert diary.steps("log") == [8, 9, 10, 11] and diary.steps("save") == [10, 11]


def test_a_finished_run_has_nothing_left_to_do() -> None:
    trainer, diary = make_trainer(total=11), Diary()
    trainer.step = 11
    train(trainer, diary.hooks())
    assert diary.entries == []


def test_the_source_is_told_the_figures_and_may_refuse_an_update() -> None:
    trainer, diary = make_trainer(total=3), Diary()
    train(trainer, diary.hooks())
    assert [row["loss"] for row in trainer.source.observed] == [diary.metrics()[step]["loss"] for step in (1, 2, 3)]  # type: ignore[attr-defined]
    trainer = make_trainer(Stream(refused=(1,)), total=3)
    states = [state_of(trainer)]
    for _ in range(3):
        trainer.update()
        states.append(state_of(trainer))
    is_same = [all(map(torch.equal, before, after)) for before, after in pairwise(states)]
    assert is_same == [False, True, False] and trainer.step == 3


@pytest.mark.parametrize("place", ["source", "validation"])
def test_what_was_learnt_before_an_error_is_saved(place: str) -> None:
    def gone(*_: object) -> Any:
        raise TrainingError("the reward is gone")

    def make(step: int, number: int) -> Batch:
        return gone() if step == 7 and place == "source" else random_batch(10 * step + number)

    trainer, diary = make_trainer(Stream(make)), Diary()
    hooks = diary.hooks() if place == "source" else replace(diary.hooks(), is_measured=lambda _: True, validate=gone)
    with pytest.raises(TrainingError, match="the reward is gone"):
        train(trainer, hooks)
    # Step 4 is the first to be validated, 5 is a checkpoint, and step 8 is the one whose batches cannot be had.
    assert diary.steps("save") == ([5, 7] if place == "source" else [4]) and diary.steps("save")[-1] == trainer.step


def test_a_validation_that_failed_is_made_up_for() -> None:
    trainer, diary = make_trainer(total=11), Diary()
    trainer.step = 11
    train(trainer, replace(diary.hooks(), is_measured=lambda _: False))
    assert diary.entries == [("log", 11, {"valid_loss": 1.0})]


def test_after_five_bad_steps_in_a_row_the_run_ends_with_its_batch_kept() -> None:
    trainer, diary = make_trainer(Stream(with_bad(1, 3, 4, 5, 6, 7)), total=20), Diary()
    with pytest.raises(TrainingError, match=r"step 8: .* not finite 5 times in a row.*bad\.safetensors.*learning rate"):
        train(trainer, diary.hooks())
    assert MAX_SKIPPED == 5 and [batch.weight for batch in diary.bad] == pytest.approx(
        [batch.weight for batch in Stream(with_bad(7)).micro_batches(7)], nan_ok=True
    )
    replayed = Regression()(trainer.model, diary.bad[1])
    assert replayed.total.isnan(), "the kept batch shows the fault again"


# ---- signals


def send(number: signal.Signals, at: int) -> Callable[[int, int], Batch]:
    """Batches that send this process a signal while step `at` + 1 is being computed."""

    def make(step: int, micro_batch: int) -> Batch:
        if (step, micro_batch) == (at, 1):
            os.kill(os.getpid(), number)
        return random_batch(10 * step + micro_batch)

    return make


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_with_a_checkpoint_at_the_exact_step(number: signal.Signals, code: int) -> None:
    trainer, diary = make_trainer(Stream(send(number, at=1))), Diary()
    with pytest.raises(SystemExit) as stop:
        train(trainer, diary.hooks())
    assert stop.value.code == code
    assert diary.steps("save") == [trainer.step] == [diary.steps("log")[-1]]
    assert trainer.step in (2, 3), "at once, or after the step that was told to the other ranks"


def test_a_signal_during_the_last_step_lets_the_run_finish() -> None:
    trainer, diary = make_trainer(Stream(send(signal.SIGTERM, at=11)), total=12), Diary()
    train(trainer, diary.hooks())
    assert diary.steps("save") == [5, 10, 12]


def test_a_stop_at_another_rank_is_a_stop_here() -> None:
    """`update` tells of a stop that any rank asked for; this one received no signal itself."""
    trainer, diary = make_trainer(), Diary()
    update = trainer.update
    trainer.update = lambda stop=False: update(stop=trainer.step == 2)  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as stop:
        train(trainer, diary.hooks())
    assert (stop.value.code, diary.steps("save")) == (143, [3])


def test_handlers_are_as_before_after_the_loop_even_when_it_fails() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError):
        train(make_trainer(Stream(with_bad(*range(9)))), Diary().hooks())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_ctrl_c_does_not_wait_for_the_step() -> None:
    with StopSignal() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
