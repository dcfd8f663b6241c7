"""The arithmetic is chosen by measurement, and bfloat16 reaches the products alone."""

import subprocess
import sys

import pytest
import torch

from minimind.training import device
from minimind.training.device import fastest_dtype, precision_context

CPU = torch.device("cpu")


def test_the_probe_answers_with_one_of_two_types() -> None:
    assert fastest_dtype(CPU) in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(("seconds", "expected"), [(0.7, torch.bfloat16), (0.9, torch.float32), (5.0, torch.float32)])
def test_bfloat16_must_win_clearly(seconds: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 takes 1 s; bfloat16 must take less than 1 / 1.2."""
    times = {torch.float32: 1.0, torch.bfloat16: seconds}
    monkeypatch.setattr(device, "_seconds_per_product", lambda _, dtype: times[dtype])
    assert fastest_dtype(CPU) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_take_the_type_and_weights_keep_theirs(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(4, 4)
    with precision_context(CPU, dtype):
        y = layer(torch.ones(2, 4))
    y.float().sum().backward()
    assert (y.dtype, layer.weight.dtype, layer.weight.grad.dtype) == (dtype, torch.float32, torch.float32)  # type: ignore[union-attr]
    assert layer(torch.ones(2, 4)).dtype == torch.float32, "outside the block all is as before"


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc and /proc")
def test_freed_memory_is_used_again_instead_of_faulted_in_anew() -> None:
    """Freeing and asking for 64 MB again and again costs page faults only until it is asked to keep them."""
    code = """
import resource, torch
from minimind.training.device import reuse_freed_memory
def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5): torch.ones(4 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
before = faults(); reuse_freed_memory(); faults(); print(before, faults())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, result.stdout.split())
    assert after < before / 10
