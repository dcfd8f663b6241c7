"""An answer reads the same in any pieces, and as `parse_answer_ids` reads it whole."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.generation.request import Event
from minimind.text.answers import AnswerReader, Delta, answer_marks, join
from minimind.text.conversation import Message, ToolCall, parse_answer_ids, render_prompt
from minimind.text.tokenizer import StreamDecoder, Tokenizer

TOKENIZER = Tokenizer.train(["hello world, hello there"], 300)
MARKS = answer_marks(TOKENIZER, tools=True)
PIECES = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "\n",
    "\n\n",
    "yo",
    "你",
    '{"name": "f", "arguments": {}}',
]


def read(ids: list[int], *, thinking: bool = False) -> tuple[Message, list[Delta]]:
    reader, decoder, deltas = AnswerReader(MARKS, thinking=thinking), StreamDecoder(TOKENIZER), []
    for index in ids:
        mark = index if index in MARKS else None
        deltas += reader.push("" if mark else decoder.push(index), mark)
    deltas += reader.finish()
    return join(deltas), deltas


@pytest.mark.parametrize(
    ("text", "thinking", "expected"),
    [
        ("Hello", False, Message("assistant", "Hello")),
        ("I think\n</think>\n\nSo 7.", True, Message("assistant", "So 7.", "I think")),
        ("cut short", True, Message("assistant", "", "cut short")),
        ("<think>\na\n</think>\n\nb", False, Message("assistant", "b", "a")),
        ("1 < 2\n\n3\n", False, Message("assistant", "1 < 2\n\n3\n")),
        (
            'ok\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>\n'
            '<tool_call>\n{"name": "g"}\n</tool_call>',
            False,
            Message("assistant", "ok", "", (ToolCall("f", {"x": 1}), ToolCall("g", {}))),
        ),
        ("<tool_call>\nno json\n</tool_call>", False, Message("assistant", "<tool_call>\nno json\n</tool_call>")),
        ('<tool_call>\n{"name": "f"', False, Message("assistant", '<tool_call>\n{"name": "f"')),
    ],
)
def test_answers_are_read_as_whole_ones_are(text: str, thinking: bool, expected: Message) -> None:
    ids = TOKENIZER.encode_with_control(text)
    assert read(ids, thinking=thinking)[0] == expected == parse_answer_ids(ids, TOKENIZER, thinking)


@given(st.lists(st.sampled_from(PIECES), max_size=30), st.booleans())
def test_nothing_an_answer_says_is_lost_or_read_twice(pieces: list[str], thinking: bool) -> None:
    """Whatever the order of tags, every word arrives once: in text, or in a call."""
    message, _ = read(TOKENIZER.encode_with_control("".join(pieces)), thinking=thinking)
    said = message.content + message.reasoning_content
    assert said.count("yo") == pieces.count("yo")
    assert said.count("你") == pieces.count("你")
    calls = len(message.tool_calls)
    assert said.count('{"name"') + calls == pieces.count(PIECES[-1])


def test_tags_that_are_only_spelled_stay_text() -> None:
    ids = TOKENIZER.encode("write <tool_call>{}</tool_call> and </think>")
    assert read(ids)[0].content == "write <tool_call>{}</tool_call> and </think>"


@pytest.mark.parametrize("name", ["<tool_call>", "</tool_call>", "<think>", "</think>"])
@pytest.mark.parametrize("thinking", [False, True])
def test_20000_unclosed_tags_are_read_in_50_milliseconds(name: str, thinking: bool) -> None:
    mark = TOKENIZER.control(name)
    events = [Event(0, mark, "", mark)] * 20_000
    reader, begin = AnswerReader(MARKS, thinking=thinking), time.process_time()
    said = [delta.text for event in events for delta in reader.push(event.text, event.mark)]
    said += [delta.text for delta in reader.finish()]
    assert time.process_time() - begin < 0.05
    # A tag of calls outside of one is text, and one of thinking in the wrong place is nothing.
    expected = {"</tool_call>": 20_000, "<tool_call>": 20_000}.get(name, 0)
    assert "".join(said).count(name) == expected


def test_calls_are_text_where_no_tools_are_on_offer() -> None:
    assert set(answer_marks(TOKENIZER, tools=False).values()) == {"<think>", "</think>"}
    assert TOKENIZER.control("<think>") in render_prompt([Message("user", "hi")], [], TOKENIZER)
