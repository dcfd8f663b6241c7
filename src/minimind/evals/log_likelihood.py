"""How likely a model finds a continuation after a context: the one figure behind multiple choice and minimal pairs.

    log p(continuation | context) = Σ_t log p(y_t | context, y_<t)

in nats, exact: logits of the continuation's positions only, in float32, summed in float64. Texts are cut and joined as
lm-evaluation-harness does it, so that the same model has the same score there: context and continuation are encoded as
one text, the context's last blanks belong to the continuation, no BOS stands before a context, and BOS is the context
where there is none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minimind.errors import DataError
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

__all__ = ["LogLikelihood", "ScoreRequest", "encode_request", "log_likelihoods"]

# Positions computed at once, padding included: 8,192 states of 256 numbers are 8 MB.
BATCH_TOKENS = 8192
# Logits made at once: 1,024 × 6,400 × 4 bytes = 26 MB.
LOGIT_TOKENS = 1024


@dataclass(frozen=True)
class ScoreRequest:
    """Score `ids` after `context`, which has at least one id."""

    context: tuple[int, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True)
class LogLikelihood:
    """nats:   log-probability of the continuation, at most 0
    tokens: of the continuation
    """

    nats: float
    tokens: int


def encode_request(tokenizer: Tokenizer, context: str, continuation: str) -> ScoreRequest:
    """The ids to score. Errors: DataError for an empty continuation"""
    if not continuation:
        raise DataError(f"nothing to score after {context[-40:]!r}; expected a text that is not empty")
    if not context:
        return ScoreRequest(tuple(tokenizer.begin([])), tuple(tokenizer.encode(continuation)))
    stripped = context.rstrip()
    if not stripped:
        return ScoreRequest(tuple(tokenizer.begin([])), tuple(tokenizer.encode(context + continuation)))
    before = tokenizer.encode(stripped)
    whole = tokenizer.encode(context + continuation)
    if len(whole) <= len(before):
        raise DataError(f"{continuation!r} after {context[-40:]!r} is no token of its own; put a space between the two")
    return ScoreRequest(tuple(before), tuple(whole[len(before) :]))


def log_likelihoods(model: Transformer, requests: Sequence[ScoreRequest]) -> list[LogLikelihood]:
    """Score each request, in order. A context that is too long for the model loses its beginning.

    Requests that read the same ids, such as the letters A to D after one question, are computed once.
    Errors: DataError for a continuation that is longer than the model's context
    """
    cut = [_cut(request, model.config.max_position_embeddings) for request in requests]
    inputs: dict[tuple[int, ...], list[int]] = {}
    for number, request in enumerate(cut):
        inputs.setdefault(request.context + request.ids[:-1], []).append(number)
    nats = _score(model, cut, inputs)
    return [LogLikelihood(value, len(request.ids)) for value, request in zip(nats, cut, strict=True)]


def _cut(request: ScoreRequest, context: int) -> ScoreRequest:
    """What fits: the last id is predicted and not read."""
    assert request.context and request.ids, request
    if len(request.ids) > context:
        raise DataError(
            f"a continuation of {len(request.ids):,} tokens; the model reads at most {context:,}, shorten the text"
        )
    room = context + 1 - len(request.ids)
    return ScoreRequest(request.context[-room:], request.ids)


@torch.inference_mode()
def _score(
    model: Transformer, requests: Sequence[ScoreRequest], inputs: dict[tuple[int, ...], list[int]]
) -> list[float]:
    device = model.embed_tokens.weight.device
    totals = torch.zeros(len(requests), dtype=torch.float64, device=device)
    for batch in _batches(sorted(inputs, key=len)):
        states = model.hidden_states(_padded(batch).to(device)).states  # [B, T, D]
        rows, places, targets, owners = (
            torch.tensor(column, device=device) for column in zip(*_positions(batch, inputs, requests), strict=True)
        )
        for start in range(0, len(targets), LOGIT_TOKENS):
            part = slice(start, start + LOGIT_TOKENS)
            logits = model.logits(states[rows[part], places[part]])  # [n, V]
            found = logits.float().log_softmax(-1).gather(1, targets[part, None]).squeeze(1)
            totals.index_add_(0, owners[part], found.double())
    return totals.tolist()


def _positions(
    batch: Sequence[tuple[int, ...]], inputs: dict[tuple[int, ...], list[int]], requests: Sequence[ScoreRequest]
) -> Iterator[tuple[int, int, int, int]]:
    """Each id to score: its row, the position that predicts it, the id, and the request it belongs to."""
    for row, ids in enumerate(batch):
        for number in inputs[ids]:
            request = requests[number]
            for offset, target in enumerate(request.ids):
                yield row, len(request.context) - 1 + offset, target, number


def _batches(inputs: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Of rising length, so that little is padding; causal attention makes padding on the right harmless."""
    batch: list[tuple[int, ...]] = []
    for ids in inputs:
        if batch and (len(batch) + 1) * len(ids) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch


def _padded(batch: Sequence[tuple[int, ...]]) -> Tensor:
    tokens = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.int64)
    for row, ids in zip(tokens, batch, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return tokens
