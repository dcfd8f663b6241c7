"""Log-probabilities of given tokens, one figure each, without ever holding all logits.

    log p(y_n) = z_n[y_n] − log Σ_v exp z_n[v],    z_n = h_n·e_v / temperature,  v < num_ids

Preferences and policies are made of these. `cross_entropy.py` takes the gradient on the way, because it knows the loss
of each token; here that is known only above, so the backward pass makes each slice's logits once more. Memory is
bounded by a slice in both passes, and a call with gradient gives the bits of one without: the ratio of a policy to
itself is exactly 1.

To read the entropy: nats, 0 when the next token is certain and log V when all are as likely; a policy whose entropy
falls to nothing has stopped exploring.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from minimind.interfaces import Batch
from minimind.model import Transformer
from minimind.objectives.cross_entropy import SLICE_TOKENS

__all__ = ["batch_logprobs", "token_logprobs", "token_logprobs_and_entropy", "token_slices"]


def batch_logprobs(model: Transformer, batch: Batch, *, temperature: float = 1.0, num_ids: int | None = None) -> Tensor:
    """[B, T] float32: the log-probability of each target; 0 where its weight is 0, which costs nothing."""
    states = model.hidden_states(batch.tokens, batch.lengths).states
    keep = batch.weights != 0
    logprobs = token_logprobs(
        states[keep], model.output_weight, batch.targets[keep], temperature=temperature, num_ids=num_ids
    )
    return torch.zeros_like(batch.weights).masked_scatter(keep, logprobs)


def token_logprobs(
    states: Tensor, output_weight: Tensor, targets: Tensor, *, temperature: float = 1.0, num_ids: int | None = None
) -> Tensor:
    """[N] float32: the log-probability of each target under softmax(logits[:num_ids] / temperature).

    states:        [N, D] hidden states; their dtype is that of the products, sums are in float32
    output_weight: [V, D]
    targets:       [N] int64, below num_ids
    num_ids:       ids of the tokenizer, as far as sampling goes; None is all rows of `output_weight`
    """
    matrix = output_weight[:num_ids]
    return _TokenLogprobs.apply(states, matrix, targets, temperature, False)[0]  # pyright: ignore[reportIndexIssue]


def token_logprobs_and_entropy(
    states: Tensor, output_weight: Tensor, targets: Tensor, *, temperature: float = 1.0, num_ids: int | None = None
) -> tuple[Tensor, Tensor]:
    """The same, and the entropy [N] of each distribution, for reports: it has no gradient."""
    matrix = output_weight[:num_ids]
    return _TokenLogprobs.apply(states, matrix, targets, temperature, True)  # pyright: ignore[reportReturnType]


def token_slices(size: int) -> Iterator[slice]:
    """Cut `size` tokens into slices whose logits may be held at once."""
    return (slice(start, start + SLICE_TOKENS) for start in range(0, size, SLICE_TOKENS))


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, output_weight: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        matrix = output_weight.to(states.dtype)
        logprobs = torch.zeros(len(states), dtype=torch.float32, device=states.device)
        entropy = torch.zeros_like(logprobs)
        for part in token_slices(len(states)):
            log_probabilities = _log_probabilities(states[part], matrix, temperature)
            logprobs[part] = log_probabilities.gather(1, targets[part, None]).squeeze(1)
            if with_entropy:
                entropy[part] = -log_probabilities.mul_(log_probabilities.exp()).sum(-1)
        ctx.save_for_backward(states, output_weight, targets)
        ctx.mark_non_differentiable(entropy)
        ctx.temperature = temperature
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, output_weight, targets = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        needs_states, needs_matrix = ctx.needs_input_grad[:2]  # pyright: ignore[reportAttributeAccessIssue]
        temperature: float = ctx.temperature  # pyright: ignore[reportAttributeAccessIssue]
        matrix = output_weight.to(states.dtype)
        states_gradient = torch.empty_like(states) if needs_states else None
        matrix_gradient = torch.zeros_like(output_weight, dtype=torch.float32) if needs_matrix else None
        for part in token_slices(len(states)):
            # d log p(y) / d logits = (one-hot − softmax) / temperature, written over the log-probabilities.
            gradient = _log_probabilities(states[part], matrix, temperature).exp_().neg_()
            chosen = targets[part, None]
            gradient.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float32))
            gradient = gradient.mul_(scale[part, None] / temperature).to(states.dtype)
            if states_gradient is not None:
                states_gradient[part] = gradient @ matrix
            if matrix_gradient is not None:
                matrix_gradient += gradient.T @ states[part]
        if matrix_gradient is not None:
            matrix_gradient = matrix_gradient.to(output_weight.dtype)
        return states_gradient, matrix_gradient, None, None, None


def _log_probabilities(states: Tensor, matrix: Tensor, temperature: float) -> Tensor:
    """[n, V] float32 of a slice."""
    # The backward pass runs outside autocast, and has to make the same logits.
    with torch.autocast(states.device.type, enabled=False):
        logits = (states @ matrix.T).float()
    return (logits if temperature == 1 else logits.div_(temperature)).log_softmax(-1)
