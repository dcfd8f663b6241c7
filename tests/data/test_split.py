"""The split is a property of each document alone, and leaks between its sides are found."""

from hypothesis import given
from hypothesis import strategies as st

from minimind.data.dedup import document_hash, signature
from minimind.data.options import DedupConfig
from minimind.data.split import Sorter, is_chosen

TEXTS = st.lists(st.text("abc ", max_size=8), max_size=30)


def places(texts: list[str], fraction: float = 0.5, dedup: DedupConfig | None = None) -> list[str]:
    sorter = Sorter(fraction, dedup)
    return [sorter.place(document_hash(text), signature(text)) for text in texts]


@given(TEXTS, TEXTS, TEXTS)
def test_adding_data_moves_no_document(before: list[str], texts: list[str], after: list[str]) -> None:
    assert places(before + texts + after)[len(before) : len(before) + len(texts)] == places(texts)


@given(TEXTS)
def test_copies_are_on_one_side(texts: list[str]) -> None:
    side = dict(zip(map(document_hash, texts), places(texts), strict=True))
    assert places(texts) == [side[document_hash(text)] for text in texts]


@given(st.binary(min_size=16, max_size=16), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_keeps_what_was_held_out(document: bytes, one: float, other: float) -> None:
    assert is_chosen(document, min(one, other)) <= is_chosen(document, max(one, other))
    assert not is_chosen(document, 0.0)


def test_the_fraction_is_met() -> None:
    held_out = sum(is_chosen(document_hash(str(number)), 0.1) for number in range(10_000))
    # Four standard deviations of 10,000 draws.
    assert abs(held_out - 1000) < 120


def test_every_exact_copy_is_dropped_and_the_first_is_kept() -> None:
    found = places(["a b", "c", "a  b\n", "d", "c", "c"], fraction=0.0, dedup=DedupConfig())
    assert found == ["train", "train", "exact_duplicate", "train", "exact_duplicate", "exact_duplicate"]


def test_planted_leaks_are_counted_once_each_and_dropped_when_copies_are() -> None:
    valid, train = ["one", "two", "three"], ["two ", "four", "two", "one", "five"]
    for dedup, leaks, expected in (
        (None, 2, ["train"] * 5),
        (DedupConfig(), 0, ["in_validation", "train", "in_validation", "in_validation", "train"]),
    ):
        sorter = Sorter(0.0, dedup)
        assert {sorter.place(document_hash(text), None, is_given_valid=True) for text in valid} == {"valid"}
        assert [sorter.place(document_hash(text), None) for text in train] == expected
        assert sorter.leaks == leaks


def test_near_copies_are_dropped_only_when_asked() -> None:
    text = " ".join(f"word{number}" for number in range(200))
    texts = [text, text + " more"]
    assert places(texts, 0.0, DedupConfig()) == ["train", "train"]
    assert places(texts, 0.0, DedupConfig(exact=False, near=True)) == ["train", "near_duplicate"]
