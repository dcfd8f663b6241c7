"""What a teacher finds likely after every token of a data set, kept on the disk: its best K ids and their logprobs.

Computed once, so that the teacher is not in memory while the student learns, and many students may learn from it. A
token costs K · 8 bytes. The folder names what it was made from, and is refused for anything else.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minimind.data.loader import Documents, PackedRow, PackedRows, Piece, collate, plan_rows
from minimind.errors import DataError
from minimind.interfaces import Batch, TeacherBatch
from minimind.storage.folder import write_folder
from minimind.storage.verify import verify_folder

__all__ = ["KeptTeacher", "TeacherRows", "TeacherSettings", "keep_teacher"]

INDEX, IDS, LOGPROBS = "index.json", "ids.bin", "logprobs.bin"
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class TeacherSettings:
    """What was kept, and what it is true of.

    teacher, documents: fingerprints
    context:            of the rows; a longer document is cut there, and the teacher does not see what lies before
    temperature:        of the log-probabilities
    """

    teacher: str
    documents: str
    context: int
    temperature: float
    num_kept: int


def keep_teacher(
    folder: Path,
    documents: Documents,
    settings: TeacherSettings,
    best: Callable[[Batch], tuple[Tensor, Tensor]],
    observe: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write what the teacher finds likely behind each position of each document, whole or not at all.

    best:     a batch -> the ids and their log-probabilities, each [B, T, K]
    observe:  told how many of how many rows are done
    Errors:   CheckpointError when it cannot be written
    """
    rows = plan_rows(documents.lengths, settings.context, seed=0)
    starts = _starts(documents.lengths)
    shape = (int(starts[-1]), settings.num_kept)

    def fill(place: Path) -> None:
        ids = np.memmap(place / IDS, np.uint32, "w+", shape=shape)
        logprobs = np.memmap(place / LOGPROBS, np.float32, "w+", shape=shape)
        done = 0
        size = max(1, BATCH_TOKENS // settings.context)
        for some in (rows[first : first + size] for first in range(0, len(rows), size)):
            found = [part.cpu().numpy() for part in best(collate(documents, some))]
            for row, at, piece in _places(some):
                to = slice(int(starts[piece.document]) + piece.start, None)
                for kept, part in zip((ids, logprobs), found, strict=True):
                    kept[to][: piece.size] = part[row, at : at + piece.size]
            done += len(some)
            observe(done, len(rows))
        ids.flush()
        logprobs.flush()
        (place / INDEX).write_text(json.dumps(asdict(settings), indent=1), encoding="utf-8")

    write_folder(folder, fill, need_bytes=8 * shape[0] * shape[1])


class KeptTeacher:
    """A folder that `keep_teacher` wrote: `teacher[document]` is (ids, logprobs), [n - 1, K] each."""

    def __init__(self, folder: Path, documents: Documents, settings: TeacherSettings) -> None:
        """Errors: DataError when the folder was made from something else; CheckpointError when it is damaged"""
        verify_folder(folder)
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        wrong = [f.name for f in fields(TeacherSettings) if found.get(f.name) != getattr(settings, f.name)]
        if wrong:
            shown = ", ".join(f"{name} {found.get(name)}, now {getattr(settings, name)}" for name in wrong)
            raise DataError(f"{folder}: kept for {shown}; remove it to keep the teacher anew")
        self.num_kept = settings.num_kept
        self._starts = _starts(documents.lengths)
        shape = (int(self._starts[-1]), settings.num_kept)
        self._ids = np.memmap(folder / IDS, np.uint32, "r", shape=shape)
        self._logprobs = np.memmap(folder / LOGPROBS, np.float32, "r", shape=shape)

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        where = slice(int(self._starts[document]), int(self._starts[document + 1]))
        return self._ids[where], self._logprobs[where]


class TeacherRows(PackedRows):
    """Packed rows, each position with what the teacher finds likely there."""

    def __init__(self, documents: Documents, *, teacher: KeptTeacher, **options: Any) -> None:
        super().__init__(documents, **options)
        self.teacher = teacher

    def describe(self) -> str:
        return f"{super().describe()}, the teacher's best {self.teacher.num_kept} of each"

    def batch_of(self, rows: Sequence[PackedRow]) -> TeacherBatch:
        batch = super().batch_of(rows)
        shape = (*batch.tokens.shape, self.teacher.num_kept)
        ids, logprobs = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        for row, at, piece in _places(rows):
            for to, kept in zip((ids, logprobs), self.teacher[piece.document], strict=True):
                to[row, at : at + piece.size] = kept[piece.start : piece.start + piece.size]
        return TeacherBatch(
            **{f.name: getattr(batch, f.name) for f in fields(batch)},
            teacher_ids=torch.from_numpy(ids),
            teacher_logprobs=torch.from_numpy(logprobs),
        )


def _starts(lengths: np.ndarray) -> np.ndarray:
    """[N + 1]: where each document's positions begin; a document of n ids has n - 1 of them."""
    return np.concatenate([[0], np.cumsum(np.maximum(lengths - 1, 0))])


def _places(rows: Sequence[PackedRow]) -> Iterator[tuple[int, int, Piece]]:
    """The row, the first position and the piece, for all pieces."""
    for row, pieces in enumerate(rows):
        at = 0
        for piece in pieces:
            yield row, at, piece
            at += piece.size
