"""The weighted sum of next-token losses, without ever holding all logits.

    total = Σ_n w_n · (log Σ_v exp(h_n·e_v) − h_n·e_{y_n})

The logits of a long batch are by far its largest tensor: 8,192 tokens × 6,400 words × 4 bytes = 210 MB, several times
over. So they are made a slice at a time, and the gradient of each slice is taken at once, while its logits are still in
the cache: the backward pass then only scales what is already there. Tokens of weight 0 cost nothing; they are left out
before the first product.

Source: the idea is Liger Kernel's (Hsu et al. 2024, arXiv:2410.10989) and torch's `linear_cross_entropy`, which takes
no weight per token.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

__all__ = ["weighted_cross_entropy"]

# Logits of one slice in float32, 256 × 6,400 × 4 bytes = 6.5 MB, stay in a processor's last-level cache.
SLICE_TOKENS = 256


def weighted_cross_entropy(states: Tensor, output_weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The float32 sum of `weights` times the negative log-probability of `targets`.

    states:        [N, D] hidden states; their dtype is that of the products, sums are in float32
    output_weight: [V, D]
    targets:       [N] int64
    weights:       [N] float32
    """
    if not torch.is_grad_enabled():
        # Inside a Function the mode always reads "off" and a parameter still "needs" its gradient.
        output_weight = output_weight.detach()
    keep = weights != 0
    states, targets, weights = states[keep], targets[keep], weights[keep]
    return _WeightedCrossEntropy.apply(states, output_weight, targets, weights)  # pyright: ignore[reportReturnType]


class _WeightedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, output_weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        matrix = output_weight.to(states.dtype)
        needs_gradient = any(ctx.needs_input_grad[:2])
        states_gradient = torch.empty_like(states) if needs_gradient else None
        matrix_gradient = torch.zeros_like(output_weight, dtype=torch.float32) if needs_gradient else None
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for start in range(0, len(states), SLICE_TOKENS):
            part = slice(start, start + SLICE_TOKENS)
            log_probabilities = (states[part] @ matrix.T).log_softmax(-1, dtype=torch.float32)  # [n, V]
            chosen = targets[part, None]
            # Not a product of vectors: autocast would round it to bfloat16.
            total -= (log_probabilities.gather(1, chosen).squeeze(1) * weights[part]).sum()
            if states_gradient is None or matrix_gradient is None:
                continue
            # d total / d logits = w · (softmax − one-hot), written over the log-probabilities.
            gradient = log_probabilities.exp_()
            gradient.scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=torch.float32))
            gradient = gradient.mul_(weights[part, None]).to(states.dtype)
            states_gradient[part] = gradient @ matrix
            matrix_gradient += gradient.T @ states[part]
        ctx.save_for_backward(states_gradient, matrix_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, scale: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states_gradient, matrix_gradient = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return states_gradient * scale.to(states_gradient.dtype), matrix_gradient * scale, None, None
