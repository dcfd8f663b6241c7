"""Dropped rollouts are left out, the others are compared within their groups or by a critic, cut into parts or not."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from minimind.data.prompts import Prompt
from minimind.interfaces import Batch
from minimind.objectives.policy import LOSSES
from minimind.rl.advantages import gae, token_rewards, whiten
from minimind.rl.credit import Critic, RolloutModels, credit
from minimind.rl.experience import Experience
from minimind.rl.rollouts import Outcome, Rollout, RolloutSettings, Score
from minimind.text.conversation import Message
from minimind.training.distributed import World

PROMPT = Prompt((Message("user", "add"),))
OUTCOME = Outcome(PROMPT, (Message("assistant", "3"),), "stop", 2)
NAN = math.nan


def rollout(place: int, member: int, reward: float, weights: tuple[int, ...] = (0, 0, 1, 1)) -> Rollout:
    scored = Score(reward, {} if math.isnan(reward) else {"r": reward}, "reward_raised" if math.isnan(reward) else "")
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


ALONE = RolloutModels(policy=says(0.01))


def rows(
    loss: str = "grpo", models: RolloutModels = ALONE, rollouts: list[Rollout] = ROLLOUTS, **changes: Any
) -> list[Experience]:
    settings = RolloutSettings(loss=LOSSES[loss], prompts_per_step=2, group=3, max_tokens=8, **changes)
    return credit(rollouts, models, settings, World())


def test_a_dropped_rollout_has_no_ids_and_the_others_the_advantage_of_their_group() -> None:
    found = rows("dr_grpo")
    assert [bool(row.ids) for row in found] == [True, True, False, True, True, True]
    assert found[0].tensors["advantages"].tolist() == [0, 0.5, 0.5]
    assert found[1].tensors["advantages"].tolist() == [-0.5, -0.5, 0, -0.5, -0.5]
    assert not any(row.tensors["advantages"].any() for row in found[3:])
    assert [row.figures.get("equal_groups") for row in found] == [(0, 1), None, None, (1, 1), None, None]


def test_unfinished_answers_are_dropped_on_request() -> None:
    cut = [replace(one, outcome=replace(OUTCOME, finish_reason="length")) for one in ROLLOUTS]
    assert sum(bool(row.ids) for row in rows(rollouts=cut)) == 5
    found = rows(rollouts=cut, drop_unfinished=True)
    assert not any(row.ids for row in found)
    assert [row.figures["dropped_unfinished"][0] for row in found] == [1, 1, 0, 1, 1, 1], "a failed reward comes first"


@pytest.mark.parametrize("parts", [1, 2, 9])
def test_what_models_say_stands_at_sampled_targets_and_nowhere_else(parts: int) -> None:
    found = rows(models=RolloutModels(policy=says(0.01), reference=says(0.02)), accumulate=parts)
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
    found = rows("ppo", RolloutModels(policy=says(0.01), reference=says(0.02), critic=critic), accumulate=2)
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
    models = RolloutModels(policy=says(0.01), critic=Critic(values=says(-0.01)))
    whole, cut = rows("ppo", models), rows("ppo", models, accumulate=3)
    assert models.tensor_names == ["advantages", "old_logprobs", "old_values", "returns"]
    sampled = torch.cat([row.tensors["advantages"][row.is_sampled] for row in whole if row.ids])
    assert float(sampled.mean()) == pytest.approx(0, abs=1e-6) and float(sampled.std()) > 0.9
    for one, other in zip(whole, cut, strict=True):
        assert one.tensors.keys() == other.tensors.keys()
        for name, tensor in one.tensors.items():
            torch.testing.assert_close(tensor, other.tensors[name])


def test_a_rank_without_rollouts_takes_part_in_the_sums() -> None:
    asked: list[list[float]] = []

    class Listening(World):
        def sum(self, values: Iterable[float]) -> list[float]:
            asked.append(list(values))
            return asked[-1]

    models = RolloutModels(policy=says(1), critic=Critic(values=says(1)))
    settings = RolloutSettings(loss=LOSSES["ppo"], prompts_per_step=1, group=1, max_tokens=8, accumulate=2)
    assert credit([], models, settings, Listening()) == []
    assert asked == [[0, 0, 0]]
