"""Bits per byte: how well a model predicts text it has not seen, whatever its vocabulary.

    bits per byte = Σ_documents Σ_tokens −log2 p(token | those before) / Σ_documents bytes

Sums over sums: long documents count for what they hold. A loss per token depends on how long tokens are, and so cannot
compare two tokenizers; bytes are the same for all. Lower is better; 8 is knowing nothing. `baselines.py` says what
counting words reaches on the same documents.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minimind.errors import DataError
from minimind.model import Transformer
from minimind.tokenizer import Tokenizer

__all__ = ["BitsPerByte", "HeldOutDocument", "bits_per_byte", "cut_documents"]

# Positions computed at once, padding included: 8,192 states of 256 numbers are 8 MB.
BATCH_TOKENS = 8192
# Logits made at once: 1,024 × 6,400 × 4 bytes = 26 MB.
LOGIT_TOKENS = 1024


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
    """

    bits_per_byte: float
    loss: float
    tokens: int
    bytes: int
    by_source: Mapping[str, float]


def bits_per_byte(
    model: Transformer, tokenizer: Tokenizer, documents: Iterable[Mapping[str, Any]], max_tokens: int = 1024
) -> BitsPerByte:
    """Score rows `{"text", "source"?}`, each by itself from its start, up to `max_tokens` or the model's context.

    Errors: DataError when there is no text.
    """
    cut = cut_documents(tokenizer, documents, min(max_tokens, model.config.max_position_embeddings))
    nats = _document_losses(model, [document.ids for document in cut])
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
        ids = [tokenizer.bos_id, *encoded, tokenizer.eos_id]
        # Whole texts count their own bytes: a prefix space that the tokenizer adds is no text.
        data = row["text"].encode() if len(ids) <= max_tokens else _bytes(tokenizer, ids[:max_tokens])
        cut.append(HeldOutDocument(ids[:max_tokens], data, str(row.get("source", "text"))))
    return cut


def _bytes(tokenizer: Tokenizer, ids: Sequence[int]) -> bytes:
    return b"".join(tokenizer.token_bytes[index] for index in ids)


@torch.inference_mode()
def _document_losses(model: Transformer, documents: Sequence[Sequence[int]]) -> list[float]:
    """The sum in nats over each document's ids but the first, each predicted from all before it."""
    device = model.embed_tokens.weight.device
    totals = torch.zeros(len(documents), dtype=torch.float64, device=device)
    for indices in _batches([len(ids) - 1 for ids in documents]):
        tokens, targets, owners = (part.to(device) for part in _batch(documents, indices))
        states = model.hidden_states(tokens).states[owners >= 0]  # [N, D]
        targets, owners = targets[owners >= 0], owners[owners >= 0]  # [N]
        for start in range(0, len(targets), LOGIT_TOKENS):
            part = slice(start, start + LOGIT_TOKENS)
            losses = F.cross_entropy(model.logits(states[part]), targets[part], reduction="none")
            totals.index_add_(0, owners[part], losses.double())
    return totals.tolist()


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of documents of similar length, so that little is padding; causal attention makes padding harmless."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        # The lengths rise, so this one is the width of the batch.
        if batch and (len(batch) + 1) * lengths[index] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _batch(documents: Sequence[Sequence[int]], indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, targets and the document of each position, [B, T] each; the document of padding is -1."""
    width = max(len(documents[index]) for index in indices) - 1
    tokens = torch.zeros(len(indices), width, dtype=torch.int64)
    targets, owners = torch.zeros_like(tokens), torch.full_like(tokens, -1)
    for row, index in enumerate(indices):
        ids = torch.tensor(documents[index])
        tokens[row, : len(ids) - 1] = ids[:-1]
        targets[row, : len(ids) - 1] = ids[1:]
        owners[row, : len(ids) - 1] = index
    return tokens, targets, owners
