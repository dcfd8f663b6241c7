"""An answer reads the same in any pieces, markup is never shown, and nothing that was said is lost."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.text.answers import HERMES, AnswerFormat, AnswerReader, AnswerStart, CutCall, Delta, join
from minimind.text.conversation import Message, ToolCall, parse_answer_ids
from minimind.text.tokenizer import StreamDecoder, Tokenizer

TOKENIZER = Tokenizer.train(["hello world, hello there"], 300)
MARKS = HERMES.marks(TOKENIZER)
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


def read(ids: list[int], *, thinking: bool = False, opened: str = "") -> tuple[Message, list[Delta]]:
    start = AnswerStart.of(TOKENIZER, thinking=thinking, opened=opened)
    reader, decoder, deltas = AnswerReader(start), StreamDecoder(TOKENIZER), []
    for index in ids:
        deltas += reader.push("", MARKS[index]) if index in MARKS else reader.push(decoder.push(index))
    deltas += reader.finish()
    return join(deltas), deltas


def shown(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


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
    seconds, deltas = [], list[Delta]()
    # Three times, for the garbage of other tests is collected in between.
    for _ in range(3):
        reader, begin = AnswerReader(AnswerStart.of(TOKENIZER, thinking=thinking)), time.process_time()
        deltas = [delta for _ in range(20_000) for delta in reader.push("", name)]
        deltas += reader.finish()
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.05
    written = join(deltas)
    said = written.content + written.reasoning_content
    # Nothing but what opens the reasoning, or closes it, is a mark in its place; a call in a call gives that one up.
    assert said.count(name) == {"<think>": 19_999, "</think>": 20_000 - thinking}.get(name, 20_000)
    assert shown(deltas).count("<") == (19_999 if name == "<tool_call>" and not thinking else 0)


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", ["</tool_call>", "</think>", "<think>"])
def test_a_mark_in_the_wrong_place_is_kept_and_not_shown(name: str, thinking: bool) -> None:
    text = ("hello\n</think>\n\nyo" if thinking else "hello") + f" {name} there"
    message, deltas = read(TOKENIZER.encode_with_control(text), thinking=thinking)
    assert name in message.content and "<" not in shown(deltas) and "there" in shown(deltas)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('\n{"name": "f", "arguments": {"x": [1, "a', CutCall("f", '{"x": [1, "a')),
        ('\n{"name": "f", "arguments": {"x": 1}', CutCall("f", '{"x": 1}')),
        ('\n{"name": "f", "arguments": {"x": 1}}\n', CutCall("f", '{"x": 1}')),
        ('\n{"name": "a \\"f\\"", "arguments": ', CutCall('a "f"', "")),
        ('\n{"name": "f", "arg', CutCall("f", "")),
        ('\n{"name": "f', None),
        ("", None),
    ],
)
def test_a_call_that_is_cut_is_known_as_far_as_it_was_written(written: str, expected: CutCall | None) -> None:
    message, deltas = read(TOKENIZER.encode_with_control(f"ok\n<tool_call>{written}"))
    assert [delta.cut for delta in deltas if delta.part == "call"] == [expected]
    assert shown(deltas) == "ok" and message == Message("assistant", f"ok\n<tool_call>{written}")
    if written:
        assert read(TOKENIZER.encode(written[3:]), opened=written[:3])[1][0].cut == expected


def test_a_call_inside_a_call_gives_the_first_one_up() -> None:
    text = '<tool_call>\n{"na<tool_call>\n{"name": "f"}\n</tool_call>'
    assert read(TOKENIZER.encode_with_control(text))[0] == Message(
        "assistant", '<tool_call>\n{"na', "", (ToolCall("f", {}),)
    )


def test_another_format_is_another_record() -> None:
    """As Mistral writes: a list of calls behind one mark, which the end of the answer closes."""

    def read_list(body: str) -> list[ToolCall]:
        return [ToolCall.parse(one) for one in json.loads(body)]

    lists = AnswerFormat(("[THINK]", "[/THINK]"), ("[TOOL_CALLS]", ""), read_list, lambda body: None)
    start = AnswerStart({7: "[TOOL_CALLS]"}, format=lists)
    reader = AnswerReader(start)
    deltas = [*reader.push("hi <tool_call>", "[TOOL_CALLS]"), *reader.push('[{"name": "f"}, {"name": "g"}]')]
    assert join([*deltas, *reader.finish()]) == Message(
        "assistant", "hi <tool_call>", "", (ToolCall("f", {}), ToolCall("g", {}))
    )
