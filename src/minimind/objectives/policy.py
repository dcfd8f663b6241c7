"""Policy gradients on answers that the policy sampled: make those better than expected likelier, the others less so.

    ratio   ρ = π(y_t) / π_old(y_t)
    clipped L = −Σ_t w_t · min(ρ A, clip(ρ, 1 − ε_low, 1 + ε_high) A)
    bounded L = −Σ_t w_t · sg(min(ρ, 1 + ε_high)) · A · log π(y_t)           sg: taken as a number, without gradient
    both      + β Σ_t w_t · ρ · k3,   k3 = r − 1 − log r,   r = π_ref(y_t) / π(y_t)

    loss      A, of an answer              w of a token        divided by   ratio
    grpo      (r − mean) / (std + 1e-4)    1 / its answer's    answers      clipped
    dr_grpo   r − mean                     1 / max_tokens      answers      clipped
    dapo      as grpo                      1                   tokens       clipped, ε_high above ε_low
    cispo     as grpo                      1                   tokens       bounded
    ppo       each token's, by a critic    1                   tokens       clipped     (`actor_critic.py`)

Mean and deviation are those of the rewards r of a group, the answers to one prompt. Clipping ends the gradient of a
token whose probability has moved far enough; cispo keeps it and bounds its size. ε_high above ε_low lets unlikely
tokens grow ("clip higher"). For cispo, ε_high of 1 to 4 is usual, and there is no lower bound.
The KL is weighted by ρ, with its gradient: without, k3 would have the gradient of KL(π_ref ‖ π), another divergence.

To read the metrics, all means over sampled tokens: `ratio` is exactly 1 at the first update after sampling, and
`clip_fraction` 0; a tenth clipped is much. `approx_kl` is how far the policy has moved since it sampled, `kl` how far
from the reference. `entropy` says how much is still explored. `loss` says little: its gradient is what counts, and it
starts near 0 by design.

Sources: clipping, Schulman et al. 2017, arXiv:1707.06347, eq. 7; GRPO, Shao et al. 2024, arXiv:2402.03300; Dr. GRPO,
Liu et al. 2025, arXiv:2503.20783; DAPO, Yu et al. 2025, arXiv:2503.14476; CISPO, MiniMax 2025, arXiv:2506.13585, eq. 4;
k3, Schulman 2020, "Approximating KL divergence"; times ρ, DeepSeek-V3.2 2025, arXiv:2512.02556.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from minimind.errors import ConfigError
from minimind.interfaces import Loss, Mean, RolloutBatch
from minimind.model import Transformer
from minimind.objectives.logprobs import token_logprobs_and_entropy
from minimind.objectives.next_token import with_balance

__all__ = ["LOSSES", "ClippedPolicy", "PolicyLoss", "clipped_gain", "group_advantages", "k3", "with_kl"]

# TRL's: keeps a group of nearly equal rewards from being blown up.
STD_FLOOR = 1e-4


@dataclass(frozen=True)
class PolicyLoss:
    """What makes one of the losses above: how answers are compared, what their tokens count, how a ratio is bounded.

    advantages: rewards of groups [P, G] -> how much better than expected each answer was; None asks a critic
    weigh:      1 on sampled tokens, else 0 [B, T], and the most that an answer may sample -> what each token counts
    is_mean_of_answers: is the divisor the number of answers that sampled anything, or the sum of the weights?
    gain:       ratio, log-probability and advantage of tokens [N], ε_low, ε_high -> what is to grow, and which tokens
                are clipped
    """

    name: str
    advantages: Callable[[Tensor], Tensor] | None
    weigh: Callable[[Tensor, int], Tensor]
    is_mean_of_answers: bool
    gain: Callable[[Tensor, Tensor, Tensor, float, float], tuple[Tensor, Tensor]]

    def token_weights(self, sampled: Tensor, max_tokens: int) -> tuple[Tensor, float | None]:
        """What each sampled token counts, [B, T] float32, and the batch's divisor; None is the sum of the weights.

        sampled:    [B, T], 1 on tokens that the policy sampled, else 0
        max_tokens: the most that an answer may sample
        """
        divisor = float((sampled.sum(-1) > 0).sum()) if self.is_mean_of_answers else None
        return self.weigh(sampled, max_tokens), divisor


def group_advantages(rewards: Tensor, *, is_scaled: bool = True) -> Tensor:
    """Each rollout against its group: the mean and the sample standard deviation (divisor n − 1) of those not dropped.

    A dropped rollout has advantage 0. So has every rollout of a group with equal rewards, exactly, and one that is left
    alone in its group, which has nothing to be compared with.

    rewards:   [P, G]; NaN for a rollout that was dropped
    is_scaled: divide by the deviation? It makes easy and hard prompts count more.
    Source:    Shao et al. 2024, arXiv:2402.03300, section 4.1; Liu et al. 2025, arXiv:2503.20783, section 3.1
    """
    is_kept = ~rewards.isnan()
    r = rewards.double()
    counts = is_kept.sum(1, keepdim=True)
    centred = r - r.nanmean(1, keepdim=True)
    if is_scaled:
        variance = centred.square().nansum(1, keepdim=True) / (counts - 1).clamp_min(1)
        centred = centred / (variance.sqrt() + STD_FLOOR)
    # A mean of equal numbers can be off by a rounding, and what is left of that must not be divided by a small number.
    highest = r.masked_fill(~is_kept, -torch.inf).amax(1, keepdim=True)
    lowest = r.masked_fill(~is_kept, torch.inf).amin(1, keepdim=True)
    return torch.where(is_kept & (highest > lowest), centred, 0.0).to(rewards.dtype)


def clipped_gain(ratio: Tensor, logprobs: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """min(ρ A, clip(ρ, 1 − low, 1 + high) A), and where the clip ended the gradient; all [N]."""
    gain = torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    is_clipped = ((ratio < 1 - low) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0))
    return gain, is_clipped


def _bounded_gain(
    ratio: Tensor, logprobs: Tensor, advantages: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """sg(min(ρ, 1 + high)) · A · log π, and where ρ was bounded; all [N]."""
    return ratio.detach().clamp(max=1 + high) * advantages * logprobs, ratio > 1 + high


def _each_answer_alike(sampled: Tensor, max_tokens: int) -> Tensor:
    return sampled / sampled.sum(-1, keepdim=True).clamp_min(1)


def _a_constant(sampled: Tensor, max_tokens: int) -> Tensor:
    return sampled / max_tokens


def _each_token_alike(sampled: Tensor, max_tokens: int) -> Tensor:
    return sampled


_CENTRED = partial(group_advantages, is_scaled=False)
LOSSES = {
    loss.name: loss
    for loss in (
        PolicyLoss("grpo", group_advantages, _each_answer_alike, is_mean_of_answers=True, gain=clipped_gain),
        PolicyLoss("dr_grpo", _CENTRED, _a_constant, is_mean_of_answers=True, gain=clipped_gain),
        PolicyLoss("dapo", group_advantages, _each_token_alike, is_mean_of_answers=False, gain=clipped_gain),
        PolicyLoss("cispo", group_advantages, _each_token_alike, is_mean_of_answers=False, gain=_bounded_gain),
        PolicyLoss("ppo", None, _each_token_alike, is_mean_of_answers=False, gain=clipped_gain),
    )
}
"""The losses by name."""


class ClippedPolicy:
    """A loss without a critic, as a sum, plus `router_coefficient` times the experts' balance, if any.

    temperature, num_ids: what was sampled from, see `token_logprobs`
    router_coefficient:   0 unless set, since a policy that is told nothing new (equal rewards) should not move
    Errors: ConfigError
    """

    def __init__(
        self,
        loss: PolicyLoss = LOSSES["grpo"],
        *,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        kl_coefficient: float = 0.0,
        temperature: float = 1.0,
        num_ids: int | None = None,
        router_coefficient: float = 0.0,
    ) -> None:
        if not 0 <= clip_low <= 1 or clip_high < 0 or kl_coefficient < 0 or temperature <= 0:
            raise ConfigError(
                f"clip_low is {clip_low}, clip_high {clip_high}, kl_coefficient {kl_coefficient}, temperature "
                f"{temperature}; expected 0 to 1, at least 0, at least 0, and above 0"
            )
        self.loss = loss
        self.clip_low, self.clip_high, self.kl_coefficient = clip_low, clip_high, kl_coefficient
        self.temperature, self.num_ids, self.router_coefficient = temperature, num_ids, router_coefficient

    def __call__(self, model: Transformer, batch: RolloutBatch) -> Loss:
        hidden = model.hidden_states(batch.tokens, batch.lengths)
        # What stands at positions without weight is left out, not multiplied by 0: it may be anything.
        keep = batch.weights != 0
        logprobs, entropy = token_logprobs_and_entropy(
            hidden.states[keep],
            model.output_weight,
            batch.targets[keep],
            temperature=self.temperature,
            num_ids=self.num_ids,
        )
        ratio = (logprobs - batch.old_logprobs[keep]).exp()
        gain, is_clipped = self.loss.gain(ratio, logprobs, batch.advantages[keep], self.clip_low, self.clip_high)
        approx_kl = k3(batch.old_logprobs[keep], logprobs)
        figures = {"ratio": ratio, "approx_kl": approx_kl, "clip_fraction": is_clipped, "entropy": entropy}
        losses, kl = with_kl(-gain, ratio, logprobs, batch, self.kl_coefficient)
        total = (losses * batch.weights[keep]).sum()
        means = {name: Mean(figure.detach().sum(), keep.sum()) for name, figure in {**figures, **kl}.items()}
        means["loss"] = Mean(total.detach(), batch.weight)
        return with_balance(Loss(total, means), hidden.router_logits, batch, model.config, self.router_coefficient)


def with_kl(
    losses: Tensor, ratio: Tensor, logprobs: Tensor, batch: RolloutBatch, coefficient: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses plus `coefficient` times ρ · k3 to the reference, and that as the figure `kl`; all [N].

    Without a reference there is no figure, and may be no coefficient.
    """
    assert batch.reference_logprobs is not None or not coefficient, "a KL needs reference_logprobs"
    if batch.reference_logprobs is None:
        return losses, {}
    kl = ratio * k3(logprobs, batch.reference_logprobs[batch.weights != 0])
    return (losses + coefficient * kl if coefficient else losses), {"kl": kl}


def k3(logprobs: Tensor, others: Tensor) -> Tensor:
    """r − 1 − log r with r = p_other / p: on samples of p its mean is KL(p ‖ other), and it is never negative."""
    log_ratio = others - logprobs
    return log_ratio.exp() - 1 - log_ratio
