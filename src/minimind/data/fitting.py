"""Conversations longer than the context: split, dropped, or with the beginning of their prompt cut off.

Decided before the first step, counted, and said. A piece in which nothing is learnt is left out, so that every row has
weight and no step is without. Where all fit, the documents stay as they are.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from minimind.data.counts import in_words
from minimind.data.shards import ShardSet
from minimind.errors import DataError

__all__ = ["FittedDocuments", "Long", "fitted"]

Long = Literal["split", "drop", "truncate_prompt"]


class _Window(NamedTuple):
    """Ids start .. stop of a document, of which those up to `learnt_from` are context."""

    document: int
    start: int
    stop: int
    learnt_from: int = 0


class FittedDocuments:
    """The parts of documents that fit, each a document of its own.

    counts: what was done to those that did not fit
    """

    def __init__(self, documents: ShardSet, context: int, long: Long) -> None:
        self._documents, self.counts = documents, Counter[str]()
        self._windows: list[_Window] = []
        for document, length in enumerate(documents.lengths.tolist()):
            if length - 1 <= context:
                # Nothing but its weights has to be looked at, and preparation has dropped those without any.
                self._windows += [_Window(document, 0, length)]
            else:
                self._windows += _PARTS[long](self.counts, document, documents[document][1], context)
        if not self._windows:
            raise DataError(
                f"{documents.folder}: no conversation fits the context of {context} tokens: {in_words(self.counts)}; "
                "raise data.context, or set data.long to split"
            )
        self.lengths = np.array([window.stop - window.start for window in self._windows], dtype=np.int64)
        self.fingerprint = hashlib.sha256(f"{documents.fingerprint} {context} {long}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, number: int, /) -> tuple[np.ndarray, np.ndarray]:
        document, start, stop, learnt_from = self._windows[int(number)]
        ids, weights = self._documents[document]
        weights = weights[start:stop].copy()
        weights[: max(learnt_from - start, 1)] = 0
        return ids[start:stop], weights


def fitted(documents: ShardSet, context: int, long: Long = "split") -> ShardSet | FittedDocuments:
    """The documents as they are learnt from; the very same where they are texts, or all fit. Errors: DataError"""
    if documents.kind == "text" or (documents.lengths - 1 <= context).all():
        return documents
    return FittedDocuments(documents, context, long)


def _split(counts: Counter[str], document: int, weights: np.ndarray, context: int) -> Iterator[_Window]:
    counts["longer than the context, split"] += 1
    last = len(weights) - 1
    for start in range(0, last, context):
        stop = min(start + context, last) + 1
        if not weights[start + 1 : stop].any():
            counts["pieces in which nothing is learnt, left out"] += 1
            continue
        if start and weights[start] and weights[start + 1]:
            counts["pieces that begin within an answer, without its question"] += 1
        yield _Window(document, start, stop)


def _drop(counts: Counter[str], document: int, weights: np.ndarray, context: int) -> Iterator[_Window]:
    counts["longer than the context, dropped"] += 1
    return iter(())


def _truncate_prompt(counts: Counter[str], document: int, weights: np.ndarray, context: int) -> Iterator[_Window]:
    """The end of the document, up to its last answer; an answer that is cut itself is context, but for the last."""
    learnt = np.flatnonzero(weights)
    stop = int(learnt[-1]) + 1 if len(learnt) else len(weights)
    start = max(stop - context - 1, 0)
    silent = np.flatnonzero(weights[start + 1 : stop] == 0)
    if not len(silent) or not len(learnt):
        counts["answers longer than the context, dropped"] += 1
        return
    counts["longer than the context, prompts cut at their beginning"] += 1
    is_within = bool(weights[start] and weights[start + 1])
    yield _Window(document, start, stop, start + 1 + int(silent[0]) if is_within else 0)


_PARTS = {"split": _split, "drop": _drop, "truncate_prompt": _truncate_prompt}
