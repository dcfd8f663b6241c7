"""Documents -> rows -> the micro-batches of a step.

Documents are cut into pieces of at most `context` positions and the pieces are packed into rows of that length. A piece
keeps the id that follows it as its last target, so a document of n ids gives its n − 1 targets exactly once, wherever
it is cut. The plan of rows depends on the seed alone; `training/epoch_source.py` says which of them a step takes.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from minimind.errors import DataError
from minimind.interfaces import Batch
from minimind.training.epoch_source import EpochSource

__all__ = ["Documents", "PackedRow", "PackedRows", "Piece", "Subset", "collate", "plan_rows"]

# Pieces are fitted among this many at a time: enough for rows over 99 % full, few enough for millions of documents.
FITTING_WINDOW = 4096


class Documents(Protocol):
    """A sequence of documents as ids and weights, such as a `ShardSet`; `lengths` counts ids, [N] int64."""

    @property
    def lengths(self) -> np.ndarray: ...

    def __getitem__(self, document: int, /) -> tuple[np.ndarray, np.ndarray]: ...


class Subset:
    """Some of the documents, by their numbers."""

    def __init__(self, documents: Documents, numbers: np.ndarray) -> None:
        self._documents, self._numbers = documents, numbers
        self.lengths = documents.lengths[numbers]

    def __getitem__(self, document: int, /) -> tuple[np.ndarray, np.ndarray]:
        return self._documents[int(self._numbers[document])]


@dataclass(frozen=True, slots=True)
class Piece:
    """Positions start .. start + size of a document; each has the next id as its target."""

    document: int
    start: int
    size: int


PackedRow = tuple[Piece, ...]


def plan_rows(lengths: np.ndarray, context: int, seed: int) -> list[PackedRow]:
    """Cut documents of `lengths` ids into pieces, and fit the pieces into rows of at most `context` positions.

    Each window of pieces is packed best-fit decreasing. A document of fewer than 2 ids has nothing to predict.
    """
    order = np.random.default_rng([seed, 0]).permutation(len(lengths))
    pieces = [
        Piece(int(document), start, min(context, int(lengths[document]) - 1 - start))
        for document in order
        for start in range(0, int(lengths[document]) - 1, context)
    ]
    rows: list[PackedRow] = []
    for first in range(0, len(pieces), FITTING_WINDOW):
        window = sorted(pieces[first : first + FITTING_WINDOW], key=lambda piece: -piece.size)
        rows.extend(_fit(window, context))
    return rows


def _fit(pieces: list[Piece], context: int) -> list[PackedRow]:
    rows: list[list[Piece]] = []
    # (free positions, row), sorted: the first that is large enough is the tightest fit.
    free: list[tuple[int, int]] = []
    for piece in pieces:
        place = bisect_left(free, (piece.size, -1))
        if place == len(free):
            rows.append([piece])
            remaining, row = context - piece.size, len(rows) - 1
        else:
            remaining, row = free.pop(place)
            rows[row].append(piece)
            remaining -= piece.size
        if remaining:
            insort(free, (remaining, row))
    return [tuple(row) for row in rows]


def collate(documents: Documents, rows: Sequence[PackedRow], is_packed: bool = True) -> Batch:
    """Rows of pieces -> a batch as wide as its longest row; what is left of a shorter one is padding of weight 0.

    is_packed: tell the model where documents end; False is for rows of a single piece, padded on the right.
    """
    width = max((sum(piece.size for piece in row) for row in rows), default=1)
    tokens = np.zeros((max(len(rows), 1), width), dtype=np.int64)
    targets, weights = np.zeros_like(tokens), np.zeros(tokens.shape, dtype=np.float32)
    lengths: list[int] = []
    for index, row in enumerate(rows):
        at = 0
        for piece in row:
            ids, document_weights = documents[piece.document]
            here, source = slice(at, at + piece.size), slice(piece.start, piece.start + piece.size)
            following = slice(piece.start + 1, piece.start + piece.size + 1)
            tokens[index, here] = ids[source]
            targets[index, here] = ids[following]
            weights[index, here] = document_weights[following]
            lengths.append(piece.size)
            at += piece.size
        if at < width:
            lengths.append(width - at)
    return Batch(
        tokens=torch.from_numpy(tokens),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights),
        lengths=tuple(lengths or (width,)) if is_packed else None,
        num_tokens=sum(piece.size for row in rows for piece in row),
    )


class PackedRows(EpochSource):
    """Documents packed into rows, of which each step takes the next `batch_tokens // context`.

    fill: the share of positions that are not padding
    """

    def __init__(self, documents: Documents, *, context: int, batch_tokens: int, seed: int, **cut: int) -> None:
        """cut: accumulate, rank and ranks, see `EpochSource`. Errors: DataError"""
        if batch_tokens < context:
            raise DataError(
                f"train.batch_tokens is {batch_tokens}, less than one row of data.context = {context} tokens; "
                "raise the first or lower the second"
            )
        self.documents, self.context, self.batch_tokens = documents, context, batch_tokens
        self.item_tokens = context
        self.rows = plan_rows(documents.lengths, context, seed)
        if not self.rows:
            raise DataError("the data has no document of at least two tokens; nothing can be predicted from it")
        super().__init__(len(self.rows), batch_tokens // context, seed=seed, **cut)
        positions = sum(piece.size for row in self.rows for piece in row)
        self.fill = positions / (len(self.rows) * context)

    def describe(self) -> str:
        return (
            f"{len(self.documents.lengths):,} documents in {len(self.rows):,} rows of {self.context} "
            f"({self.fill:.1%} full), {self.batch_tokens:,} tokens a step"
        )

    def micro_batches(self, step: int) -> Sequence[Batch]:
        return [self.batch_of([self.rows[index] for index in part]) for part in self.parts_of_step(step)]

    def batch_of(self, rows: Sequence[PackedRow]) -> Batch:
        return collate(self.documents, rows)
