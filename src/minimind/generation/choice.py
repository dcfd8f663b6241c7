"""The next id of each request, rows with equal settings together.

The draws are those of `generate.py`: a request's random numbers come from its seed and stream alone, so that it says
the same alone and among others.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from minimind.generation.request import Request, TokenScore
from minimind.generation.sampling import Sampling, draw, penalise

__all__ = ["Chooser", "choose", "score"]

log = logging.getLogger(__name__)

_GREEDY = Sampling(temperature=0.0)


class Chooser:
    """One request's way to choose: settings, random numbers, and what was said already."""

    def __init__(self, request: Request) -> None:
        sampling = request.sampling
        # What does not change a draw is left out, so that equal settings compare equal.
        self.settings = replace(sampling, seed=0, max_tokens=1, stop=(), repetition_penalty=1.0)
        if sampling.temperature == 0:
            self.settings = _GREEDY
        self._request = request
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


def choose(logits: Tensor, choosers: Sequence[Chooser]) -> list[int | None]:
    """The next id of each row of [n, V]; None for a row whose settings fail, which costs no other row its id."""
    failed: list[int] = []
    if any(chooser.has_adjustments for chooser in choosers):
        rows = [_adjusted(row, chooser) for row, chooser in zip(logits, choosers, strict=True)]
        failed = [place for place, row in enumerate(rows) if row is None]
        logits = torch.stack([own if row is None else row for own, row in zip(logits, rows, strict=True)])
    ids: list[int | None] = list(_drawn(logits, choosers))
    for place in failed:
        ids[place] = None
    return ids


def _adjusted(logits: Tensor, chooser: Chooser) -> Tensor | None:
    try:
        return chooser.adjusted(logits) if chooser.has_adjustments else logits
    except Exception:
        log.exception("a request's settings failed")
        return None


def _drawn(logits: Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """One draw for each row, those with equal settings together."""
    groups: dict[Sampling, list[int]] = {}
    for row, chooser in enumerate(choosers):
        groups.setdefault(chooser.settings, []).append(row)
    if len(groups) == 1:
        [settings] = groups
        return draw(logits, settings, [chooser.uniform() for chooser in choosers])[0].tolist()
    ids = [0] * len(choosers)
    for settings, rows in groups.items():
        drawn, _ = draw(logits[rows], settings, [choosers[row].uniform() for row in rows])
        for row, index in zip(rows, drawn.tolist(), strict=True):
            ids[row] = index
    return ids


def score(logits: Tensor, ids: Sequence[int], num_top: int) -> list[TokenScore]:
    """Each id with its log-probability under its row of [n, V], and the `num_top` likeliest ids there."""
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].tolist()
    values, places = (part.tolist() for part in logprobs.topk(min(num_top, logprobs.shape[-1])))
    return [
        TokenScore(index, logprob, list(zip(top, likely, strict=True)))
        for index, logprob, top, likely in zip(ids, own, places, values, strict=True)
    ]
