"""Two optimisers side by side: Muon for matrices between hidden states, AdamW for everything else.

AdamW scales each number by its own history. Muon treats a matrix as one object: it follows the momentum's direction
with all singular values pushed to 1, so rare directions are learnt as fast as common ones. Embeddings, the head, norms
and biases are not such matrices.

Why not `torch.optim.Muon`: docs/decisions/0013-muon-of-our-own.md.

Source: Loshchilov & Hutter 2017, arXiv:1711.05101; Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
networks"; the scale by the matrix's shape is theirs too.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from minimind.training.settings import UpdateConfig

__all__ = ["Muon", "Optimizers", "make_optimizers", "optimizers_for", "orthogonalise"]

# Coefficients of the quintic iteration: steepest at 0 that keeps singular values within about [0.7, 1.2] (Jordan 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)


# The gradient of a rare row of the embedding, a mean over the step's tokens, may be as small as torch's 1e-8, and its
# steps would shrink. From the same speed runs as the betas of `UpdateConfig`: modded-nanogpt (Jordan et al. 2024).
ADAM_EPS = 1e-10
# Keeps a gradient of 0 from being divided by its norm, as in Jordan's Muon and torch's.
NORM_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. Parameters are 2-D; those of one shape are updated together.

    weight_decay is decoupled, as in AdamW. dtype is that of the iteration, which tolerates bfloat16.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.dtype = dtype
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._step_together(parameters, group)

    def _step_together(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        directions = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            assert parameter.grad is not None
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            # Nesterov: look one momentum step ahead.
            directions.append(parameter.grad.lerp(state["momentum"], group["momentum"]))
        rows, columns = parameters[0].shape
        # Jordan's scale: an update of a tall matrix has the same effect on its outputs as that of a square one.
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        for parameter, update in zip(parameters, orthogonalise(torch.stack(directions).to(self.dtype)), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.to(parameter.dtype), alpha=-rate)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """[n, rows, columns] -> the same directions with all singular values near 1, by a Newton-Schulz iteration.

    It only has to bring the singular values roughly to 1, so it may run in bfloat16.
    """
    a, b, c = QUINTIC
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + NORM_EPS).to(x.dtype)
    for _ in range(steps):
        # a x + (b g + c g g) x with g = x xᵀ, each sum taken on the way by the product it belongs to.
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


class Optimizers:
    """Several optimisers that step as one, with the learning rates of a schedule."""

    def __init__(self, parts: dict[str, torch.optim.Optimizer]) -> None:
        self.parts = parts
        self.peak_rates = {name: [group["lr"] for group in part.param_groups] for name, part in parts.items()}

    def set_scale(self, scale: float, momentum: float | None = None) -> None:
        """Each group's learning rate becomes its peak rate times `scale`."""
        for name, part in self.parts.items():
            for group, peak in zip(part.param_groups, self.peak_rates[name], strict=True):
                group["lr"] = peak * scale
                if momentum is not None and "momentum" in group:
                    group["momentum"] = momentum

    @property
    def learning_rate(self) -> float:
        """The first group's rate, the one to plot."""
        return next(iter(self.parts.values())).param_groups[0]["lr"]

    def step(self) -> None:
        for part in self.parts.values():
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)


def optimizers_for(model: nn.Module, settings: UpdateConfig, dtype: torch.dtype) -> Optimizers:
    """Those that the settings spell out, for the parameters of `model` that are trained."""
    return make_optimizers(
        model,
        name=settings.optimizer,
        muon_lr=settings.muon_lr,
        lr=settings.lr,
        embedding_lr=settings.embedding_lr,
        weight_decay=settings.weight_decay,
        betas=(settings.beta1, settings.beta2),
        dtype=dtype,
    )


def make_optimizers(
    model: nn.Module,
    *,
    name: str,
    muon_lr: float,
    lr: float,
    embedding_lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    dtype: torch.dtype = torch.bfloat16,
) -> Optimizers:
    """Sort the trainable parameters: hidden matrices, embeddings and head, vectors.

    name: "muon" (Muon for hidden matrices, AdamW for the rest) or "adamw" (AdamW for all, hidden matrices at `lr`)
    """
    matrices, embeddings, vectors = [], [], []
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_embedding = path.endswith(("embed_tokens.weight", "lm_head.weight"))
        # Routers are matrices, but each row is one expert's direction, not a map between hidden states.
        # And a critic's head is a single direction.
        is_direction = path.endswith("mlp.gate.weight") or parameter.shape[0] == 1
        is_hidden = parameter.ndim == 2 and not is_embedding and not is_direction
        (embeddings if is_embedding else matrices if is_hidden else vectors).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": embeddings, "lr": embedding_lr, "weight_decay": 0.0},
        {"params": vectors, "lr": lr, "weight_decay": 0.0},
    ]
    parts: dict[str, torch.optim.Optimizer] = {}
    if name == "muon" and matrices:
        parts["muon"] = Muon(matrices, lr=muon_lr, weight_decay=weight_decay, dtype=dtype)
    elif matrices:
        groups.insert(0, {"params": matrices, "lr": lr, "weight_decay": weight_decay})
    groups = [group for group in groups if group["params"]]
    if groups:
        parts["adamw"] = torch.optim.AdamW(groups, betas=betas, eps=ADAM_EPS, fused=True)
    return Optimizers(parts)
