"""Bits per byte: how well a model predicts text it has not seen, whatever its vocabulary.

    bits per byte = Σ_documents Σ_tokens −log2 p(token | those before) / Σ_documents bytes

Sums over sums: long documents count for what they hold. A loss per token depends on how long tokens are, and so cannot
compare two tokenizers; bytes are the same for all. Lower is better; 8 is knowing nothing. `baselines.py` says what
counting words reaches on the same documents.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minimind.errors import DataError
from minimind.evals.log_likelihood import ScoreRequest, log_likelihoods
from minimind.evals.measured import Measured, fingerprint_of
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

__all__ = ["BitsPerByte", "HeldOutDocument", "bits_per_byte", "cut_documents"]


@dataclass(frozen=True)
class HeldOutDocument:
    """The part of a document that is scored.

    ids:   BOS + text + EOS, or the first so many of them
    data:  the bytes of text that `ids` stand for
    """

    ids: list[int]
    data: bytes
    source: str


@dataclass(frozen=True)
class BitsPerByte:
    """The result.

    loss:       nats per predicted token; only comparable under one tokenizer
    tokens:     predicted, EOS included
    by_source:  bits per byte of the documents of each source
    measured:   the bits and bytes of each document
    """

    bits_per_byte: float
    loss: float
    tokens: int
    bytes: int
    by_source: Mapping[str, float]
    measured: Measured


def bits_per_byte(
    model: Transformer, tokenizer: Tokenizer, documents: Iterable[Mapping[str, Any]], max_tokens: int = 1024
) -> BitsPerByte:
    """Score rows `{"text", "source"?}`, each by itself from its start, up to `max_tokens` or the model's context.

    Errors: DataError when there is no text.
    """
    cut = cut_documents(tokenizer, documents, min(max_tokens, model.config.max_position_embeddings))
    requests = [ScoreRequest(tuple(document.ids[:1]), tuple(document.ids[1:])) for document in cut]
    nats = [-found.nats for found in log_likelihoods(model, requests)]
    sums: dict[str, list[float]] = {}
    for document, loss in zip(cut, nats, strict=True):
        of_source = sums.setdefault(document.source, [0.0, 0.0])
        of_source[0] += loss
        of_source[1] += len(document.data)
    tokens, size = sum(len(document.ids) - 1 for document in cut), sum(len(document.data) for document in cut)
    return BitsPerByte(
        bits_per_byte=math.fsum(nats) / math.log(2) / size,
        loss=math.fsum(nats) / tokens,
        tokens=tokens,
        bytes=size,
        by_source={source: loss / math.log(2) / count for source, (loss, count) in sums.items()},
        measured=Measured(
            [loss / math.log(2) for loss in nats],
            [float(len(document.data)) for document in cut],
            fingerprint_of(document.data.decode("utf-8", "replace") for document in cut),
        ),
    )


def cut_documents(
    tokenizer: Tokenizer, documents: Iterable[Mapping[str, Any]], max_tokens: int
) -> list[HeldOutDocument]:
    """The documents as they are scored, empty ones left out; a document that is cut ends without EOS."""
    assert max_tokens >= 2, max_tokens
    rows = [row for row in documents if row["text"]]
    if not rows:
        raise DataError("there is no held-out text to score; expected at least one document that is not empty")
    cut = []
    for row, encoded in zip(rows, tokenizer.encode_batch([row["text"] for row in rows]), strict=True):
        ids = [*tokenizer.begin([]), *encoded, tokenizer.eos_id]
        # Whole texts count their own bytes: a prefix space that the tokenizer adds is no text.
        data = row["text"].encode() if len(ids) <= max_tokens else _bytes(tokenizer, ids[:max_tokens])
        cut.append(HeldOutDocument(ids[:max_tokens], data, str(row.get("source", "text"))))
    return cut


def _bytes(tokenizer: Tokenizer, ids: Sequence[int]) -> bytes:
    return b"".join(tokenizer.token_bytes[index] for index in ids)
