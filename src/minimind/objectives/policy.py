"""Policy gradients on answers that the policy sampled: make those better than expected likelier, the others less so.

    ratio   ρ = π(y_t) / π_old(y_t)
    clipped L = −Σ_t w_t · min(ρ A, clip(ρ, 1 − ε_low, 1 + ε_high) A)        grpo, dr_grpo, dapo
    cispo   L = −Σ_t w_t · sg(min(ρ, 1 + ε_high)) · A · log π(y_t)           sg: taken as a number, without gradient
    both      + β Σ_t w_t · ρ · k3,   k3 = r − 1 − log r,   r = π_ref(y_t) / π(y_t)

Clipping ends the gradient of a token whose probability has moved far enough; cispo keeps it and bounds its size. The
first three differ in what a token counts, which the source writes into the weights (`token_weights`): each answer as
much as any other (grpo), each token as much as any other (dapo), or each token a constant (dr_grpo). ε_high above ε_low
lets unlikely tokens grow ("clip higher", dapo). For cispo, ε_high of 1 to 4 is usual, and there is no lower bound.
The KL is weighted by ρ, with its gradient: without, k3 would have the gradient of KL(π_ref ‖ π), another divergence.

To read the metrics, all means over sampled tokens: `ratio` is exactly 1 at the first update after sampling, and
`clip_fraction` 0; a tenth clipped is much. `approx_kl` is how far the policy has moved since it sampled, `kl` how far
from the reference. `entropy` says how much is still explored. `loss` says little: its gradient is what counts, and it
starts near 0 by design.

Sources: clipping, Schulman et al. 2017, arXiv:1707.06347, eq. 7; GRPO, Shao et al. 2024, arXiv:2402.03300; Dr. GRPO,
Liu et al. 2025, arXiv:2503.20783; DAPO, Yu et al. 2025, arXiv:2503.14476; CISPO, MiniMax 2025, arXiv:2506.13585, eq. 4;
k3, Schulman 2020, "Approximating KL divergence"; times ρ, DeepSeek-V3.2 2025, arXiv:2512.02556.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from minimind.errors import ConfigError
from minimind.interfaces import Batch, Loss, Mean, RolloutBatch
from minimind.model import Transformer
from minimind.objectives.logprobs import token_logprobs_and_entropy
from minimind.objectives.next_token import balance_experts

__all__ = ["ClippedPolicy", "PolicyLoss", "clipped_gain", "k3", "token_weights"]

PolicyLoss = Literal["grpo", "dr_grpo", "dapo", "cispo"]


class ClippedPolicy:
    """The sum over sampled tokens, plus `router_coefficient` times the balance of the experts, if any.

    temperature, num_ids: what was sampled from, see `token_logprobs`
    router_coefficient:   0 unless set, since a policy that is told nothing new (equal rewards) should not move
    Errors: ConfigError
    """

    def __init__(
        self,
        loss: PolicyLoss = "grpo",
        *,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        kl_coefficient: float = 0.0,
        temperature: float = 1.0,
        num_ids: int | None = None,
        router_coefficient: float = 0.0,
    ) -> None:
        if loss not in get_args(PolicyLoss):
            raise ConfigError(f"loss is {loss!r}; expected one of {', '.join(get_args(PolicyLoss))}")
        if not 0 <= clip_low <= 1 or clip_high < 0 or kl_coefficient < 0 or temperature <= 0:
            raise ConfigError(
                f"clip_low is {clip_low}, clip_high {clip_high}, kl_coefficient {kl_coefficient}, temperature "
                f"{temperature}; expected 0 to 1, at least 0, at least 0, and above 0"
            )
        self.loss: PolicyLoss = loss
        self.clip_low, self.clip_high, self.kl_coefficient = clip_low, clip_high, kl_coefficient
        self.temperature, self.num_ids, self.router_coefficient = temperature, num_ids, router_coefficient

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(model, Transformer), f"expected a Transformer, got {type(model).__name__}"
        assert isinstance(batch, RolloutBatch), f"expected a RolloutBatch, got {type(batch).__name__}"
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
        gain, is_clipped = self._gain(ratio, logprobs, batch.advantages[keep])
        approx_kl = k3(batch.old_logprobs[keep], logprobs)
        figures = {"ratio": ratio, "approx_kl": approx_kl, "clip_fraction": is_clipped, "entropy": entropy}
        losses = -gain
        assert batch.reference_logprobs is not None or not self.kl_coefficient, "a KL needs reference_logprobs"
        if batch.reference_logprobs is not None:
            figures["kl"] = ratio * k3(logprobs, batch.reference_logprobs[keep])
            if self.kl_coefficient:
                losses = losses + self.kl_coefficient * figures["kl"]
        total = (losses * batch.weights[keep]).sum()
        means = {name: Mean(figure.detach().sum(), keep.sum()) for name, figure in figures.items()}
        means["loss"] = Mean(total.detach(), torch.tensor(batch.weight, device=total.device))
        if hidden.router_logits:
            balance = balance_experts(hidden.router_logits, batch, model.config.num_experts_per_tok)
            means["router_balance"] = Mean(balance.detach(), batch.weights.sum())
            total = total + self.router_coefficient * balance
        return Loss(total, means)

    def _gain(self, ratio: Tensor, logprobs: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """What is to grow, and which tokens are clipped, both [N]."""
        if self.loss != "cispo":
            return clipped_gain(ratio, advantages, self.clip_low, self.clip_high)
        most = 1 + self.clip_high
        return ratio.detach().clamp(max=most) * advantages * logprobs, ratio > most


def clipped_gain(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """min(ρ A, clip(ρ, 1 − low, 1 + high) A), and where the clip ended the gradient; all [N]."""
    gain = torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    is_clipped = ((ratio < 1 - low) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0))
    return gain, is_clipped


def k3(logprobs: Tensor, others: Tensor) -> Tensor:
    """r − 1 − log r with r = p_other / p: on samples of p its mean is KL(p ‖ other), and it is never negative."""
    log_ratio = others - logprobs
    return log_ratio.exp() - 1 - log_ratio


def token_weights(sampled: Tensor, loss: str, max_tokens: int) -> tuple[Tensor, float | None]:
    """What each sampled token of some rollouts counts, [B, T] float32, and the batch's divisor.

    sampled:    [B, T], 1 on tokens that the policy sampled, else 0
    loss:       a `PolicyLoss`, or "ppo", which counts as dapo does
    max_tokens: the most that a rollout may sample
    The divisor is the number of rollouts that sampled anything; None is the sum of the weights.
    """
    lengths = sampled.sum(-1, keepdim=True)
    if loss not in ("grpo", "dr_grpo"):
        return sampled, None
    weights = sampled / lengths.clamp_min(1) if loss == "grpo" else sampled / max_tokens
    return weights, float((lengths > 0).sum())
