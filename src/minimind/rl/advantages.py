"""How much better than a critic expected each sampled token was: PPO's advantages.

    A_i = δ_i + γλ A_{i+1},   δ_i = r_i + γ V_{i+1} − V_i           over sampled tokens i = 1, 2, ...

In a conversation with tools the token after a sampled one is often a tool's. It is no action of the policy, so the
chain goes from each sampled token to the next sampled one, over whatever stands between. Everything here is summed in
float64. How answers are compared within their groups is in `objectives/policy.py`.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["gae", "token_rewards", "whiten"]

VARIANCE_FLOOR = 1e-8


def token_rewards(rewards: Tensor, weights: Tensor) -> Tensor:
    """The reward of a rollout on its last sampled token, 0 elsewhere: [B], [B, T] -> [B, T].

    weights: not 0 on sampled tokens; each row has at least one
    """
    is_sampled = weights != 0
    time = torch.arange(weights.shape[1], device=weights.device)
    last = torch.where(is_sampled, time, -1).amax(1, keepdim=True)
    assert last.min() >= 0, "a rollout without sampled tokens has no place for its reward"
    return torch.zeros_like(weights).scatter(1, last, rewards[:, None].to(weights.dtype))


def gae(rewards: Tensor, values: Tensor, weights: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and the returns A + V that the critic should have expected; 0 off the chain.

    rewards: [B, T] of each sampled token
    values:  [B, T] what the critic expects before that token
    weights: [B, T] not 0 on sampled tokens
    gamma:   discount of a token
    lam:     0 trusts the critic at the next token, 1 only the rewards
    Source:  Schulman et al. 2015, arXiv:1506.02438, eq. 16
    """
    is_sampled = weights != 0
    r, v = rewards.double(), values.double()
    advantages = torch.zeros_like(v)
    next_value, next_advantage = torch.zeros_like(v[:, 0]), torch.zeros_like(v[:, 0])
    for t in reversed(range(v.shape[1])):
        advantage = r[:, t] + gamma * next_value - v[:, t] + gamma * lam * next_advantage
        next_value = torch.where(is_sampled[:, t], v[:, t], next_value)
        next_advantage = torch.where(is_sampled[:, t], advantage, next_advantage)
        advantages[:, t] = torch.where(is_sampled[:, t], advantage, 0.0)
    returns = torch.where(is_sampled, advantages + v, 0.0)
    return advantages.to(values.dtype), returns.to(values.dtype)


def whiten(
    advantages: Sequence[Tensor],
    weights: Sequence[Tensor],
    sum_over_ranks: Callable[[Iterable[float]], list[float]] = list,
) -> list[Tensor]:
    """All sampled tokens of a step shifted to mean 0 and scaled to variance 1, however they are cut into tensors.

    sum_over_ranks: adds figures over ranks, so that their number cannot change the result; called once by each
    """
    chosen = [a[w != 0].double() for a, w in zip(advantages, weights, strict=True)]
    sums = [sum(float(a.sum()) for a in chosen), sum(float(a.square().sum()) for a in chosen)]
    total, squares, count = sum_over_ranks([*sums, float(sum(map(len, chosen)))])
    mean = total / max(count, 1.0)
    scale = (max(squares / max(count, 1.0) - mean**2, 0.0) + VARIANCE_FLOOR) ** -0.5
    return [
        torch.where(w != 0, (a.double() - mean) * scale, 0.0).to(a.dtype)
        for a, w in zip(advantages, weights, strict=True)
    ]
