"""Prepared data are counted as they are, with their tokenizer found where they were prepared with it."""

from pathlib import Path

import numpy as np
import pytest
from tests.tiny import write_rows

from minimind.data.options import PrepareOptions
from minimind.data.prepare import prepare
from minimind.errors import DataError
from minimind.report.inspect_shards import count_duplicates, inspect_shards, pieces
from minimind.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["hello world, how are you? I am well. " * 3], 300)


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """Three conversations, two of them equal, prepared beside their tokenizer."""
    rows = [
        {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer}]}
        for answer in ("I am well", "I am well", "how are you? " * 5)
    ]
    write_rows(tmp_path / "chats.jsonl", rows)
    TOKENIZER.save(tmp_path / "tokenizer")
    prepare([tmp_path / "chats.jsonl"], TOKENIZER, tmp_path / "data", PrepareOptions(valid_fraction=0))
    return tmp_path / "data"


def test_totals_lengths_and_the_longest_are_those_of_the_documents(chats: Path) -> None:
    found = inspect_shards(chats)
    [[name, documents, tokens, _, _, twice]] = found.tables[0].rows
    assert (name, documents, twice) == ("train", 3, 1)
    lengths = found.tables[1].rows[0]
    assert found.tables[2].rows[0][:2] == [2, lengths[-2]] and round(lengths[-1] * 3) == tokens


def test_the_sample_marks_what_is_learnt(chats: Path) -> None:
    found = inspect_shards(chats, document=2, max_sample_tokens=1000)
    learnt = [piece.text for piece in found.sample if piece.weight]
    assert len(learnt) == 1 and learnt[0].startswith("how are you? ") and learnt[0].count("<|im_end|>") == 1
    assert "hello" in found.sample[0].text and found.sample[0].weight == 0


def test_every_file_is_hashed_unless_told_not_to(chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minimind.data.shards.VERIFY_BYTES", 0)
    assert inspect_shards(chats).facts["hashes"].startswith("verified")
    [path] = (chats / "train").glob("*ids*")
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    with pytest.raises(DataError, match="ids"):
        inspect_shards(chats)
    assert inspect_shards(chats, verify=False).facts["hashes"].startswith("not verified")


def test_without_its_tokenizer_the_error_says_how_to_name_it(chats: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    with pytest.raises(DataError, match=r"--tokenizer"):
        inspect_shards(chats)
    found = inspect_shards(chats, tmp_path.parent / f"{tmp_path.name}-elsewhere")
    assert found.tables[0].rows[0][1] == 3
    with pytest.raises(DataError, match="no document 3; expected a number from 0 to 2"):
        inspect_shards(chats, tmp_path.parent / f"{tmp_path.name}-elsewhere", document=3)


def test_duplicates_are_all_but_the_first() -> None:
    assert count_duplicates([b"a", b"b", b"a", b"a"]) == 2 and count_duplicates([]) == 0


def test_pieces_are_the_document_again() -> None:
    ids, weights = np.array(TOKENIZER.encode("hello world")), np.zeros(20)
    weights[2:4] = 1
    found = pieces(TOKENIZER, ids, weights[: len(ids)])
    assert "".join(piece.text for piece in found) == "hello world" and [p.weight for p in found] == [0, 1, 0]
