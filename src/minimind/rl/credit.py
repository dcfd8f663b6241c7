"""Scored rollouts -> rows to learn from: which are left out, how good each was, what models said of it when new.

Answers are compared within their groups, or token by token with what a critic expected; the loss says which. What the
models say is computed in the micro-batches that training will use.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minimind.interfaces import Batch
from minimind.rl.advantages import gae, token_rewards, whiten
from minimind.rl.experience import Experience, collate_targets, cut
from minimind.rl.figures import drop_reason, figures_of, gap_of
from minimind.rl.rollouts import Rollout, RolloutSettings
from minimind.training.distributed import World

__all__ = ["Critic", "RolloutModels", "TargetFigures", "credit"]

# A batch of targets -> a figure for each, [B, T] float32, in the precision of the run.
TargetFigures = Callable[[Batch], Tensor]


@dataclass(frozen=True, kw_only=True)
class Critic:
    """What PPO's advantages come from; those of a set of rollouts are then shifted and scaled, see `whiten`.

    values: what the critic expects before each target
    gamma:  discount of a token
    lam:    0 trusts the critic, 1 only the rewards
    """

    values: TargetFigures
    gamma: float = 1.0
    lam: float = 0.95


@dataclass(frozen=True, kw_only=True)
class RolloutModels:
    """The models that are asked about new rollouts.

    policy:    log-probabilities of the targets under the live policy
    reference: the same under the model that the policy may not stray from; None without one
    critic:    None where rollouts are compared within their groups
    """

    policy: TargetFigures
    reference: TargetFigures | None = None
    critic: Critic | None = None

    @property
    def tensor_names(self) -> list[str]:
        """The fields of `RolloutBatch` that rows of these models fill."""
        names = ["advantages", "old_logprobs"]
        names += ["reference_logprobs"] if self.reference else []
        return names + (["old_values", "returns"] if self.critic else [])


@torch.no_grad()
def credit(
    rollouts: Sequence[Rollout], models: RolloutModels, settings: RolloutSettings, world: World
) -> list[Experience]:
    """Scored rollouts of this rank, group after group -> rows in the same order, those to drop without ids."""
    reasons = [drop_reason(rollout, settings) for rollout in rollouts]
    figures = [figures_of(rollout, reason) for rollout, reason in zip(rollouts, reasons, strict=True)]
    totals = [math.nan if reason else rollout.score.total for rollout, reason in zip(rollouts, reasons, strict=True)]
    groups = torch.tensor(totals, dtype=torch.float64).view(-1, settings.group)
    for first, rewards in zip(figures[:: settings.group], groups.tolist(), strict=True):
        kept = {reward for reward in rewards if not math.isnan(reward)}
        first["equal_groups"] = (float(len(kept) == 1), float(bool(kept)))
    # Asked on a rank without rows too: the others wait for its part of the sums.
    said = _ask([one for one, reason in zip(rollouts, reasons, strict=True) if not reason], models, settings, world)
    compare = settings.loss.advantages
    advantages = compare(groups).flatten().tolist() if compare is not None else [None] * len(rollouts)
    return [
        _row(rollout, figure, said.get((rollout.place, rollout.member)), advantage)
        for rollout, figure, advantage in zip(rollouts, figures, advantages, strict=True)
    ]


def _row(
    rollout: Rollout,
    figures: Mapping[str, tuple[float, float]],
    said: Mapping[str, Tensor] | None,
    advantage: float | None,
) -> Experience:
    """said: by the models, of each target; None of a rollout that was dropped. advantage: None if a critic gave it"""
    if said is None:
        return Experience(rollout.place, rollout.member, (), (), figures)
    if advantage is not None:
        is_sampled = torch.tensor(rollout.weights[1:]) != 0
        said = {"advantages": is_sampled * torch.tensor(advantage, dtype=torch.float32), **said}
    figures = {**figures, "sampling_gap": gap_of(said["old_logprobs"], rollout)}
    return Experience(rollout.place, rollout.member, rollout.ids, rollout.weights, figures, said)


def _ask(
    rollouts: Sequence[Rollout], models: RolloutModels, settings: RolloutSettings, world: World
) -> dict[tuple[int, int], dict[str, Tensor]]:
    """Of each rollout, by place and member: what the models say of its targets."""
    parts = [part for part in cut(rollouts, settings.accumulate) if part]
    batches = [collate_targets(part, settings) for part in parts]
    said = [_said(models, part, batch) for part, batch in zip(parts, batches, strict=True)]
    if models.critic is not None:
        found = whiten([one["advantages"] for one in said], [batch.weights for batch in batches], world.sum)
        said = [one | {"advantages": advantages} for one, advantages in zip(said, found, strict=True)]
    return {
        (row.place, row.member): {name: tensor[index, : len(row.ids) - 1] for name, tensor in one.items()}
        for part, one in zip(parts, said, strict=True)
        for index, row in enumerate(part)
    }


def _said(models: RolloutModels, part: Sequence[Rollout], batch: Batch) -> dict[str, Tensor]:
    """[B, T] of each name, 0 but on sampled targets; advantages only where a critic gives them."""
    is_sampled = batch.weights != 0

    def ask(model: TargetFigures) -> Tensor:
        return torch.where(is_sampled, model(batch).to("cpu", torch.float32), 0.0)

    said = {"old_logprobs": ask(models.policy)}
    if models.reference is not None:
        said["reference_logprobs"] = ask(models.reference)
    if critic := models.critic:
        said["old_values"] = ask(critic.values)
        rewards = token_rewards(torch.tensor([rollout.score.total for rollout in part]), batch.weights)
        said["advantages"], said["returns"] = gae(rewards, said["old_values"], batch.weights, critic.gamma, critic.lam)
    return said
