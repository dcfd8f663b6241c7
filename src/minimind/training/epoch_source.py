"""Where the micro-batches of a run come from: the order of its items, the part of each rank, and what a run must know.

An epoch takes each item (a row, a pair, a prompt) once, in an order that depends on (seed, epoch); a step takes the
next few, and what a rank gets of them depends on (step, rank). So nothing has to be remembered to resume, and another
number of ranks sees the same items at the same step.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from minimind.interfaces import Batch

__all__ = ["EpochSource"]


class EpochSource(ABC):
    """A `Source` that goes through a number of items in epochs, and that `fit` can introduce, save and resume.

    items_per_step:  of all ranks together; the last step of an epoch takes what is left
    accumulate:      micro-batches that each rank cuts its items into
    stream:          tells apart the orders of sources that share a seed
    item_tokens:     positions of an item in memory; 0 where they differ
    steps_per_epoch: what an epoch comes to in updates
    timings:         seconds of the last step by what they went into, for reports; empty where nothing takes long
    """

    item_tokens = 0

    def __init__(
        self,
        num_items: int,
        items_per_step: int,
        *,
        seed: int,
        accumulate: int = 1,
        rank: int = 0,
        ranks: int = 1,
        stream: int = 1,
    ) -> None:
        self.num_items, self.items_per_step, self.seed, self.stream = num_items, items_per_step, seed, stream
        self.accumulate, self.rank, self.ranks = accumulate, rank, ranks
        self.steps_per_epoch = -(-num_items // items_per_step)
        self.timings: Mapping[str, float] = {}
        # A step may reach from one epoch into the next, and a permutation of millions takes a while.
        self.order = lru_cache(maxsize=2)(self._order)

    @abstractmethod
    def describe(self) -> str:
        """What it draws from, in a few words for the first line of a run."""

    @abstractmethod
    def micro_batches(self, step: int) -> Sequence[Batch]:
        """See `Source`."""

    def accepts(self, figures: Mapping[str, float]) -> bool:
        """Yes: data do not react to how well they are learnt."""
        return True

    def state_files(self) -> Mapping[str, bytes]:
        """Files to keep in a checkpoint, by name: what the next step needs and seed and step do not tell."""
        return {}

    def load_state(self, folder: Path) -> None:
        """Read back what `state_files` kept in a checkpoint. Errors: CheckpointError"""
        assert not self.state_files(), f"{type(self).__name__} keeps a state and does not read it"

    def items_of_step(self, step: int) -> np.ndarray:
        """The numbers of the items that all ranks together take at `step`."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.order(epoch)[place * self.items_per_step : (place + 1) * self.items_per_step]

    def parts_of_step(self, step: int) -> list[np.ndarray]:
        """The items of each of this rank's micro-batches.

        A step can have fewer items than parts; a rank without any still takes part, with one that is empty.
        """
        parts = np.array_split(self.items_of_step(step), self.ranks * self.accumulate)
        mine = parts[self.rank * self.accumulate : (self.rank + 1) * self.accumulate]
        return [part for part in mine if len(part)] or mine[:1]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, self.stream, epoch]).permutation(self.num_items)
