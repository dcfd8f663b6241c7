"""The tokenizer stage learns from texts and conversations alike, and saves all of a vocabulary or nothing."""

import json
from pathlib import Path

import pytest

from minimind.cli import parse
from minimind.config import load
from minimind.errors import DataError, TokenizerError
from minimind.stages.tokenizer import TokenizerConfig, run
from minimind.text.tokenizer import Tokenizer


def train(*words: str) -> Tokenizer:
    words = words if "--vocab_size" in words else (*words, "--vocab_size", "300")
    run(parse("tokenizer", ["--out", "out", *words]))  # type: ignore[arg-type]
    return Tokenizer.load("out")


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = [{"role": "user", "content": "春天 " * 30}, {"role": "assistant", "content": "zebra quartz " * 30}]
    Path("chat.jsonl").write_text(json.dumps({"conversations": said}) + "\n")
    Path("text.txt").write_text("the cat sat on the mat. " * 60)


def test_words_of_messages_are_learnt(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(train("--source", "chat.jsonl").encode(" zebra")) < len(" zebra")


def test_the_table_names_languages_and_the_fingerprint(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = train("--source", "chat.jsonl", "text.txt")
    shown = capsys.readouterr().out
    assert "characters/token" in shown and "\nen " in shown and "\nzh " in shown
    assert "300 tokens from 3 texts" in shown
    assert tokenizer.fingerprint[:16] in shown


def test_the_folder_holds_the_recipe_that_makes_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    first = train("--source", "text.txt")
    run(load(TokenizerConfig, "out/recipe.toml", {"out": "again"}))
    assert Tokenizer.load("again").fingerprint == first.fingerprint


def test_sources_share_the_bytes_that_may_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("many.jsonl").write_text('{"text": "aaaa bbbb cccc"}\n' * 100)
    train("--source", "many.jsonl", "text.txt", "--max_bytes", "700")
    # 25 rows of 14 bytes are the first source's half; the other's only text goes over its half, and is taken whole.
    assert "from 26 texts" in capsys.readouterr().out


def test_a_mistake_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.jsonl").write_text('{"texts": "a"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:1: has no column 'text'"):
        train("--source", "bad.jsonl")
    with pytest.raises(TokenizerError, match="add text or ask for vocab_size"):
        train("--source", "text.txt", "--vocab_size", "6400")
    assert not Path("out").exists()


def test_another_vocabulary_is_replaced_only_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Data and models that were made with it would be of no use."""
    first = train("--source", "text.txt")
    assert train("--source", "text.txt").fingerprint == first.fingerprint, "the same again loses nothing"
    for words in (("--source", "chat.jsonl"), ("--source", "text.txt", "--vocab_size", "299")):
        with pytest.raises(TokenizerError, match=r"out: holds another vocabulary \(300 tokens, .*or give --replace"):
            train(*words)
    assert Tokenizer.load("out").fingerprint == first.fingerprint
    assert train("--source", "chat.jsonl", "--replace").fingerprint != first.fingerprint
