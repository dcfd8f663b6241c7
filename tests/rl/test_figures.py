"""Figures add up to the same whatever set they are summed in, and dropped rollouts are counted by their reason."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from minimind.data.prompts import Prompt
from minimind.rl.figures import DROP_REASONS, drop_reason, figure_names, figures_of, gap_of, sum_figures
from minimind.rl.outcomes import Outcome, ToolResult
from minimind.rl.rewards import Scored
from minimind.rl.rollouts import Rollout
from minimind.text.conversation import Message, ToolCall

PROMPT = Prompt((Message("user", "add"),), gt=("3",))
OUTCOME = Outcome(PROMPT, (Message("assistant", "3"),), "stop", 2, (ToolResult(ToolCall("add", {}), "3"),))
NAMES = figure_names(["number", "length"])


def rollout(total: float = 1.0, outcome: Outcome = OUTCOME, **changes: Any) -> Rollout:
    scored = Scored(total, {"number": float(total > 0), "length": -0.5})
    return replace(Rollout(0, 0, (1, 40, 2), (0.0, 1.0, 1.0), (0.0, -0.5, -0.25), outcome, scored), **changes)


def values(rollouts: list[Rollout]) -> dict[str, float]:
    figures = [figures_of(one, drop_reason(one, drop_unfinished=False), "number") for one in rollouts]
    means = sum_figures(figures, NAMES)
    assert list(means) == NAMES
    return {name: float(mean.total / mean.weight) for name, mean in means.items()}


def test_figures_are_means_over_what_was_kept() -> None:
    unfinished = rollout(0.0, replace(OUTCOME, finish_reason="length", num_tokens=4, tool_results=()))
    failed = rollout(scored=Scored(math.nan, {"length": math.nan}, "reward_raised", "it broke"))
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
    assert drop_reason(silent, drop_unfinished=False) == "no_room"
    assert drop_reason(rollout(outcome=cut), drop_unfinished=False) == ""
    assert drop_reason(rollout(outcome=cut), drop_unfinished=True) == "unfinished"
    assert drop_reason(rollout(), drop_unfinished=True) == ""
    for reason in DROP_REASONS[2:]:
        assert drop_reason(rollout(scored=Scored(math.nan, {}, reason)), drop_unfinished=True) == reason


def test_nobody_having_a_figure_is_0_of_0_under_the_same_names() -> None:
    means = sum_figures([], NAMES)
    assert list(means) == NAMES and all(float(mean.total) == float(mean.weight) == 0 for mean in means.values())


def test_the_gap_is_over_sampled_ids_only() -> None:
    total, weight = gap_of(torch.tensor([-0.25, -0.5]), rollout())
    assert (total, weight) == (0.5, 2)
    total, weight = gap_of(torch.tensor([-9.0, -0.5]), rollout(weights=(0.0, 0.0, 1.0)))
    assert (total, weight) == (0.25, 1)
