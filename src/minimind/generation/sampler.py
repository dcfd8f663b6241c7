"""The next id of each sequence: its settings, its random numbers, and what it has said so far.

A sequence's random numbers come from its seed and its stream's number alone, so it says the same alone and among
others; sequences with equal settings are drawn together. `sampling.py` has the arithmetic.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from minimind.generation.request import Request, TokenScore
from minimind.generation.sampling import Sampling, draw, penalise

__all__ = ["Drawn", "Sampler", "choose", "score"]

log = logging.getLogger(__name__)

_GREEDY = Sampling(temperature=0.0)


class Drawn(NamedTuple):
    """An id, and its log-probability under the distribution it was drawn from: temperature, top-p, ... applied; 0 when
    greedy."""

    id: int
    logprob: float


class Sampler:
    """One sequence's way to choose.

    settings:  of the draw
    barred:    ids that are never drawn
    """

    def __init__(self, request: Request) -> None:
        sampling = request.sampling
        # What does not change a draw is left out, so that equal settings compare equal.
        self.settings = replace(sampling, seed=0, max_tokens=1, stop=(), repetition_penalty=1.0)
        if sampling.temperature == 0:
            self.settings = _GREEDY
        self.barred = request.barred
        self._request = request
        # A Mersenne twister, so that the draws are the same on every device and in every version of torch.
        self._random = random.Random(f"{sampling.seed} {request.stream}")
        self._drawn: dict[int, int] = {}
        self._guided = None if request.guide is None else request.guide.begin()
        self.has_adjustments = bool(
            self._guided
            or request.logit_bias
            or request.presence_penalty
            or request.frequency_penalty
            or sampling.repetition_penalty != 1
        )

    def uniform(self) -> float:
        return self._random.random()

    def note(self, index: int) -> None:
        """Told each id that was drawn. Errors: ValueError when its form cannot be held"""
        if self._guided is not None:
            self._guided.accept(index)
        if self.has_adjustments:
            self._drawn[index] = self._drawn.get(index, 0) + 1

    def adjusted(self, logits: Tensor) -> Tensor:
        """[V] scores, penalised, biased, and -inf for ids that would break the answer's form."""
        request = self._request
        if request.sampling.repetition_penalty != 1:
            seen = torch.zeros(len(logits), dtype=torch.bool)
            seen[[*request.prompt, *self._drawn]] = True
            # A conversation is full of ends of turns: penalised like other tokens, it could never end again.
            seen[list(request.stop_ids)] = False
            logits = penalise(logits, seen.to(logits.device), request.sampling.repetition_penalty)
        changes = dict(request.logit_bias)
        for index, count in self._drawn.items():
            taken = request.presence_penalty + request.frequency_penalty * count
            changes[index] = changes.get(index, 0.0) - taken
        if changes:
            places = torch.tensor(list(changes), device=logits.device)
            logits = logits.index_add(0, places, torch.tensor(list(changes.values()), device=logits.device))
        allowed = None if self._guided is None else self._guided.allowed()
        if allowed is None:
            return logits
        barred = torch.ones(len(logits), dtype=torch.bool)
        barred[: len(allowed)] = torch.from_numpy(~allowed[: len(barred)])
        return logits.masked_fill(barred.to(logits.device), -torch.inf)


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[Drawn | None]:
    """The next id of each row of [n, V]; None for a row whose settings fail, which costs no other row its id."""
    failed: list[int] = []
    if any(sampler.has_adjustments for sampler in samplers):
        rows = [_adjusted(row, sampler) for row, sampler in zip(logits, samplers, strict=True)]
        failed = [place for place, row in enumerate(rows) if row is None]
        logits = torch.stack([own if row is None else row for own, row in zip(logits, rows, strict=True)])
    drawn: list[Drawn | None] = list(_drawn(_without_barred(logits, samplers), samplers))
    for place in failed:
        drawn[place] = None
    return drawn


def _adjusted(logits: Tensor, sampler: Sampler) -> Tensor | None:
    try:
        return sampler.adjusted(logits) if sampler.has_adjustments else logits
    except Exception:
        log.exception("a request's settings failed")
        return None


def _without_barred(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """[n, V], -inf where a row may not draw an id. One operation: every plain chat bars the marks of calls."""
    rows = [row for row, sampler in enumerate(samplers) for _ in sampler.barred]
    if not rows:
        return logits
    ids = [index for sampler in samplers for index in sampler.barred]
    rows, ids = torch.tensor(rows, device=logits.device), torch.tensor(ids, device=logits.device)
    return logits.index_put((rows, ids), torch.tensor(-torch.inf, device=logits.device))


def _drawn(logits: Tensor, samplers: Sequence[Sampler]) -> list[Drawn]:
    """One draw for each row, those with equal settings together."""
    groups: dict[Sampling, list[int]] = {}
    for row, sampler in enumerate(samplers):
        groups.setdefault(sampler.settings, []).append(row)
    if len(groups) == 1:
        [settings] = groups
        return _draw(logits, settings, samplers)
    drawn = [Drawn(0, 0.0)] * len(samplers)
    for settings, rows in groups.items():
        some = _draw(logits[rows], settings, [samplers[row] for row in rows])
        for row, one in zip(rows, some, strict=True):
            drawn[row] = one
    return drawn


def _draw(logits: Tensor, settings: Sampling, samplers: Sequence[Sampler]) -> list[Drawn]:
    ids, logprobs = draw(logits, settings, [sampler.uniform() for sampler in samplers])
    return [Drawn(*one) for one in zip(ids.tolist(), logprobs.tolist(), strict=True)]


def score(logits: Tensor, ids: Sequence[int], num_top: int) -> list[TokenScore]:
    """Each id with its log-probability under its row of [n, V], and the `num_top` likeliest ids there."""
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].tolist()
    values, places = (part.tolist() for part in logprobs.topk(min(num_top, logprobs.shape[-1])))
    return [
        TokenScore(index, logprob, list(zip(top, likely, strict=True)))
        for index, logprob, top, likely in zip(ids, own, places, values, strict=True)
    ]
