"""What counting reaches: unigram and trigram models of bytes and of tokens, on the documents a model is scored on.

    p_k(w | c) = (max(n(c w) − d, 0) + d · t(c) · p_{k−1}(w | c')) / n(c),      p_0 = 1 / V

This is interpolated Kneser-Ney (Kneser & Ney 1995; Chen & Goodman 1999, section 2.7). At the highest order n counts;
below it, it is the number of different symbols seen before `c w`. t(c) is the number of different symbols seen after c,
and c' is c without its first symbol. How to read it: a language model that does not beat a unigram has learnt no
context. Two bytes of context are little, two tokens are about eight bytes: the trigram of tokens is by far the hardest.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from minimind.evals.bits_per_byte import HeldOutDocument, cut_documents
from minimind.text.tokenizer import Tokenizer

__all__ = ["NGram", "baselines"]

# At both ends of a document that is read as bytes.
BOUNDARY = 256
ORDERS = {"unigram": 1, "trigram": 3}


def baselines(
    tokenizer: Tokenizer,
    train: Iterable[Mapping[str, Any]],
    held_out: Iterable[Mapping[str, Any]],
    max_tokens: int = 1024,
) -> dict[str, float]:
    """Bits per byte of "byte unigram", "byte trigram", "token unigram" and "token trigram" on the rows `held_out`.

    They are fitted on all of the rows `train`, and score what `bits_per_byte` scores: the same bytes, EOS included.
    """
    learnt = cut_documents(tokenizer, train, sys.maxsize)
    scored = cut_documents(tokenizer, held_out, max_tokens)
    size = sum(len(document.data) for document in scored)
    found = {}
    for unit, num_symbols in (("byte", BOUNDARY + 1), ("token", tokenizer.vocab_size)):
        tests = [_symbols(document, unit, tokenizer.eos_id) for document in scored]
        for name, order in ORDERS.items():
            model = NGram((_symbols(document, unit, tokenizer.eos_id) for document in learnt), order, num_symbols)
            found[f"{unit} {name}"] = math.fsum(map(model.nats, tests)) / math.log(2) / size
    return found


class NGram:
    """A Kneser-Ney model: the probability of each symbol given the `order - 1` before it.

    The first symbol of a document is given, as BOS is to a language model, and fills the context before it.
    """

    def __init__(self, documents: Iterable[Sequence[int]], order: int, num_symbols: int) -> None:
        self.order, self.num_symbols = order, num_symbols
        grams: Counter[tuple[int, ...]] = Counter()
        for ids in documents:
            padded = _padded(ids, order)
            grams.update(zip(*(islice(padded, start, None) for start in range(order)), strict=False))
        levels = [_Level(grams)]
        for _ in range(order - 1):
            # How many different symbols were seen before each shorter gram.
            grams = Counter(gram[1:] for gram in grams)
            levels.append(_Level(grams))
        self._levels = levels[::-1]

    def probability(self, context: Sequence[int], symbol: int) -> float:
        """Of `symbol` after `context`, of which the last `order - 1` symbols count."""
        found = 1 / self.num_symbols
        for length, level in enumerate(self._levels):
            found = level.interpolate(tuple(context[len(context) - length :]), symbol, found)
        return found

    def nats(self, ids: Sequence[int]) -> float:
        """The sum of −log p over the symbols of a document but its first."""
        padded, before = _padded(ids, self.order), self.order - 1
        return -math.fsum(
            math.log(self.probability(padded[at - before : at], padded[at])) for at in range(before, len(padded))
        )


class _Level:
    """The counts of one order, and what is taken off each for what was not seen."""

    def __init__(self, grams: Counter[tuple[int, ...]]) -> None:
        self.counts = grams
        self.totals: Counter[tuple[int, ...]] = Counter()
        for gram, count in grams.items():
            self.totals[gram[:-1]] += count
        self.kinds = Counter(gram[:-1] for gram in grams)
        once, twice = (sum(count == times for count in grams.values()) for times in (1, 2))
        # Ney, Essen & Kneser 1994, eq. 31; half a count where nothing is rare, so that the unseen is never impossible.
        self.discount = once / (once + 2 * twice) if once else 0.5

    def interpolate(self, context: tuple[int, ...], symbol: int, lower: float) -> float:
        """p of this order from that of the order below, which it is where the context was never seen."""
        total = self.totals.get(context, 0)
        if not total:
            return lower
        own = max(self.counts.get((*context, symbol), 0) - self.discount, 0)
        return (own + self.discount * self.kinds[context] * lower) / total


def _padded(ids: Sequence[int], order: int) -> list[int]:
    return [ids[0]] * (order - 1) + list(ids[1:])


def _symbols(document: HeldOutDocument, unit: str, eos_id: int) -> list[int]:
    """The document as tokens, or as its bytes between boundaries, the last of which falls away with EOS."""
    if unit == "token":
        return document.ids
    is_whole = document.ids[-1] == eos_id
    return [BOUNDARY, *document.data, *([BOUNDARY] if is_whole else [])]
