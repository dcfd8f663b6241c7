"""What the micro-batches of a step add up to: kept on the device, and read once."""

from collections.abc import Mapping

import torch
from torch import Tensor

from minimind.interfaces import Batch, Loss
from minimind.training.distributed import World

__all__ = ["StepSums"]


class StepSums:
    """Weights and figures, added over micro-batches and then over ranks, in float64: a weight of billions stays exact.

    Adding waits for nothing. `read` is the one place of a step where the processor waits for the device.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sums: dict[str, Tensor] = {}

    def add(self, batch: Batch, loss: Loss) -> None:
        """A micro-batch's weight, and its figures."""
        self._add("weight", batch.weight)
        for name, mean in {**loss.means, **batch.means}.items():
            self._add(f"{name}/total", mean.total)
            self._add(f"{name}/weight", mean.weight)

    def read(
        self, counts: Mapping[str, float] | None = None, alike: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, float], dict[str, float]]:
        """The figures as means over the step, and all else by name, `weight` among it.

        counts: of this rank, to be added over the ranks, too
        alike:  what each rank has already, and only needs to be read
        """
        counts, alike = counts or {}, alike or {}
        added = torch.stack([*self._sums.values(), *self._on_device(torch.tensor([*counts.values()])).double()])
        self._world.sum_tensor(added)
        numbers = torch.cat([added, *(value.double().view(1) for value in alike.values())]).tolist()
        found = dict(zip([*self._sums, *counts, *alike], numbers, strict=True))
        names = [name.removesuffix("/total") for name in found if name.endswith("/total")]
        # What has no weight at all has a total of 0, too.
        figures = {name: found.pop(f"{name}/total") / (found.pop(f"{name}/weight") or 1.0) for name in names}
        return figures, found

    def _add(self, name: str, value: Tensor) -> None:
        value = self._on_device(value.detach()).double()
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _on_device(self, value: Tensor) -> Tensor:
        return value.to(self._world.device, non_blocking=True)
