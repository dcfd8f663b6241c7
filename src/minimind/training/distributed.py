"""Several processes as one: the only file that speaks to torch.distributed.

Ranks hold equal copies of the model and different micro-batches of the same step. Gradients are sums, so they are
*added* over ranks, once per step, after the last micro-batch, in a few large flat buffers. There is no wrapper around
the model: nothing can call "the unwrapped module" by mistake, and an objective may run any part of it in any order.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["World", "join", "leave", "num_processes"]

BUCKET_ELEMENTS = 16 * 2**20


@dataclass(frozen=True)
class World:
    """Which of how many processes this is; a single process is a world of its own."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Iterable[float]) -> list[float]:
        """Add each figure over the ranks, in float64 so that a weight of billions of tokens stays exact."""
        device = self.device if self.device.type == "cuda" else "cpu"
        total = torch.tensor(list(values), dtype=torch.float64, device=device)
        self.sum_tensor(total)
        return total.tolist()

    def sum_tensor(self, values: Tensor) -> None:
        """Add each number over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add the gradients over the ranks, in place. Parameters must be in the same order on each rank."""
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(gradient.numel() for gradient in bucket) >= BUCKET_ELEMENTS:
                _sum_in_place(bucket)
                bucket = []
        if bucket:
            _sum_in_place(bucket)

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of all ranks with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def gather(self, content: bytes) -> list[bytes]:
        """What each rank gave, in the order of ranks, on all of them."""
        if self.size == 1:
            return [content]
        device = self.device if self.device.type == "cuda" else torch.device("cpu")
        sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(content)], device=device))
        padded = torch.zeros(max(1, *(int(size) for size in sizes)), dtype=torch.uint8, device=device)
        padded[: len(content)] = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)[: len(content)]
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return [bytes(part[: int(size)].cpu().numpy()) for part, size in zip(parts, sizes, strict=True)]

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            dist.barrier()


def num_processes() -> int:
    """How many processes `torchrun` started, this one included."""
    return int(os.environ.get("WORLD_SIZE", 1))


def join(device: str = "auto", timeout_seconds: float = 600) -> World:
    """Enter the group that `torchrun` describes in the environment, or be alone.

    device: "cpu", "cuda" or "auto" (a GPU where there is one)
    """
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    size, local_rank = num_processes(), int(os.environ.get("LOCAL_RANK", 0))
    place = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(place)
    if size == 1:
        return World(device=place)
    if not dist.is_initialized():
        # A rank that died or hangs makes the others' next collective fail after this long, with its name.
        dist.init_process_group("nccl" if use_cuda else "gloo", timeout=timedelta(seconds=timeout_seconds))
    return World(dist.get_rank(), size, place)


def leave() -> None:
    """Leave the group, if one was entered."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _sum_in_place(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))
