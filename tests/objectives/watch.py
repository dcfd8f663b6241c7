"""What an objective computes and holds, as torch's dispatcher sees it."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Watch"]


class Watch(TorchDispatchMode):
    """Counts matrix products, and remembers the most numbers any single tensor held."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.largest = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.products += func is torch.ops.aten.mm.default
        self.largest = max(self.largest, result.numel() if isinstance(result, Tensor) else 0)
        return result
