"""Figures add up to the same whatever set they are summed in, and dropped rollouts are counted by their reason;
the same seed draws the same answers."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from minimind.data.prompts import Prompt
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.objectives.policy import LOSSES
from minimind.rl.backends import InProcess
from minimind.rl.figures import (
    DROP_REASONS,
    complaints,
    drop_reason,
    figure_names,
    figures_of,
    gap_of,
    measure_pass,
    sum_figures,
)
from minimind.rl.rewards import Reward, Rewards
from minimind.rl.rollouts import Outcome, Rollout, RolloutSettings, Score, ToolResult
from minimind.rl.sampler import RolloutSampler
from minimind.text.conversation import Message, ToolCall
from minimind.text.tokenizer import Tokenizer

PROMPT = Prompt((Message("user", "add"),), gt=("3",))
OUTCOME = Outcome(PROMPT, (Message("assistant", "3"),), "stop", 2, (ToolResult(ToolCall("add", {}), "3"),))
SCORE_ALL = RolloutSettings(loss=LOSSES["grpo"], prompts_per_step=1, group=1, max_tokens=8)
DROP_CUT = replace(SCORE_ALL, drop_unfinished=True)
NAMES = figure_names(["number", "length"])


def rollout(total: float = 1.0, outcome: Outcome = OUTCOME, **changes: Any) -> Rollout:
    scored = Score(total, {"number": float(total > 0), "length": -0.5})
    return replace(Rollout(0, 0, (1, 40, 2), (0.0, 1.0, 1.0), (0.0, -0.5, -0.25), outcome, scored), **changes)


def values(rollouts: list[Rollout]) -> dict[str, float]:
    figures = [figures_of(one, drop_reason(one, SCORE_ALL)) for one in rollouts]
    means = sum_figures(figures, NAMES)
    assert list(means) == NAMES
    return {name: float(mean.total / mean.weight) for name, mean in means.items()}


def test_figures_are_means_over_what_was_kept() -> None:
    unfinished = rollout(0.0, replace(OUTCOME, finish_reason="length", num_tokens=4, tool_results=()))
    failed = rollout(scored=Score(math.nan, {"length": math.nan}, "reward_raised", "it broke"))
    found = values([rollout(), unfinished, failed])
    expected = {
        "reward": 0.5,
        "reward_number": 0.5,
        "reward_length": -0.5,
        "pass_rate": 0.5,
        "answer_tokens": 3,
        "ended": 0.5,
        "tool_calls": 0.5,
        "dropped": 1 / 3,
        "dropped_reward_raised": 1 / 3,
        "dropped_unfinished": 0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_each_reason_to_drop_is_told_apart() -> None:
    cut = replace(OUTCOME, finish_reason="length")
    silent = rollout(weights=(0.0, 0.0, 0.0))
    assert drop_reason(silent, SCORE_ALL) == "no_room"
    assert drop_reason(rollout(outcome=cut), SCORE_ALL) == ""
    assert drop_reason(rollout(outcome=cut), DROP_CUT) == "unfinished"
    assert drop_reason(rollout(), DROP_CUT) == ""
    for reason in DROP_REASONS[2:]:
        assert drop_reason(rollout(scored=Score(math.nan, {}, reason)), DROP_CUT) == reason


def test_nobody_having_a_figure_is_0_of_0_under_the_same_names() -> None:
    means = sum_figures([], NAMES)
    assert list(means) == NAMES and all(float(mean.total) == float(mean.weight) == 0 for mean in means.values())


def test_the_gap_is_over_sampled_ids_only() -> None:
    total, weight = gap_of(torch.tensor([-0.25, -0.5]), rollout())
    assert (total, weight) == (0.5, 2)
    total, weight = gap_of(torch.tensor([-9.0, -0.5]), rollout(weights=(0.0, 0.0, 1.0)))
    assert (total, weight) == (0.25, 1)


def test_equal_rewards_and_answers_that_are_cut_are_worth_a_word() -> None:
    assert not complaints({}) and not complaints({"equal_groups": 0.9, "ended": 0.6, "reward": 0.0})
    [text] = complaints({"equal_groups": 1.0, "ended": 1.0, "reward": 0.25}).values()
    assert "the same reward (0.25 on average)" in text
    [text] = complaints({"ended": 0.25}).values()
    assert text.startswith("75% of the answers were cut")
    assert complaints({"ended": 1.0, "dropped_unfinished": 0.75}) == complaints({"ended": 0.25})


# ---- pass rates


PROMPTS = [Prompt((Message("user", text),)) for text in ("the cat", "add 12", "今天")]


def rewards(*functions: Callable[[Outcome], float]) -> Rewards:
    return Rewards([Reward(f"r{n}", function) for n, function in enumerate(functions)])


@pytest.fixture
def sampler(make_policy: Callable[..., Transformer], tokenizer: Tokenizer) -> RolloutSampler:
    backend = InProcess(make_policy(), tokenizer)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=4)
    return RolloutSampler(backend=backend, tokenizer=tokenizer, sampling=sampling, context=96)


def test_counts_are_of_full_marks_of_one_reward(sampler: RolloutSampler) -> None:
    seen: list[Outcome] = []

    def half(outcome: Outcome) -> float:
        seen.append(outcome)
        return float(len(seen) % 2) if outcome.prompt is PROMPTS[1] else 0.99

    found = measure_pass(sampler, PROMPTS, range(3), rewards(half), samples=6)
    assert found.right == [0, 3, 0] and len(found.scores) == 18 and sum(found.scores) == pytest.approx(3 + 12 * 0.99)
    assert len(seen) == 18 and len({outcome.messages for outcome in seen}) > 9


def test_an_answer_that_cannot_be_scored_is_not_right(sampler: RolloutSampler) -> None:
    def broken(outcome: Outcome) -> float:
        raise ValueError("no")

    found = measure_pass(sampler, PROMPTS, range(3), rewards(lambda outcome: 1.0, broken), samples=2)
    assert found == ([0, 0, 0], [])


def test_the_seed_decides_what_is_drawn(sampler: RolloutSampler) -> None:
    drawn: list[str] = []

    def listen(outcome: Outcome) -> float:
        drawn.append(outcome.answer.content)
        return 0.0

    for _ in range(2):
        measure_pass(sampler, PROMPTS, range(3), rewards(listen), samples=2)
    assert drawn[:6] == drawn[6:] and len(drawn) == 12
    # Another process that measures the last two prompts draws what was drawn for them here.
    measure_pass(sampler, PROMPTS[1:], range(1, 3), rewards(listen), samples=2)
    assert drawn[12:] == drawn[2:6]
