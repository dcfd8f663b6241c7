"""Which arithmetic is fast here: decided by a short measurement, not by the name of the device."""

import ctypes
import sys
import time

import torch
from torch import Tensor

__all__ = ["fastest_dtype", "precision_context", "reuse_freed_memory"]

# bfloat16 must win clearly, because it costs accuracy.
WORTHWHILE = 1.2

# From <malloc.h>: trim only above 2 GB, grow by 256 MB, and use mmap only above 32 MB, the most that glibc accepts.
MALLOPT = {-1: 2**31 - 1, -2: 2**28, -3: 2**25}


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where it multiplies matrices at least 1.2 times as fast as float32, else float32. Takes about 0.1 s."""
    seconds = {dtype: _seconds_per_product(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    return torch.bfloat16 if seconds[torch.float32] > WORTHWHILE * seconds[torch.bfloat16] else torch.float32


def precision_context(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in `dtype`; weights, sums and the residual stream stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def reuse_freed_memory() -> None:
    """Let glibc keep what torch frees for the next step, instead of giving it back and faulting it in anew.

    A training step frees and asks for the same sizes again and again; on a CPU the page faults cost a fifth of it.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        for parameter, value in MALLOPT.items():
            libc.mallopt(parameter, value)


def _seconds_per_product(device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.ones(1024, 512, dtype=dtype, device=device) for _ in range(2))
    _product(a, b)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        _product(a, b)
        best = min(best, time.perf_counter() - start)
    return best


def _product(a: Tensor, b: Tensor) -> None:
    torch.nn.functional.linear(a, b)
    if a.is_cuda:
        torch.cuda.synchronize()
