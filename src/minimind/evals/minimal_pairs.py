"""Minimal pairs: of two sentences that differ in one point of grammar, does the model find the good one likelier?

A pair is right when log p(good) > log p(bad), each from its start, BOS before it. To read it: guessing is 50 %, and no
instruction has to be understood, so a model of a few million parameters already says something here.
Source: Warstadt et al. 2020, "BLiMP", arXiv:1912.00582.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minimind.errors import DataError
from minimind.evals.log_likelihood import encode_request, log_likelihoods
from minimind.evals.measured import Measured, fingerprint_of
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

__all__ = ["CHANCE", "MinimalPairs", "minimal_pairs"]

CHANCE = 0.5
# Names of columns, ours and BLiMP's own.
GOOD, BAD, FIELD = ("good", "sentence_good"), ("bad", "sentence_bad"), ("field", "linguistics_term", "uid")


@dataclass(frozen=True)
class MinimalPairs:
    """The result; `by_field` in alphabetical order."""

    overall: Measured
    by_field: Mapping[str, Measured]


def minimal_pairs(
    model: Transformer, tokenizer: Tokenizer, rows: Iterable[tuple[str, Mapping[str, Any]]]
) -> MinimalPairs:
    """Score rows `{"good", "bad", "field"?}`, each with the `path:line` it came from. Errors: DataError"""
    pairs = [_pair(where, row) for where, row in rows]
    if not pairs:
        raise DataError("there are no pairs to compare; expected at least one row with good and bad")
    texts = [text for good, bad, _ in pairs for text in (good, bad)]
    scores = [found.nats for found in log_likelihoods(model, [encode_request(tokenizer, "", text) for text in texts])]
    right = [good > bad for good, bad in zip(scores[::2], scores[1::2], strict=True)]
    fields = sorted({field for *_, field in pairs})
    return MinimalPairs(_share(pairs, right), {name: _share(pairs, right, name) for name in fields})


def _share(pairs: list[tuple[str, str, str]], right: list[bool], field: str | None = None) -> Measured:
    chosen = [number for number, pair in enumerate(pairs) if field is None or pair[2] == field]
    mark = fingerprint_of(text for number in chosen for text in pairs[number][:2])
    return Measured.share((right[number] for number in chosen), mark)


def _pair(where: str, row: Mapping[str, Any]) -> tuple[str, str, str]:
    texts = [next((row[name] for name in names if name in row), None) for names in (GOOD, BAD)]
    for text, names in zip(texts, (GOOD, BAD), strict=True):
        if not isinstance(text, str) or not text:
            raise DataError(f"{where}: {names[0]} is {text!r}; expected a sentence in good and one in bad")
    field = next((row[name] for name in FIELD if row.get(name)), "all")
    return str(texts[0]), str(texts[1]), str(field)
