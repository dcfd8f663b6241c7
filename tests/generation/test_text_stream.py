"""Text comes in whole characters and never with a part of a stop string, however tokens cut it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import TOKENIZER

from minimind.generation.text_stream import TextStream


def bytewise(text: str) -> list[int]:
    return [TOKENIZER.encode_bytes(bytes([byte]))[0] for byte in text.encode()]


def read(ids: list[int], stop: list[str]) -> tuple[str, bool]:
    reader, pieces = TextStream(TOKENIZER, stop), []
    for index in ids:
        pieces.append(reader.push(index))
        if reader.is_stopped:
            break
    return "".join([*pieces, reader.finish()]), reader.is_stopped


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("hello world", ["o w"], "hell"),
        ("你好，世界。", ["，世"], "你好"),
        ("你好，世界。", ["，界", "。"], "你好，世界"),
        ("hello world", ["worlds"], "hello world"),
        ("aab", ["ab"], "a"),
        # Of overlapping ones the first to begin wins, also where another is complete before it ...
        ("hello world", ["lo wor", "o w"], "hel"),
        ("hello world", ["o w", "o wor"], "hell"),
        # ... but only if it is one.
        ("hello world", ["lo wox", "o w"], "hell"),
        ("hello w", ["lo wor", "o w"], "hell"),
    ],
)
def test_a_stop_string_is_found_across_tokens(text: str, stop: list[str], expected: str) -> None:
    for ids in (TOKENIZER.encode(text), bytewise(text)):
        assert read(ids, stop) == (expected, expected != text)


@given(st.text("ab你", max_size=30), st.lists(st.text("ab你", min_size=1, max_size=4), max_size=3), st.booleans())
def test_the_text_ends_where_the_first_stop_string_begins_and_nothing_else_is_lost(
    text: str, stop: list[str], whole: bool
) -> None:
    found, is_stopped = read(TOKENIZER.encode(text) if whole else bytewise(text), stop)
    begins = [text.index(end) for end in stop if end in text]
    # Behind a stop string that is complete nobody reads on but to see whether one before it is another.
    assert found == text[: min(begins, default=len(text))] and is_stopped == bool(begins)


def test_characters_are_never_broken() -> None:
    reader, ids = TextStream(TOKENIZER), bytewise("é你😀")
    assert [reader.push(index) for index in ids] == ["", "é", "", "", "你", "", "", "", "😀"]
    assert reader.push(ids[0]) == "" and reader.finish() == "\ufffd"
