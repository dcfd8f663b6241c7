"""The counting models are proper distributions, equal to a slow reading of the formula."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.evals.ngrams import NGram, baselines
from minimind.text.tokenizer import Tokenizer

SYMBOLS = 5
DOCUMENTS = [[0, 1, 2, 1, 2, 3, 0], [0, 1, 2, 2, 1, 0], [0, 3, 1, 2, 1, 0], [0, 1, 0]]

documents = st.lists(st.lists(st.integers(0, SYMBOLS - 1), min_size=1, max_size=12), max_size=6)


def windows(order: int, training: list[list[int]]) -> list[tuple[int, ...]]:
    """All grams of the training documents, one by one."""
    padded = [[ids[0]] * (order - 1) + ids[1:] for ids in training]
    return [tuple(row[at - order + 1 : at + 1]) for row in padded for at in range(order - 1, len(row))]


def by_hand(training: list[list[int]], order: int, context: tuple[int, ...], symbol: int) -> float:
    """The formula, computed from scratch for a single probability."""
    found, highest = 1 / SYMBOLS, windows(order, training)
    for length in range(order):
        # Below the highest order each different gram counts once, however often it was seen.
        grams = highest
        for _ in range(order - 1 - length):
            grams = [gram[1:] for gram in sorted(set(grams))]
        counts = {gram: grams.count(gram) for gram in grams}
        once, twice = (list(counts.values()).count(times) for times in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        here = context[len(context) - length :]
        after = {gram: count for gram, count in counts.items() if gram[:-1] == here}
        if after:
            own = max(after.get((*here, symbol), 0) - discount, 0)
            found = (own + discount * len(after) * found) / sum(after.values())
    return found


@given(documents, st.integers(1, 3))
def test_probabilities_sum_to_one_after_every_context(training: list[list[int]], order: int) -> None:
    model = NGram(training, order, SYMBOLS)
    for context in product(range(SYMBOLS), repeat=order - 1):
        probabilities = [model.probability(context, symbol) for symbol in range(SYMBOLS)]
        assert min(probabilities) > 0
        assert math.fsum(probabilities) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_equals_the_formula_computed_by_hand(order: int) -> None:
    model = NGram(DOCUMENTS, order, SYMBOLS)
    for context in product(range(SYMBOLS), repeat=order - 1):
        for symbol in range(SYMBOLS):
            expected = by_hand(DOCUMENTS, order, context, symbol)
            assert model.probability(context, symbol) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("order", [1, 3])
def test_trained_on_nothing_it_is_uniform(order: int) -> None:
    model = NGram([], order, SYMBOLS)
    assert model.nats([0, 1, 2, 3]) == pytest.approx(3 * math.log(SYMBOLS))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_first_symbol_is_given_and_never_predicted(order: int) -> None:
    model = NGram([[4, 1, 1, 2]] * 3, order, SYMBOLS)
    places = [([4] * (order - 1) + [1, 1, 2])[at : at + order] for at in range(3)]
    expected = -sum(math.log(model.probability(gram[:-1], gram[-1])) for gram in places)
    assert model.nats([4, 1, 1, 2]) == pytest.approx(expected)


def test_contexts_help_where_text_repeats_and_bytes_are_what_is_divided_by() -> None:
    train = [{"text": f"the cat number {n} sat on the mat. 春天来了。"} for n in range(30)]
    held_out = [{"text": f"the cat number {n} sat on the mat. 春天来了。"} for n in range(30, 40)]
    tokenizer = Tokenizer.train([row["text"] for row in train], 320)
    found = baselines(tokenizer, train, held_out)
    assert list(found) == ["byte unigram", "byte trigram", "token unigram", "token trigram"]
    assert found["token trigram"] < found["token unigram"] < found["byte unigram"] < 8
    assert found["byte trigram"] < found["byte unigram"]
    whole = NGram([[256, *row["text"].encode(), 256] for row in train], 3, 257)
    nats = sum(whole.nats([256, *row["text"].encode(), 256]) for row in held_out)
    size = sum(len(row["text"].encode()) for row in held_out)
    assert found["byte trigram"] == pytest.approx(nats / math.log(2) / size)
