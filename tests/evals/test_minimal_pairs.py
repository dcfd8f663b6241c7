"""A pair is right when its good sentence is the likelier one, from its start."""

import pytest
import torch

from minimind.errors import DataError
from minimind.evals.minimal_pairs import minimal_pairs
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

Opinionated = tuple[Transformer, Tokenizer]
SENTENCES = [("the cat sat", "the sat cat"), ("a mat", "mat a"), ("cat on mat", "on cat mat"), ("the mat", "the the")]
ROWS = [
    (f"a:{line}", {"good": good, "bad": bad, "field": "syntax" if line % 2 else "morphology"})
    for line, (good, bad) in enumerate(SENTENCES, start=1)
]


def nats(model: Transformer, tokenizer: Tokenizer, text: str) -> float:
    ids = [tokenizer.bos_id, *tokenizer.encode(text)]
    found = model(torch.tensor([ids[:-1]])).double().log_softmax(-1)[0]
    return sum(found[at, index].item() for at, index in enumerate(ids[1:]))


def test_the_likelier_sentence_wins_and_fields_are_told_apart(opinionated: Opinionated) -> None:
    model, tokenizer = opinionated
    expected = [nats(model, tokenizer, good) > nats(model, tokenizer, bad) for good, bad in SENTENCES]
    found = minimal_pairs(model, tokenizer, ROWS)
    assert found.overall.amounts == expected and len(set(expected)) == 2
    assert found.by_field["syntax"].amounts == expected[::2] and list(found.by_field) == ["morphology", "syntax"]


def test_exchanged_sentences_turn_every_pair_around(opinionated: Opinionated) -> None:
    turned = [(where, {"good": row["bad"], "bad": row["good"]}) for where, row in ROWS]
    share = minimal_pairs(*opinionated, ROWS).overall.value
    assert minimal_pairs(*opinionated, turned).overall.value == pytest.approx(1 - share)


def test_blimps_own_columns_are_read(opinionated: Opinionated) -> None:
    row = {"sentence_good": "the cat", "sentence_bad": "cat the", "linguistics_term": "islands"}
    assert list(minimal_pairs(*opinionated, [("a:1", row)]).by_field) == ["islands"]


def test_a_row_without_both_is_named(opinionated: Opinionated) -> None:
    with pytest.raises(DataError, match="a:7: bad is None; expected a sentence"):
        minimal_pairs(*opinionated, [("a:7", {"good": "the cat"})])
    with pytest.raises(DataError, match="no pairs"):
        minimal_pairs(*opinionated, [])
