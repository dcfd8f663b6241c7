"""Copies are found, all of them; near copies at least 95 in 100; and what only looks alike is kept."""

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.dedup import NearDuplicates, document_hash, signature


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    lines = (shared / "data" / "pretrain_valid.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:300]]


def edited(text: str, generator: random.Random) -> str:
    """The text with about 3 % of its characters changed, in a few places, and other white space."""
    letters = list(text)
    for _ in range(max(len(letters) // 150, 1)):
        place = generator.randrange(len(letters))
        letters[place : place + 4] = generator.choice(["", " new ", "新", "some words"])
    return "".join(letters).replace(" ", "  ").upper()


@given(st.text(), st.sampled_from([" ", "\n", "\t \r\n", "\u3000"]))
def test_white_space_and_composition_do_not_make_another_document(text: str, space: str) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return
    spaced = space + space.join(text.split()) + space
    assert document_hash(spaced) == document_hash(unicodedata.normalize("NFD", text)) == document_hash(text)


@given(st.lists(st.sampled_from("ab ."), max_size=6), st.lists(st.sampled_from("ab ."), max_size=6))
def test_other_words_make_another_document(left: list[str], right: list[str]) -> None:
    same = "".join(left).split() == "".join(right).split()
    assert (document_hash("".join(left)) == document_hash("".join(right))) == same


def test_planted_near_copies_are_found_and_nothing_else(texts: list[str]) -> None:
    generator, near = random.Random(1), NearDuplicates(0.7)
    kept = [text for text in texts if near.is_new(signature(text))]
    assert len(kept) >= 0.97 * len(texts)
    found = [not near.is_new(signature(edited(text, generator))) for text in kept]
    assert sum(found) >= 0.95 * len(kept)


def test_signatures_agree_in_the_share_of_sequences_in_common() -> None:
    words = [f"w{number}" for number in range(2000)]
    left, right = signature(" ".join(words[:1500])), signature(" ".join(words[500:]))
    # 1000 of 2000 sequences in common; four standard deviations of 128 places are 0.18.
    assert abs((left == right).mean() - 0.5) < 0.18


def test_a_text_without_words_has_a_signature_of_its_own() -> None:
    assert (signature("!!!???") == signature("!!!???")).all()
    assert (signature("!!!???") == signature("+-+-+-")).mean() < 0.2


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_many_documents_are_remembered_whatever_the_threshold(threshold: float) -> None:
    generator = np.random.default_rng(0)
    signatures = generator.integers(0, 2**32, (1500, 128), dtype=np.uint32)
    near = NearDuplicates(threshold)
    assert all(near.is_new(row) for row in signatures)
    assert not any(near.is_new(row) for row in signatures)
    assert near.count == 1500
