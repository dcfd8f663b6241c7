"""Pairs -> the micro-batches of a step, and what the reference model says of them, computed once.

The order of pairs depends on (seed, epoch) and what a rank gets on (step, rank), as in `loader.py`. The reference does
not learn, so one figure a row is all that training needs of it: it is computed before the first step, kept in a file,
and the model itself is no longer held.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from minimind.data.pairs import Pairs
from minimind.errors import DataError
from minimind.interfaces import Batch, PairBatch
from minimind.storage.folder import write_file

__all__ = ["PairSource", "collate_pairs", "load_reference", "reference_logprobs", "save_reference"]


class PairSource:
    """A Source: each step takes the next `batch_pairs` pairs of the epoch's order; the last one what is left.

    reference: [2N] float32, of each row of `pairs`, see `PairBatch`
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        batch_pairs: int,
        seed: int,
        reference: np.ndarray,
        accumulate: int = 1,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not len(pairs):
            raise DataError("the data has no preference pair; give a file with 'chosen' and 'rejected' answers")
        assert reference.shape == (2 * len(pairs),), f"{reference.shape} figures for {len(pairs)} pairs"
        self.pairs, self.batch_pairs, self.seed, self.reference = pairs, batch_pairs, seed, reference
        self.accumulate, self.rank, self.ranks = accumulate, rank, ranks
        self.steps_per_epoch = -(-len(pairs) // batch_pairs)
        self.timings: Mapping[str, float] = {}
        self._order = lru_cache(maxsize=2)(self._order_of_epoch)

    def describe(self) -> str:
        return f"{len(self.pairs):,} pairs, {self.batch_pairs:,} a step"

    def micro_batches(self, step: int) -> Sequence[PairBatch]:
        parts = np.array_split(self.pairs_of_step(step), self.ranks * self.accumulate)
        mine = parts[self.rank * self.accumulate : (self.rank + 1) * self.accumulate]
        # A step can have fewer pairs than parts; a rank without any still takes part, with a pair of weight 0.
        filled = [part for part in mine if len(part)] or mine[:1]
        return [collate_pairs(self.pairs, part.tolist(), self.reference) for part in filled]

    def pairs_of_step(self, step: int) -> np.ndarray:
        """The numbers of the pairs that all ranks together take at `step`."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[place * self.batch_pairs : (place + 1) * self.batch_pairs]

    def accepts(self, metrics: Mapping[str, float]) -> bool:
        """Pairs do not react to how well they are learnt."""
        return True

    def state_files(self) -> Mapping[str, bytes]:
        """Nothing: seed and step tell all."""
        return {}

    def load_state(self, folder: Path) -> None:
        """There is nothing to read back."""

    def _order_of_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.pairs))


def collate_pairs(pairs: Pairs, numbers: Sequence[int], reference: np.ndarray) -> PairBatch:
    """Pairs -> a batch of two rows each, padded on the right to the longest; no pairs make one of weight 0."""
    rows = [row for number in numbers for row in (2 * number, 2 * number + 1)]
    width = max((int(pairs.lengths[row]) - 1 for row in rows), default=1)
    tokens = np.zeros((max(len(rows), 2), width), dtype=np.int64)
    targets, weights = np.zeros_like(tokens), np.zeros(tokens.shape, dtype=np.float32)
    for index, row in enumerate(rows):
        side = pairs.rows[row]
        size = len(side.ids) - 1
        tokens[index, :size] = side.ids[:-1]
        targets[index, :size] = side.ids[1:]
        weights[index, :size] = side.weights[1:]
    figures = np.zeros(len(tokens), dtype=np.float32)
    figures[: len(rows)] = reference[rows]
    return PairBatch(
        tokens=torch.from_numpy(tokens),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights),
        num_tokens=sum(int(pairs.lengths[row]) - 1 for row in rows),
        divisor=float(len(numbers)),
        reference=torch.from_numpy(figures),
    )


@torch.no_grad()
def reference_logprobs(
    logprobs: Callable[[Batch], Tensor], pairs: Pairs, *, batch_pairs: int, device: torch.device | str = "cpu"
) -> np.ndarray:
    """[2N] float32: of each row, the sum over its weighted targets of what `logprobs` says.

    logprobs: a batch -> [B, T], the log-probability of each target, in the precision that training will use
    """
    figures = np.zeros(2 * len(pairs), dtype=np.float32)
    # Pairs of like length have little padding; which lie together decides nothing else.
    order = np.argsort(pairs.lengths.reshape(-1, 2).max(-1), kind="stable")
    for start in range(0, len(order), batch_pairs):
        numbers = order[start : start + batch_pairs]
        batch = collate_pairs(pairs, numbers.tolist(), figures).to(device)
        sums = (logprobs(batch) * batch.weights).sum(-1)
        figures.reshape(-1, 2)[numbers] = sums.view(-1, 2).cpu().numpy()
    return figures


def save_reference(path: Path, reference: np.ndarray, *, pairs: str, model: str) -> None:
    """Keep the figures in a file that says whose they are: fingerprints of the pairs and of the model.

    Errors: DataError
    """
    facts = {"pairs": pairs, "model": model, "sha256": hashlib.sha256(reference.tobytes()).hexdigest()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, save({"reference": reference}, metadata=facts))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}; choose another disk") from error


def load_reference(path: Path, *, pairs: str, model: str) -> np.ndarray | None:
    """The figures that were kept of these pairs and this model; None where they have to be computed (again)."""
    try:
        with safe_open(path, framework="np") as file:
            facts, reference = file.metadata() or {}, file.get_tensor("reference")
    except (OSError, SafetensorError):
        return None
    expected = {"pairs": pairs, "model": model, "sha256": hashlib.sha256(reference.tobytes()).hexdigest()}
    return reference if facts == expected and reference.dtype == np.float32 else None
