"""Next-token prediction: the objective of pretraining, fine-tuning and black-box distillation.

    loss = Σ_t w_t · −log p(y_t | x_≤t)  +  c · Σ_documents balance(document)

Which tokens count is decided by the data's weights alone. A mixture of experts adds a sum that keeps all in use.
To read the metrics: `router_balance` is 1 when each document uses all experts equally, and E / k when only k are used.
"""

import torch
from torch import Tensor

from minimind.interfaces import Batch, Loss, Mean
from minimind.model import ModelConfig, Transformer
from minimind.objectives.cross_entropy import weighted_cross_entropy

__all__ = ["NextToken", "balance_experts", "with_balance"]


class NextToken:
    """Weighted cross entropy of each target, plus `router_coefficient` times the balance of the experts, if any."""

    def __init__(self, router_coefficient: float = 0.01) -> None:
        self.router_coefficient = router_coefficient

    def __call__(self, model: Transformer, batch: Batch) -> Loss:
        hidden = model.hidden_states(batch.tokens, batch.lengths)
        weights = batch.weights.flatten()
        total = weighted_cross_entropy(
            hidden.states.flatten(0, 1), model.output_weight, batch.targets.flatten(), weights
        )
        loss = Loss(total, {"loss": Mean(total.detach(), weights.sum())})
        return with_balance(loss, hidden.router_logits, batch, model.config, self.router_coefficient)


def with_balance(
    loss: Loss, router_logits: tuple[Tensor, ...], batch: Batch, config: ModelConfig, coefficient: float
) -> Loss:
    """The loss plus `coefficient` times the balance of the experts, now one of its figures; of a dense model, as it is.

    router_logits: as in `HiddenStates`
    """
    if not router_logits:
        return loss
    balance = balance_experts(router_logits, batch, config.num_experts_per_tok)
    figure = Mean(balance.detach(), batch.weights.sum())
    return Loss(loss.total + coefficient * balance, {**loss.means, "router_balance": figure})


def balance_experts(router_logits: tuple[Tensor, ...], batch: Batch, num_chosen: int) -> Tensor:
    """Σ over documents of their weight times E · Σ_e f_e · P_e, averaged over layers.

    f_e is the share of the document's weighted tokens that chose expert e, P_e the mean probability they gave it. The
    usual form takes f and P over whatever lies in one micro-batch, so it changes with the cut; a document does not.

    router_logits: per layer [B*T, E]
    Source:        Fedus et al. 2021, arXiv:2101.03961, eq. 4; per sequence as in DeepSeek-V3, arXiv:2412.19437, eq. 17.
    """
    weights = batch.weights.flatten()
    lengths = batch.lengths or (batch.tokens.shape[1],) * len(batch.tokens)
    documents, num_documents, num_experts = _numbers(lengths, weights), len(lengths), router_logits[0].shape[-1]
    mass = weights.new_zeros(num_documents).index_add(0, documents, weights)
    total = torch.zeros((), device=weights.device)
    for logits in router_logits:
        probabilities = logits.softmax(-1)  # [N, E]
        chosen = _one_at(probabilities, probabilities.topk(num_chosen).indices)
        per_document = weights.new_zeros(num_documents, num_experts)
        shares = per_document.index_add(0, documents, weights[:, None] * chosen / num_chosen)
        means = per_document.index_add(0, documents, weights[:, None] * probabilities)
        # A document without weight has zero sums; the clamp only keeps 0 / 0 away.
        total = total + ((shares * means).sum(-1) / mass.clamp_min(1e-12)).sum() * num_experts
    return total / len(router_logits)


def _one_at(like: Tensor, indices: Tensor) -> Tensor:
    """1 at `indices` of the last dimension, 0 elsewhere."""
    return like.detach().new_zeros(like.shape).scatter_(-1, indices, 1.0)


def _numbers(lengths: tuple[int, ...], like: Tensor) -> Tensor:
    """[B*T]: which document each position belongs to, counted over the whole batch."""
    repeats = torch.tensor(lengths, device=like.device)
    return torch.arange(len(lengths), device=like.device).repeat_interleave(repeats, output_size=len(like))
