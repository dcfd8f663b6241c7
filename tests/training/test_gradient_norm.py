"""The norm of a gradient is right to 1e-6, however many numbers it has and however they are shaped."""

import pytest
import torch
from torch import Tensor

from minimind.training.gradient_norm import gradient_norm


def exact(tensors: list[Tensor]) -> float:
    """In float64, a few numbers at a time."""
    return (
        sum(part.double().square().sum().item() for tensor in tensors for part in tensor.flatten().split(4096)) ** 0.5
    )


@pytest.mark.parametrize("offset", [0.0, 1e-3])
def test_a_large_matrix_loses_nothing_to_rounding(offset: float) -> None:
    """Of this one torch's own norm is too small by 2e-5, of a vocabulary of 151,936 by 2 %."""
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(6400, 1024, generator=generator).mul_(1e-3).add_(offset)
    assert gradient_norm([gradient]).item() == pytest.approx(exact([gradient]), rel=1e-7)
    if not offset:
        assert gradient.norm().item() != pytest.approx(exact([gradient]), rel=1e-6), "so there is something to mend"


def test_all_gradients_are_one_vector_whatever_their_shapes() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3,), (1,), (1024,), (1025,), (7, 300), (2, 3, 5), (50, 40)]
    gradients = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients[-1] = gradients[-1].T
    assert gradient_norm(gradients).item() == pytest.approx(exact(gradients), rel=1e-7)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_number_that_is_not_finite_is_noticed(value: float) -> None:
    gradient = torch.ones(3000)
    gradient[2999] = value
    assert not gradient_norm([torch.ones(5), gradient]).isfinite()
