"""A source that samples: ratio 1 at first, the same rollouts for any ranks, resumed to the bit; and it teaches."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minimind.data.prompts import Prompt
from minimind.errors import CheckpointError, TrainingError
from minimind.generation.sampling import Sampling
from minimind.interfaces import Batch, Objective, RolloutBatch
from minimind.model import Transformer
from minimind.objectives.actor_critic import ActorCritic, ClippedActorCritic, values
from minimind.objectives.logprobs import batch_logprobs
from minimind.objectives.policy import LOSSES, ClippedPolicy
from minimind.rl.backends import InProcess
from minimind.rl.credit import Critic, RolloutModels
from minimind.rl.experience import STATE_FILE
from minimind.rl.figures import figure_names
from minimind.rl.rewards import Reward, Rewards
from minimind.rl.rollout_source import RolloutSource
from minimind.rl.rollouts import Outcome, RolloutSettings
from minimind.rl.sampler import RolloutSampler
from minimind.rl.traces import TraceWriter, read_traces
from minimind.storage.tensor_files import write_files
from minimind.text.conversation import Message, render_prompt
from minimind.text.tokenizer import Tokenizer
from minimind.training.distributed import World
from minimind.training.optimizer import make_optimizers
from minimind.training.settings import TrainConfig
from minimind.training.state import load_training_state, training_state_files
from minimind.training.trainer import Trainer

PROMPTS = [Prompt((Message("user", text),)) for text in ("the cat", "add 12", "今天", "say it", "345")]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MakePolicy = Callable[..., Transformer]


def starts_with_a_letter(outcome: Outcome) -> float:
    return float(outcome.answer.content[:1] in LETTERS and bool(outcome.answer.content))


ALONE = World()


@dataclass(frozen=True)
class OneOf(World):
    """A rank whose companions add to its sums of one figure, and of several."""

    to_one: float = 0.0
    to_several: float = 0.0

    def sum(self, values: Iterable[float]) -> list[float]:
        own = list(values)
        return [value + (self.to_one if len(own) == 1 else self.to_several) for value in own]


class Training:
    """A policy, its source, its objective and the trainer that brings them together."""

    def __init__(
        self,
        policy: Transformer,
        tokenizer: Tokenizer,
        *,
        reward: Callable[[Outcome], float] = starts_with_a_letter,
        ppo: bool = False,
        lr: float = 0.01,
        temperature: float = 0.9,
        reference: Transformer | None = None,
        total: int = 100,
        max_tokens: int = 4,
        context: int = 96,
        world: World = ALONE,
        traces: TraceWriter | None = None,
        is_rounded: bool = False,
        **settings: Any,
    ) -> None:
        loss = LOSSES["ppo" if ppo else settings.pop("loss", "grpo")]
        common = {"temperature": temperature, "num_ids": tokenizer.vocab_size}

        def precision() -> torch.autocast:
            return torch.autocast("cpu", torch.bfloat16, enabled=is_rounded)

        def logprobs(batch: Batch, model: Transformer = policy) -> Tensor:
            with precision():
                return batch_logprobs(model, batch, **common)  # type: ignore[arg-type]

        def expected(batch: Batch) -> Tensor:
            with precision():
                return values(self.model, batch)  # type: ignore[arg-type]

        self.model: nn.Module = ActorCritic(policy) if ppo else policy
        sampling = Sampling(temperature=temperature, top_p=1.0, max_tokens=max_tokens)
        self.source = RolloutSource(
            RolloutSampler(
                backend=InProcess(policy, tokenizer, precision=precision),
                tokenizer=tokenizer,
                sampling=sampling,
                context=context,
                seed=3,
            ),
            PROMPTS,
            Rewards([Reward("letter", reward)]),
            RolloutModels(
                policy=logprobs,
                reference=reference and (lambda batch: logprobs(batch, reference)),
                critic=Critic(values=expected) if ppo else None,
            ),
            RolloutSettings(**{"loss": loss, "prompts_per_step": 2, "group": 4, "max_tokens": max_tokens, **settings}),
            world=world,
            traces=traces,
        )
        objective: Objective = ClippedActorCritic(**common) if ppo else ClippedPolicy(loss, **common)  # type: ignore[arg-type]
        self.optimizers = make_optimizers(
            self.model, name="adamw", muon_lr=lr, lr=lr, embedding_lr=lr, weight_decay=0.0, betas=(0.9, 0.95)
        )
        self.trainer = Trainer(
            model=self.model,
            objective=objective,
            source=self.source,
            optimizers=self.optimizers,
            settings=TrainConfig(warmup_steps=0, cooldown=0.0),
            total_steps=total,
            precision=precision,
        )

    def step(self) -> dict[str, float]:
        """One step as the loop makes it."""
        update = self.trainer.update()
        return {**update.figures, "gradient_norm": update.gradient_norm}

    def save(self, folder: Path) -> dict[str, Tensor]:
        """Write what a checkpoint keeps beside the weights; the weights are returned."""
        write_files(folder, {**training_state_files({}, self.model, self.optimizers), **self.source.state_files()})
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def resume(self, folder: Path, step: int, weights: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(weights)
        load_training_state(folder, self.model, self.optimizers)
        self.source.load_state(folder)
        self.trainer.step = step


def figures(batches: list[RolloutBatch]) -> dict[str, float]:
    """The batches' own figures, as the trainer would sum them."""
    sums: dict[str, list[float]] = {}
    for batch in batches:
        for name, mean in batch.means.items():
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += float(mean.total)
            total[1] += float(mean.weight)
    return {name: total / weight if weight else 0.0 for name, (total, weight) in sums.items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# ---- learning


@pytest.mark.parametrize("options", [{"accumulate": 1}, {"accumulate": 3}, {"is_rounded": True}])
@pytest.mark.parametrize("ppo", [False, True])
def test_at_the_first_step_of_an_iteration_the_ratio_is_exactly_1(
    make_policy: MakePolicy, tokenizer: Tokenizer, ppo: bool, options: dict[str, Any]
) -> None:
    training = Training(make_policy(), tokenizer, ppo=ppo, updates=2, **options)
    for _ in range(2):
        first, second = training.step(), training.step()
        assert (first["ratio"], first["approx_kl"], first["clip_fraction"]) == (1.0, 0.0, 0.0)
        assert second["ratio"] != 1.0 and second["approx_kl"] > 0


def test_equal_rewards_have_exactly_no_gradient(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    training = Training(make_policy(), tokenizer, reward=lambda outcome: 0.1)
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    metrics = training.step()
    assert metrics["gradient_norm"] == 0 and same(training.model.state_dict(), before)
    assert figures(list(training.source.micro_batches(0)))["equal_groups"] == 1


@pytest.mark.parametrize("options", [{}, {"loss": "cispo"}, {"ppo": True, "updates": 2}])
def test_a_policy_learns_what_is_rewarded(
    make_policy: MakePolicy, tokenizer: Tokenizer, options: dict[str, Any]
) -> None:
    settings = {"prompts_per_step": 5, "group": 8, "lr": 0.03, "temperature": 1.0, **options}
    training = Training(make_policy(spread=0.1), tokenizer, **settings)
    rates = []
    for step in range(24):
        rates.append(figures(list(training.source.micro_batches(step)))["pass_rate"])
        training.step()
    assert sum(rates[:2]) / 2 < 0.5 < 0.7 < sum(rates[-4:]) / 4


def test_micro_batches_are_a_matter_of_memory(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    norms = []
    for accumulate in (1, 2, 50):
        training = Training(make_policy(), tokenizer, accumulate=accumulate)
        batches = list(training.source.micro_batches(0))
        assert len(batches) == min(accumulate, 8) and sum(batch.weight for batch in batches) == pytest.approx(8)
        assert not any(batch.means for batch in batches[1:])
        norms.append(training.step()["gradient_norm"])
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5) and norms[0] > 0


def test_weights_are_on_sampled_tokens_the_end_included(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    [batch] = Training(make_policy(), tokenizer, loss="dapo", max_tokens=40).source.micro_batches(0)
    assert batch.lengths is None
    asked = [render_prompt(prompt.messages, (), tokenizer) for prompt in PROMPTS]
    for tokens, targets, weights in zip(batch.tokens, batch.targets, batch.weights, strict=True):
        sampled = targets[weights != 0].tolist()
        assert weights[weights != 0].tolist() == [1.0] * len(sampled)
        start = int(weights.nonzero()[0])
        assert tokens[: start + 1].tolist() in asked
        assert 2 not in sampled[:-1] and (sampled[-1] in (0, 2) or len(sampled) == 40)
    assert any(2 in targets[weights != 0] for targets, weights in zip(batch.targets, batch.weights, strict=True))


# ---- which rollouts, and what is said of them


def test_each_prompt_comes_once_per_epoch(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    source = Training(make_policy(), tokenizer).source
    for epoch in range(3):
        asked = [source.prompt(place) for place in range(5 * epoch, 5 * epoch + 5)]
        assert {id(prompt) for prompt in asked} == {id(prompt) for prompt in PROMPTS}
    orders = {tuple(source.prompt(place).messages for place in range(5 * epoch, 5 * epoch + 5)) for epoch in range(6)}
    assert len(orders) > 1 and source.steps_per_epoch == 3


def test_ranks_share_the_rollouts_that_one_process_would_take(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    def rows(**options: Any) -> list[tuple[list[int], list[float]]]:
        batches = Training(make_policy(), tokenizer, prompts_per_step=3, **options).source.micro_batches(0)
        return [
            (tokens[: int(weights.nonzero()[-1]) + 1].tolist(), advantages[weights != 0].tolist())
            for batch in batches
            for tokens, weights, advantages in zip(batch.tokens, batch.weights, batch.advantages, strict=True)
        ]

    alone = rows()
    shared = [row for rank in range(2) for row in rows(world=OneOf(rank, 2))]
    assert sorted(alone) == sorted(shared) and len(alone) == 12


def test_a_rank_without_prompts_has_a_batch_of_no_weight_and_the_same_figures(
    make_policy: MakePolicy, tokenizer: Tokenizer
) -> None:
    """Three ranks and two prompts; the sums over ranks say that the others have some."""
    # One figure alone tells whether a rank has failed.
    [batch] = Training(make_policy(), tokenizer, world=OneOf(2, 3, to_several=8)).source.micro_batches(0)
    [other] = Training(make_policy(), tokenizer).source.micro_batches(0)
    assert batch.weight == 0 and batch.num_tokens == 0
    assert list(batch.means) == list(other.means) == figure_names(["letter"])
    assert all(float(mean.weight) == 0 for mean in batch.means.values())


def test_an_error_on_one_rank_is_one_on_all(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    with pytest.raises(TrainingError, match="another process could not take its rollouts"):
        Training(make_policy(), tokenizer, world=OneOf(0, 2, to_one=1)).source.micro_batches(0)


def test_figures_are_those_of_the_rollouts(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    said: list[Outcome] = []
    training = Training(
        make_policy(), tokenizer, reward=lambda outcome: said.append(outcome) or starts_with_a_letter(outcome)
    )
    found = figures(list(training.source.micro_batches(0)))
    scores = [starts_with_a_letter(outcome) for outcome in said]
    assert found["reward"] == found["reward_letter"] == found["pass_rate"] == pytest.approx(sum(scores) / 8)
    assert found["answer_tokens"] == sum(outcome.num_tokens for outcome in said) / 8
    assert found["ended"] == sum(outcome.finish_reason == "stop" for outcome in said) / 8
    assert found["dropped"] == found["tool_calls"] == 0
    assert 0 < found["sampling_gap"] < 1e-4, "one process and one precision, but a cache"
    assert training.source.timings.keys() == {"generation", "scoring", "logprobs"}


def test_what_is_dropped_is_counted_and_the_rest_is_learnt_from(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    def picky(outcome: Outcome) -> float:
        if len(outcome.answer.content) % 3 == 0:
            raise ValueError("not this one")
        return float(len(outcome.answer.content))

    training = Training(make_policy(), tokenizer, reward=picky, prompts_per_step=5)
    batches = list(training.source.micro_batches(0))
    found = figures(batches)
    assert 0 < found["dropped"] == found["dropped_reward_raised"] < 1
    assert sum(batch.weight for batch in batches) == pytest.approx(20 * (1 - found["dropped"]))
    assert 0 < training.step()["gradient_norm"] < float("inf")


def test_nothing_left_is_an_error_with_the_reasons(make_policy: MakePolicy, tokenizer: Tokenizer) -> None:
    def broken(outcome: Outcome) -> float:
        raise ValueError("it broke")

    with pytest.raises(TrainingError, match=r"step 1: all 8 rollouts .* dropped: 8 reward_raised \(.*it broke\)"):
        Training(make_policy(), tokenizer, reward=broken).step()
    with pytest.raises(TrainingError, match="8 no_room"):
        Training(make_policy(), tokenizer, reward=broken, context=5).step()


def test_a_set_that_teaches_nothing_is_told_once_and_of_a_critic_never(
    make_policy: MakePolicy, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    for ppo in (False, True):
        training = Training(make_policy(), tokenizer, reward=lambda outcome: 0.1, ppo=ppo, max_tokens=40)
        for _ in range(2):
            training.step()
        assert capsys.readouterr().err.count("all answers to each prompt have the same reward (0.1") == (not ppo)


# ---- iterations


def test_an_iteration_is_learnt_from_for_its_updates_and_ends_early_when_the_policy_has_moved(
    make_policy: MakePolicy, tokenizer: Tokenizer
) -> None:
    source = Training(make_policy(), tokenizer, updates=3, kl_limit=0.1).source
    first = source.micro_batches(0)
    assert source.accepts({"approx_kl": 0.09})
    assert source.micro_batches(1) is first and source.micro_batches(1) is first
    assert not source.accepts({"approx_kl": 0.11})
    second = source.micro_batches(2)
    assert second is not first and [source.micro_batches(step) is second for step in (3, 4, 5)] == [True, True, False]


@pytest.mark.parametrize("options", [{"updates": 3}, {"updates": 2, "ppo": True}, {"updates": 4, "kl_limit": 1e-4}])
def test_a_run_resumed_after_any_step_is_the_uninterrupted_one_to_the_bit(
    make_policy: MakePolicy, tokenizer: Tokenizer, tmp_path: Path, options: dict[str, Any]
) -> None:
    reference = make_policy(seed=5)

    def start() -> Training:
        return Training(make_policy(), tokenizer, reference=reference, accumulate=2, prompts_per_step=3, **options)

    whole, kept, metrics, batches = start(), [], [], []
    for step in range(6):
        batches.append(figures(list(whole.source.micro_batches(step))))
        metrics.append(whole.step())
        kept.append(whole.save(tmp_path / str(step + 1)))
    assert json.loads(whole.source.state_files()[STATE_FILE])["number"] >= 1 + ("kl_limit" in options)
    for after in range(1, 6):
        resumed = start()
        resumed.resume(tmp_path / str(after), after, kept[after - 1])
        for step in range(after, 6):
            assert figures(list(resumed.source.micro_batches(step))) == batches[step]
            found = resumed.step()
            assert found == metrics[step]
        assert same(resumed.model.state_dict(), kept[5]), f"resumed after step {after}"


def test_a_checkpoint_without_rollouts_cannot_be_resumed(
    make_policy: MakePolicy, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = Training(make_policy(), tokenizer).source
    assert not source.state_files(), "nothing was sampled yet"
    with pytest.raises(CheckpointError, match=r"rollouts\.json: cannot be read"):
        source.load_state(tmp_path)


def test_traces_of_steps_that_are_taken_again_are_not_written_twice(
    make_policy: MakePolicy, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "traces.jsonl"
    first = Training(make_policy(), tokenizer, traces=TraceWriter(path))
    weights = {}
    for step in range(3):
        first.step()
        weights[step] = first.save(tmp_path / str(step))
    before = list(read_traces(path))
    assert [trace.iteration for trace in before] == [0] * 8 + [1] * 8 + [2] * 8
    assert [trace.reward for trace in before].count(None) == 0
    second = Training(make_policy(), tokenizer, traces=TraceWriter(path))
    second.resume(tmp_path / "1", 2, weights[1])
    second.step()
    assert list(read_traces(path)) == before
