"""Scored rollouts -> rows to learn from: which are left out, how good each was, what the policy said of it when new.

`advantages.py` has the formulas. What the models say is computed in the micro-batches that training will use.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minimind.interfaces import Batch
from minimind.rl.advantages import gae, group_advantages, token_rewards, whiten
from minimind.rl.experience import Experience, collate_targets, cut
from minimind.rl.figures import drop_reason, figures_of, gap_of
from minimind.rl.rollouts import Rollout

__all__ = ["Critic", "Judges", "TargetValues", "compare", "judge"]

# A batch of targets -> a figure for each, [B, T] float32, in the precision of the run.
TargetValues = Callable[[Batch], Tensor]


@dataclass(frozen=True, kw_only=True)
class Critic:
    """What PPO's advantages come from; those of a set of rollouts are then shifted and scaled, see `whiten`.

    values: what the critic expects before each target
    gamma:  discount of a token
    lam:    0 trusts the critic, 1 only the rewards
    """

    values: TargetValues
    gamma: float = 1.0
    lam: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Judges:
    """The models that are asked about new rollouts.

    logprobs:  of the targets under the live policy
    reference: the same under the model that the policy may not stray from; None without one
    critic:    None where rollouts are compared within their groups
    """

    logprobs: TargetValues
    reference: TargetValues | None = None
    critic: Critic | None = None

    @property
    def tensor_names(self) -> list[str]:
        """The fields of `RolloutBatch` that they fill."""
        names = ["advantages", "old_logprobs"]
        names += ["reference_logprobs"] if self.reference else []
        return names + (["old_values", "returns"] if self.critic else [])


def compare(
    rollouts: Sequence[Rollout], group: int, kind: str, *, right: str, drop_unfinished: bool = False
) -> list[Experience]:
    """Scored rollouts, group after group -> rows in the same order, those to drop without ids.

    kind:  the loss; says how rewards of a group are compared
    right: name of the reward whose full mark is a pass
    """
    reasons = [drop_reason(rollout, drop_unfinished=drop_unfinished) for rollout in rollouts]
    totals = [math.nan if reason else _total(rollout) for rollout, reason in zip(rollouts, reasons, strict=True)]
    groups = torch.tensor(totals, dtype=torch.float64).view(-1, group)
    advantages = group_advantages(groups, kind).flatten().tolist()
    figures = [figures_of(rollout, reason, right) for rollout, reason in zip(rollouts, reasons, strict=True)]
    for first, rewards in zip(figures[::group], groups.tolist(), strict=True):
        kept = {reward for reward in rewards if not math.isnan(reward)}
        first["equal_groups"] = (float(len(kept) == 1), float(bool(kept)))
    rows = []
    for rollout, reason, advantage, figure in zip(rollouts, reasons, advantages, figures, strict=True):
        row = Experience(rollout.place, rollout.member, (), (), figure)
        if not reason:
            row = replace(row, ids=rollout.ids, weights=rollout.weights)
            row = replace(row, tensors={"advantages": row.is_sampled * torch.tensor(advantage, dtype=torch.float32)})
        rows.append(row)
    return rows


@torch.no_grad()
def judge(
    rows: Sequence[Experience],
    rollouts: Sequence[Rollout],
    judges: Judges,
    *,
    kind: str,
    max_tokens: int,
    parts: int,
    sum_over_ranks: Callable[[Iterable[float]], list[float]] = list,
) -> list[Experience]:
    """Add what `judges` say of each target of rows that were not dropped; with a critic, its advantages.

    rollouts:   those of the rows, in the same order
    max_tokens: that a rollout may sample
    parts:      micro-batches that training will cut the rows into
    """
    cuts = [part for part in cut([row for row in rows if row.ids], parts) if part]
    batches = [collate_targets(part, kind, max_tokens) for part in cuts]
    said = [_ask(judges, part, batch) for part, batch in zip(cuts, batches, strict=True)]
    # Called on a rank without rows too: the others wait for its part of the sums.
    if judges.critic is not None:
        found = whiten([one["advantages"] for one in said], [batch.weights for batch in batches], sum_over_ranks)
        said = [one | {"advantages": advantages} for one, advantages in zip(said, found, strict=True)]
    of_row = {
        (row.place, row.member): {name: tensor[index, : len(row.ids) - 1] for name, tensor in one.items()}
        for part, one in zip(cuts, said, strict=True)
        for index, row in enumerate(part)
    }
    return [
        _with_tensors(row, rollout, of_row[row.place, row.member]) if row.ids else row
        for row, rollout in zip(rows, rollouts, strict=True)
    ]


def _ask(judges: Judges, part: Sequence[Experience], batch: Batch) -> dict[str, Tensor]:
    """[B, T] of each name, 0 but on sampled targets; advantages only where a critic gives them."""
    is_sampled = batch.weights != 0

    def ask(values: TargetValues) -> Tensor:
        return torch.where(is_sampled, values(batch).to("cpu", torch.float32), 0.0)

    said = {"old_logprobs": ask(judges.logprobs)}
    if judges.reference is not None:
        said["reference_logprobs"] = ask(judges.reference)
    if critic := judges.critic:
        said["old_values"] = ask(critic.values)
        scores = torch.tensor([row.figures["reward"][0] for row in part])
        rewards = token_rewards(scores, batch.weights)
        said["advantages"], said["returns"] = gae(rewards, said["old_values"], batch.weights, critic.gamma, critic.lam)
    return said


def _with_tensors(row: Experience, rollout: Rollout, said: Mapping[str, Tensor]) -> Experience:
    figures = {**row.figures, "sampling_gap": gap_of(said["old_logprobs"], rollout)}
    return replace(row, figures=figures, tensors={**row.tensors, **said})


def _total(rollout: Rollout) -> float:
    assert rollout.scored is not None
    return rollout.scored.total
