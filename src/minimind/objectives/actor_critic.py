"""PPO: a policy, and beside it a critic that learns what to expect, so that advantages need no group of answers.

    L = Σ_t w_t · [ −min(ρ A, clip(ρ, 1 ± ε) A)  +  c · max((V − R)², (V_clip − R)²)  +  β · ρ · k3 ]

    ρ = π(y_t) / π_old(y_t),    V_clip = V_old + clip(V − V_old, ±ε_V),    k3 as in `policy.py`

The critic is one more row on the last hidden state: V at a position is what the policy may expect after reading it, so
it belongs to the choice of the next token, as log π does. Both come from one pass. V starts at 0 everywhere.

To read the metrics, all means over sampled tokens: `approx_kl` is how far the policy has moved since it sampled, and
what stops the epochs over a batch early; `value_loss` should fall. 1 − value_error / (returns_squared − returns²) is
the share of the returns' variance that the critic foresees: 1 is all, 0 is no better than their mean, below 0 is harm.

Source: Schulman et al. 2017, arXiv:1707.06347, eq. 9; clipped values as in OpenAI's baselines, here without their 1/2.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from minimind.errors import ConfigError
from minimind.interfaces import Batch, Loss, Mean, RolloutBatch
from minimind.model import Transformer
from minimind.objectives.logprobs import token_logprobs_and_entropy
from minimind.objectives.next_token import with_balance
from minimind.objectives.policy import LOSSES, clipped_gain, k3, with_kl

__all__ = ["ActorCritic", "ActorCriticOutput", "ClippedActorCritic", "values"]


class ActorCriticOutput(NamedTuple):
    """What policy and critic say of each target, [B, T] float32, and 0 where its weight is 0; entropy has no gradient.

    router_logits: as in `HiddenStates`
    """

    logprobs: Tensor
    entropy: Tensor
    values: Tensor
    router_logits: tuple[Tensor, ...]


class ActorCritic(nn.Module):
    """A policy and a critic on one stack of blocks."""

    def __init__(self, policy: Transformer) -> None:
        super().__init__()
        self.policy = policy
        self.value_head = nn.Linear(policy.config.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, batch: Batch, *, temperature: float = 1.0, num_ids: int | None = None) -> ActorCriticOutput:
        """A batch of [B, T] -> figures of its targets, [B, T]; temperature, num_ids: see `token_logprobs`"""
        hidden = self.policy.hidden_states(batch.tokens, batch.lengths)
        keep = batch.weights != 0
        states = hidden.states[keep]
        logprobs, entropy = token_logprobs_and_entropy(
            states, self.policy.output_weight, batch.targets[keep], temperature=temperature, num_ids=num_ids
        )
        # Three digits would be too few for the difference of two values.
        with torch.autocast(states.device.type, enabled=False):
            expected = self.value_head(states.float()).squeeze(-1)
        nothing = torch.zeros_like(batch.weights)
        logprobs, entropy, expected = (nothing.masked_scatter(keep, part) for part in (logprobs, entropy, expected))
        return ActorCriticOutput(logprobs, entropy, expected, hidden.router_logits)


@torch.no_grad()
def values(model: ActorCritic, batch: Batch) -> Tensor:
    """[B, T] float32: what the critic expects at each target that has weight, 0 elsewhere."""
    return model(batch).values


class ClippedActorCritic:
    """PPO's loss: the sum over sampled tokens, plus `router_coefficient` times the balance of the experts, if any.

    Errors: ConfigError
    """

    loss = LOSSES["ppo"]

    def __init__(
        self,
        clip: float = 0.2,
        value_clip: float = 0.2,
        *,
        value_coefficient: float = 0.5,
        kl_coefficient: float = 0.0,
        temperature: float = 1.0,
        num_ids: int | None = None,
        router_coefficient: float = 0.0,
    ) -> None:
        if not 0 <= clip <= 1 or min(value_clip, value_coefficient, kl_coefficient) < 0 or temperature <= 0:
            raise ConfigError(
                f"clip is {clip}, value_clip {value_clip}, value_coefficient {value_coefficient}, kl_coefficient "
                f"{kl_coefficient}, temperature {temperature}; expected 0 to 1, three of at least 0, and above 0"
            )
        self.clip, self.value_clip = clip, value_clip
        self.value_coefficient, self.kl_coefficient = value_coefficient, kl_coefficient
        self.temperature, self.num_ids, self.router_coefficient = temperature, num_ids, router_coefficient

    def __call__(self, model: ActorCritic, batch: RolloutBatch) -> Loss:
        output: ActorCriticOutput = model(batch, temperature=self.temperature, num_ids=self.num_ids)
        keep = batch.weights != 0
        losses, figures = self._losses(batch, keep, output)
        total = (losses * batch.weights[keep]).sum()
        means = {name: Mean(figure.detach().sum(), keep.sum()) for name, figure in figures.items()}
        means["loss"] = Mean(total.detach(), batch.weight)
        config = model.policy.config
        return with_balance(Loss(total, means), output.router_logits, batch, config, self.router_coefficient)

    def _losses(self, batch: RolloutBatch, keep: Tensor, output: ActorCriticOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Of each token with weight, [N]."""
        assert batch.old_values is not None and batch.returns is not None, "PPO needs old_values and returns"
        logprobs, old_logprobs = output.logprobs[keep], batch.old_logprobs[keep]
        ratio = (logprobs - old_logprobs).exp()
        gain, is_clipped = clipped_gain(ratio, logprobs, batch.advantages[keep], self.clip, self.clip)
        expected, returns = output.values[keep], batch.returns[keep]
        misses = self._value_losses(expected, batch.old_values[keep], returns)
        figures = {
            "policy_loss": -gain,
            "value_loss": misses,
            "approx_kl": k3(old_logprobs, logprobs),
            "clip_fraction": is_clipped,
            "ratio": ratio,
            "entropy": output.entropy[keep],
            "value_error": (expected - returns).square(),
            "returns": returns,
            "returns_squared": returns.square(),
        }
        losses = -gain + self.value_coefficient * misses
        losses, kl = with_kl(losses, ratio, logprobs, batch, self.kl_coefficient)
        return losses, {**figures, **kl}

    def _value_losses(self, expected: Tensor, old: Tensor, returns: Tensor) -> Tensor:
        """The larger of two errors: a critic that has moved far gains nothing by having moved."""
        near = old + (expected - old).clamp(-self.value_clip, self.value_clip)
        return torch.max((expected - returns).square(), (near - returns).square())
