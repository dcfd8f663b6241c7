"""Preferences: make the chosen of two answers likelier than the rejected one, by as little as it takes.

    margin  = [log π(chosen) − log π_ref(chosen)] − [log π(rejected) − log π_ref(rejected)]
    sigmoid = −(1 − ε) log σ(β · margin) − ε log σ(−β · margin)
    ipo     = (margin − 1 / 2β)²

log π of an answer is the sum over its tokens. With `length_normalised` each bracket is divided by its answer's length
first, so that a long answer is not worth more for being long; β is then a factor on nats per token, and wants to be
larger. ε (`label_smoothing`) is how often the labels are thought to be swapped. The reference is the model that
training began with; what it says of each answer was computed once, and comes with the batch.

To read the metrics: the sigmoid loss starts at log 2 = 0.693, where `margin` is 0. A reward is β times its bracket;
`accuracy` is the share of pairs whose chosen answer has the larger one, so it is 0 before the first update and says
something from then on. `likelier` is the share whose chosen answer the model itself finds likelier, by token: that can
be compared before and after. Both rewards often fall: then the margin grows by unlearning the rejected answer.

Sources: Rafailov et al. 2023, arXiv:2305.18290, eq. 7; IPO, Azar et al. 2023, arXiv:2310.12036, eq. 17; smoothing,
Mitchell 2023, "A note on DPO with noisy preferences"; dividing by the length as in SimPO, arXiv:2405.14734.
"""

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind.errors import ConfigError
from minimind.interfaces import Batch, Loss, Mean, PairBatch
from minimind.model import Transformer
from minimind.objectives.logprobs import token_logprobs
from minimind.objectives.next_token import with_balance

__all__ = ["Preference"]


class Preference:
    """The sum of the loss over pairs, plus `router_coefficient` times the balance of the experts, if any.

    Errors: ConfigError for settings that have no meaning together
    """

    def __init__(
        self,
        beta: float = 0.1,
        loss: Literal["sigmoid", "ipo"] = "sigmoid",
        *,
        label_smoothing: float = 0.0,
        length_normalised: bool = False,
        router_coefficient: float = 0.01,
    ) -> None:
        if loss not in ("sigmoid", "ipo"):
            raise ConfigError(f"loss is {loss!r}; expected 'sigmoid' or 'ipo'")
        if beta <= 0:
            raise ConfigError(f"beta is {beta}; expected more than 0, such as 0.1")
        if not 0 <= label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing is {label_smoothing}; expected at least 0 and less than 0.5")
        if label_smoothing and loss == "ipo":
            raise ConfigError(f"label_smoothing is {label_smoothing}, which loss = 'ipo' has no use for; set it to 0")
        self.beta, self.loss, self.label_smoothing = beta, loss, label_smoothing
        self.length_normalised, self.router_coefficient = length_normalised, router_coefficient

    def __call__(self, model: Transformer, batch: PairBatch) -> Loss:
        hidden = model.hidden_states(batch.tokens, batch.lengths)
        keep = batch.weights != 0
        logprobs = token_logprobs(hidden.states[keep], model.output_weight, batch.targets[keep])
        sums = (torch.zeros_like(batch.weights).masked_scatter(keep, logprobs) * batch.weights).sum(-1)  # [2P]
        lengths = batch.weights.sum(-1)
        # A pair with an empty side says nothing. Its figures are left out, not multiplied by 0: they may be NaN.
        is_whole = (lengths > 0).view(-1, 2).all(-1)
        by_token = (sums / lengths).detach().view(-1, 2)[is_whole]
        ratios = (sums - batch.reference).view(-1, 2)[is_whole]
        if self.length_normalised:
            ratios = ratios / lengths.view(-1, 2)[is_whole]
        chosen, rejected = ratios.unbind(-1)
        total = self._losses(chosen - rejected).sum()
        means = self._figures(total, chosen.detach(), rejected.detach())
        means["likelier"] = Mean((by_token[:, 0] > by_token[:, 1]).sum(), is_whole.sum())
        shared = _shared_weights(batch, lengths, is_whole)
        return with_balance(Loss(total, means), hidden.router_logits, shared, model.config, self.router_coefficient)

    def _losses(self, margin: Tensor) -> Tensor:
        if self.loss == "ipo":
            return (margin - 1 / (2 * self.beta)).square()
        right, wrong = F.logsigmoid(self.beta * margin), F.logsigmoid(-self.beta * margin)
        return -(1 - self.label_smoothing) * right - self.label_smoothing * wrong

    def _figures(self, total: Tensor, chosen: Tensor, rejected: Tensor) -> dict[str, Mean]:
        pairs = torch.tensor(len(chosen), device=total.device)
        return {
            "loss": Mean(total.detach(), pairs),
            "accuracy": Mean((chosen > rejected).sum(), pairs),
            "margin": Mean(self.beta * (chosen - rejected).sum(), pairs),
            "chosen_reward": Mean(self.beta * chosen.sum(), pairs),
            "rejected_reward": Mean(self.beta * rejected.sum(), pairs),
        }


def _shared_weights(batch: Batch, lengths: Tensor, is_whole: Tensor) -> Batch:
    """The same rows with weights that sum to 1/2 in each: the balance is then a sum over pairs, like the loss."""
    share = is_whole.repeat_interleave(2) / (2 * lengths.clamp_min(1e-12))
    return replace(batch, weights=batch.weights * share[:, None])
