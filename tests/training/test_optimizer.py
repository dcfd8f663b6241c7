"""Muon is torch's Muon, its iteration brings singular values near 1, and each parameter gets the optimiser it needs."""

from typing import Any

import pytest
import torch
from tests.tiny import fresh_model
from torch import Tensor, nn

from minimind.training.optimizer import Muon, Optimizers, make_optimizers, orthogonalise

SHAPES = [(24, 24), (48, 16), (16, 48), (16, 48)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrices() -> list[nn.Parameter]:
    return [nn.Parameter(random(*shape, seed=number)) for number, shape in enumerate(SHAPES)]


def make(model: nn.Module, **changes: Any) -> Optimizers:
    options: dict[str, Any] = {"name": "muon", "muon_lr": 0.02, "lr": 0.01, "embedding_lr": 0.005, "weight_decay": 0.1}
    return make_optimizers(model, **{**options, "betas": (0.8, 0.95), **changes})


# ---- Muon


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.95, 0.0), (0.85, 0.1), (0.0, 0.5)])
def test_muon_takes_the_steps_of_torchs_muon(momentum: float, weight_decay: float) -> None:
    """With Nesterov and Jordan's scale by shape. Both average the gradient into the momentum (lerp) and add none up.

    Both iterate in bfloat16, rounded in another order: 3 % of a step. Without Nesterov it would be 40 % and more.
    """
    ours, theirs = matrices(), matrices()
    options = {"lr": 0.02, "momentum": momentum, "weight_decay": weight_decay}
    mine = Muon(ours, **options)
    oracle = torch.optim.Muon(theirs, nesterov=True, adjust_lr_fn="original", **options)
    for step in range(5):
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad = random(*a.shape, seed=100 * step + number)
            b.grad = a.grad.clone()
        before = [parameter.detach().clone() for parameter in ours]
        mine.step()
        oracle.step()
        for a, b, start in zip(ours, theirs, before, strict=True):
            assert (a - b).norm() < 0.06 * (step + 1) * (a - start).norm()
            torch.testing.assert_close(mine.state[a]["momentum"], oracle.state[b]["momentum_buffer"])


def test_with_summed_momentum_the_steps_would_be_the_same_after_a_constant_gradient() -> None:
    """Averaging scales the momentum by 1 - momentum; orthogonalised, only the direction is left."""
    gradient = random(16, 48)
    averaged = torch.zeros(16, 48)
    summed = torch.zeros(16, 48)
    for step in range(4):
        averaged.lerp_(gradient + step, 0.05)
        summed.mul_(0.95).add_(gradient + step)
    torch.testing.assert_close(orthogonalise(averaged[None]), orthogonalise(summed[None]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 64, 16), (2, 16, 64), (1, 1, 8), (1, 8, 1)])
@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 0.0), (torch.bfloat16, 0.05)])
def test_orthogonalising_brings_singular_values_near_one(
    shape: tuple[int, ...], dtype: torch.dtype, slack: float
) -> None:
    """For singular values above a hundredth of the norm, as those of real gradients that matter."""
    u, s, v = torch.linalg.svd(random(*shape), full_matrices=False)
    s = s / s.max(-1, keepdim=True).values * 0.9 + 0.1
    values = torch.linalg.svdvals(orthogonalise((u * s[:, None] @ v).to(dtype)).float())
    assert 0.6 - slack < values.min() and values.max() < 1.3 + slack


@pytest.mark.parametrize("shape", [(2, 20, 30), (2, 30, 20)])
def test_orthogonalising_keeps_singular_directions(shape: tuple[int, ...]) -> None:
    matrix = random(*shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.mT @ orthogonalise(matrix) @ v.mT
    off_diagonal = inside - torch.diag_embed(inside.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-3


def test_each_matrix_of_a_stack_is_treated_alone_whatever_its_size() -> None:
    one, two = random(1, 16, 24), random(1, 16, 24, seed=1)
    together = orthogonalise(torch.cat([one, two]))
    torch.testing.assert_close(together, torch.cat([orthogonalise(1000 * one), orthogonalise(two / 1000)]))


def test_a_gradient_of_zero_moves_nothing_and_makes_no_nan() -> None:
    (parameter,) = parameters = [nn.Parameter(random(8, 8))]
    before = parameter.detach().clone()
    parameter.grad = torch.zeros(8, 8)
    Muon(parameters).step()
    assert torch.equal(parameter, before)


def test_a_parameter_without_gradient_is_left_alone() -> None:
    with_gradient, without = parameters = [nn.Parameter(random(8, 8)), nn.Parameter(random(8, 8, seed=1))]
    with_gradient.grad = random(8, 8, seed=2)
    optimizer, before = Muon(parameters, weight_decay=0.5), without.detach().clone()
    optimizer.step()
    assert torch.equal(without, before) and without not in optimizer.state
    assert not torch.equal(with_gradient, random(8, 8))


# ---- which parameter goes where


def groups_by_name(model: nn.Module, optimizers: Optimizers) -> dict[str, tuple[str, float, float]]:
    """Parameter -> optimiser, peak rate, weight decay."""
    return {
        name: (part_name, group["lr"], group["weight_decay"])
        for part_name, part in optimizers.parts.items()
        for group in part.param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is member for member in group["params"])
    }


@pytest.mark.parametrize("name", ["muon", "adamw"])
@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": False}, {"num_experts": 4}, {"attention_bias": True, "qk_norm": False}]
)
def test_every_parameter_is_in_exactly_one_group(name: str, changes: dict[str, Any]) -> None:
    model = fresh_model(**changes)
    optimizers = make(model, name=name)
    members = [id(p) for part in optimizers.parts.values() for group in part.param_groups for p in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())


def test_hidden_matrices_go_to_muon_and_the_rest_to_adamw() -> None:
    model = fresh_model(num_experts=4, tie_word_embeddings=False, attention_bias=True)
    found = groups_by_name(model, make(model))
    attention, experts = "layers.0.self_attn", "layers.1.mlp.experts.2"
    for path in (f"{attention}.q_proj", f"{attention}.o_proj", f"{experts}.up_proj", f"{experts}.down_proj"):
        assert found[f"{path}.weight"] == ("muon", 0.02, 0.1)
    for path in ("embed_tokens.weight", "lm_head.weight"):
        assert found[path] == ("adamw", 0.005, 0.0)
    for path in ("norm.weight", f"{attention}.k_norm.weight", f"{attention}.v_proj.bias", "layers.0.mlp.gate.weight"):
        assert found[path] == ("adamw", 0.01, 0.0)


def test_a_dense_gate_projection_is_a_hidden_matrix_and_no_router() -> None:
    model = fresh_model()
    assert groups_by_name(model, make(model))["layers.0.mlp.gate_proj.weight"][0] == "muon"


def test_without_muon_adamw_takes_matrices_with_decay_and_norms_without() -> None:
    model = fresh_model()
    optimizers = make(model, name="adamw")
    found = groups_by_name(model, optimizers)
    assert list(optimizers.parts) == ["adamw"]
    assert found["layers.0.mlp.up_proj.weight"] == ("adamw", 0.01, 0.1) and found["norm.weight"] == ("adamw", 0.01, 0.0)


def test_frozen_parameters_belong_to_no_optimiser() -> None:
    model = fresh_model()
    model.embed_tokens.requires_grad_(False)
    assert "embed_tokens.weight" not in groups_by_name(model, make(model))


def test_adamw_takes_the_steps_of_a_plain_adamw() -> None:
    model, twin = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    twin.load_state_dict(model.state_dict())
    optimizers = make(model, name="adamw")
    oracle = torch.optim.AdamW(twin.parameters(), lr=0.01, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.1)
    for step in range(3):
        model.weight.grad, twin.weight.grad = random(6, 6, seed=step), random(6, 6, seed=step)
        optimizers.step()
        oracle.step()
    torch.testing.assert_close(model.weight, twin.weight)


# ---- several as one


def test_a_schedule_scales_every_rate_from_its_own_peak() -> None:
    model = fresh_model()
    optimizers = make(model)
    for scale in (0.5, 0.1, 1.0):
        optimizers.set_scale(scale, momentum=0.9)
        rates = {group["lr"] for part in optimizers.parts.values() for group in part.param_groups}
        assert rates == {0.02 * scale, 0.01 * scale, 0.005 * scale}
        assert optimizers.learning_rate == 0.02 * scale
        assert optimizers.parts["muon"].param_groups[0]["momentum"] == 0.9
    assert "momentum" not in optimizers.parts["adamw"].param_groups[0]


def test_gradients_of_all_parts_are_forgotten_and_all_parts_step() -> None:
    model = fresh_model()
    optimizers = make(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step()
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []
    optimizers.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
