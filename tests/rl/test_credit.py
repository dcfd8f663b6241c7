"""Dropped rollouts are left out, the others are compared within their groups or by a critic, cut into parts or not."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from minimind.data.prompts import Prompt
from minimind.interfaces import Batch
from minimind.rl.advantages import gae, token_rewards, whiten
from minimind.rl.credit import Critic, Judges, compare, judge
from minimind.rl.experience import Experience
from minimind.rl.outcomes import Outcome
from minimind.rl.rewards import Scored
from minimind.rl.rollouts import Rollout
from minimind.text.conversation import Message

PROMPT = Prompt((Message("user", "add"),))
OUTCOME = Outcome(PROMPT, (Message("assistant", "3"),), "stop", 2)
NAN = math.nan


def rollout(place: int, member: int, reward: float, weights: tuple[int, ...] = (0, 0, 1, 1)) -> Rollout:
    scored = Scored(reward, {} if math.isnan(reward) else {"r": reward}, "reward_raised" if math.isnan(reward) else "")
    ids = tuple(40 + (7 * place + 3 * member + index) % 9 for index in range(len(weights)))
    logprobs = tuple(-0.5 * weight for weight in weights)
    return Rollout(place, member, ids, tuple(map(float, weights)), logprobs, OUTCOME, scored)


ROLLOUTS = [
    rollout(0, 0, 1.0),
    rollout(0, 1, 0.0, (0, 1, 1, 0, 1, 1)),
    rollout(0, 2, NAN),
    rollout(1, 0, 0.5),
    rollout(1, 1, 0.5, (0, 1)),
    rollout(1, 2, 0.5, (0, 1, 0, 1, 1)),
]


def says(scale: float) -> Any:
    """A model whose word on a target depends on its id alone; on what has no weight it says nonsense."""

    def values(batch: Batch) -> Tensor:
        return torch.where(batch.weights != 0, -scale * batch.targets, torch.nan)

    return values


def rows(kind: str = "grpo", **options: Any) -> list[Experience]:
    return compare(ROLLOUTS, 3, kind, right="r", **options)


def judged(judges: Judges, kind: str = "grpo", parts: int = 1, **options: Any) -> list[Experience]:
    return judge(rows(kind), ROLLOUTS, judges, kind=kind, max_tokens=8, parts=parts, **options)


def test_a_dropped_rollout_has_no_ids_and_the_others_the_advantage_of_their_group() -> None:
    found = rows("dr_grpo")
    assert [bool(row.ids) for row in found] == [True, True, False, True, True, True]
    assert found[0].tensors["advantages"].tolist() == [0, 0.5, 0.5]
    assert found[1].tensors["advantages"].tolist() == [-0.5, -0.5, 0, -0.5, -0.5]
    assert not any(row.tensors["advantages"].any() for row in found[3:])
    assert [row.figures.get("equal_groups") for row in found] == [(0, 1), None, None, (1, 1), None, None]


def test_unfinished_answers_are_dropped_on_request() -> None:
    cut = [replace(one, outcome=replace(OUTCOME, finish_reason="length")) for one in ROLLOUTS]
    assert sum(bool(row.ids) for row in compare(cut, 3, "grpo", right="r")) == 5
    found = compare(cut, 3, "grpo", right="r", drop_unfinished=True)
    assert not any(row.ids for row in found)
    assert [row.figures["dropped_unfinished"][0] for row in found] == [1, 1, 0, 1, 1, 1], "a failed reward comes first"


@pytest.mark.parametrize("parts", [1, 2, 9])
def test_what_models_say_stands_at_sampled_targets_and_nowhere_else(parts: int) -> None:
    found = judged(Judges(logprobs=says(0.01), reference=says(0.02)), parts=parts)
    for row, one in zip(found, ROLLOUTS, strict=True):
        if not row.ids:
            assert not row.tensors
            continue
        expected = torch.tensor([-0.01 * index * weight for index, weight in zip(one.ids, one.weights, strict=True)])
        torch.testing.assert_close(row.tensors["old_logprobs"], expected[1:])
        torch.testing.assert_close(row.tensors["reference_logprobs"], 2 * expected[1:])
        gap = sum(abs(-0.01 * index + 0.5) for index, weight in zip(one.ids, one.weights, strict=True) if weight)
        assert row.figures["sampling_gap"] == (pytest.approx(gap, rel=1e-5), one.num_sampled)


def test_a_critic_gives_each_token_its_own_advantage() -> None:
    critic = Critic(values=says(-0.01), gamma=0.9, lam=0.8)
    found = judged(Judges(logprobs=says(0.01), reference=says(0.02), critic=critic), "ppo", parts=2)
    raw = []
    for row, one in zip(found, ROLLOUTS, strict=True):
        if not row.ids or one.scored is None:
            continue
        weights, targets = torch.tensor([one.weights[1:]]), torch.tensor([one.ids[1:]])
        rewards = token_rewards(torch.tensor([one.scored.total]), weights)
        advantages, returns = gae(rewards, 0.01 * targets, weights, 0.9, 0.8)
        raw.append((advantages[0], weights[0]))
        torch.testing.assert_close(row.tensors["returns"], returns[0])
    expected = whiten(*map(list, zip(*raw, strict=True)))
    for row, advantages in zip([row for row in found if row.ids], expected, strict=True):
        torch.testing.assert_close(row.tensors["advantages"], advantages)


def test_whitened_advantages_are_the_same_in_any_number_of_parts() -> None:
    judges = Judges(logprobs=says(0.01), critic=Critic(values=says(-0.01)))
    whole, cut = judged(judges, "ppo"), judged(judges, "ppo", parts=3)
    assert judges.tensor_names == ["advantages", "old_logprobs", "old_values", "returns"]
    sampled = torch.cat([row.tensors["advantages"][row.is_sampled] for row in whole if row.ids])
    assert float(sampled.mean()) == pytest.approx(0, abs=1e-6) and float(sampled.std()) > 0.9
    for one, other in zip(whole, cut, strict=True):
        assert one.tensors.keys() == other.tensors.keys()
        for name, tensor in one.tensors.items():
            torch.testing.assert_close(tensor, other.tensors[name])


def test_a_rank_without_rollouts_takes_part_in_the_sums() -> None:
    asked: list[list[float]] = []

    def sums(values: Any) -> list[float]:
        asked.append(list(values))
        return asked[-1]

    judges = Judges(logprobs=says(1), critic=Critic(values=says(1)))
    assert judge([], [], judges, kind="ppo", max_tokens=8, parts=2, sum_over_ranks=sums) == []
    assert asked == [[0, 0, 0]]
