"""Pairs -> the micro-batches of a step, and what the reference model says of them, computed once.

The reference does not learn, so one figure a row is all that training needs of it: it is computed before the first
step, kept in a file, and the model itself is no longer held.
"""

import hashlib
from collections.abc import Callable, Sequence
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
from minimind.training.epoch_source import EpochSource

__all__ = ["PairSource", "collate_pairs", "load_reference", "reference_logprobs", "save_reference"]


class PairSource(EpochSource):
    """Preference pairs, of which each step takes the next `batch_pairs`.

    reference: [2N] float32, of each row of `pairs`, see `PairBatch`
    cut:       accumulate, rank and ranks, see `EpochSource`
    """

    def __init__(self, pairs: Pairs, *, batch_pairs: int, seed: int, reference: np.ndarray, **cut: int) -> None:
        if not len(pairs):
            raise DataError("the data has no preference pair; give a file with 'chosen' and 'rejected' answers")
        assert reference.shape == (2 * len(pairs),), f"{reference.shape} figures for {len(pairs)} pairs"
        super().__init__(len(pairs), batch_pairs, seed=seed, **cut)
        self.pairs, self.reference = pairs, reference

    def describe(self) -> str:
        return f"{len(self.pairs):,} pairs, {self.items_per_step:,} a step"

    def micro_batches(self, step: int) -> Sequence[PairBatch]:
        return [collate_pairs(self.pairs, part.tolist(), self.reference) for part in self.parts_of_step(step)]


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
