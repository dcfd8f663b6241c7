"""Every shape of chat data reads as the same conversation, and what cannot be read is named by line and message."""

import json
from pathlib import Path

import pytest

from minimind.errors import DataError
from minimind.text.messages import Conversation, Message, ToolCall

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = ToolCall("f", {"x": 1})


def parse(*messages: object, **others: object) -> Conversation:
    return Conversation.parse({"messages": [*messages], **others}, "data.jsonl:7")


def user(content: object = "q") -> dict[str, object]:
    return {"role": "user", "content": content}


def assistant(content: object = "a", **others: object) -> dict[str, object]:
    return {"role": "assistant", "content": content, **others}


PLAIN = Conversation((Message("user", "q"), Message("assistant", "a")))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user(), assistant()]},
        {"conversations": [user(), assistant()], "source": "somewhere", "gt": ["1"]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"instruction": "q", "input": "", "output": "a"},
        {
            "messages": [user([{"type": "text", "text": "q"}]), assistant(reasoning=None, tool_calls=None)],
            "tools": None,
        },
        {"messages": [user(), assistant("\n\na")], "tools": "[]"},
    ],
)
def test_every_shape_gives_the_same_conversation(row: dict) -> None:
    assert Conversation.parse(row, "data.jsonl:1") == PLAIN


def test_a_system_prompt_is_found_on_its_message_or_beside_the_messages() -> None:
    expected = (Message("system", "s"), *PLAIN.messages)

    assert parse({"role": "system", "content": "s"}, user(), assistant()).messages == expected
    assert parse({"role": "developer", "content": "s"}, user(), assistant()).messages == expected
    assert parse(user(), assistant(), system="s").messages == expected


def test_alpaca_rows_carry_input_history_and_system_prompt() -> None:
    row = {"instruction": "add", "input": "1 2", "output": "3", "history": [["q", "a"]], "system": "s"}

    messages = Conversation.parse(row, "data.jsonl:1").messages

    assert messages == (Message("system", "s"), *PLAIN.messages, Message("user", "add\n1 2"), Message("assistant", "3"))


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"role": "system", "content": "s", "tools": json.dumps([TOOL])}, user()]},
        {"messages": [{"role": "system", "content": "s"}, user()], "tools": [TOOL]},
        {"messages": [{"role": "system", "content": "s", "tools": [TOOL]}, user()], "tools": json.dumps([TOOL])},
    ],
)
def test_tools_are_read_as_json_or_parsed_on_the_system_message_or_beside(row: dict) -> None:
    chat = Conversation.parse(row, "data.jsonl:1")

    assert chat == Conversation((Message("system", "s"), Message("user", "q")), (TOOL,))


@pytest.mark.parametrize(
    "message",
    [
        assistant("", tool_calls=[{"name": "f", "arguments": {"x": 1}}]),
        assistant(None, tool_calls=json.dumps([{"name": "f", "arguments": {"x": 1}}])),
        assistant(
            None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]
        ),
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"role": "assistant", "tool_calls": {"name": "f", "arguments": {"x": 1}}},
    ],
)
def test_tool_calls_are_read_in_every_spelling(message: dict) -> None:
    assert parse(message).messages == (Message("assistant", "", "", (CALL,)),)


def test_a_call_without_arguments_has_none() -> None:
    for arguments in ({}, "", "{}", None):
        assert ToolCall.parse({"name": "f", "arguments": arguments}) == ToolCall("f", {})


def test_tool_results_may_be_objects() -> None:
    assert parse({"role": "tool", "content": {"温度": 21}}).messages == (Message("tool", '{"温度": 21}'),)


@pytest.mark.parametrize(
    ("message", "reasoning", "content"),
    [
        (assistant("a", reasoning_content="\nr\n"), "r", "a"),
        (assistant("a", reasoning="r"), "r", "a"),
        (assistant("<think>\nr\n</think>\n\na"), "r", "a"),
        (assistant("r</think>a"), "r", "a"),
        (assistant("<think>\n\n</think>\n\na"), "", "a"),
        (assistant("r</think>a</think>b"), "r", "a</think>b"),
        # A field that is there, though empty, says that the tags in the answer are the answer's own.
        (assistant("r</think>a", reasoning_content=""), "", "r</think>a"),
        (assistant("never closed <think> r"), "", "never closed <think> r"),
    ],
)
def test_reasoning_is_found_in_its_field_or_in_the_answer(message: dict, reasoning: str, content: str) -> None:
    assert parse(message).messages == (Message("assistant", content, reasoning),)


def test_only_an_assistants_outer_newlines_are_dropped() -> None:
    chat = parse(user("\nq\n"), assistant("\n a\n", reasoning_content="\n r\n"))

    assert chat.messages == (Message("user", "\nq\n"), Message("assistant", " a\n", " r"))


def test_a_row_written_out_is_read_back_equal() -> None:
    chat = Conversation(
        (Message("user", "q</think>"), Message("assistant", "r</think>a", "", (CALL,)), Message("tool", "t")), (TOOL,)
    )

    assert Conversation.parse(json.loads(json.dumps(chat.to_dict())), "data.jsonl:1") == chat


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "data.jsonl:7: the row has no list 'messages'"),
        ({"text": "t"}, "its keys are 'text'"),
        ({"messages": []}, "the row has no list"),
        ({"messages": "hi"}, "the row has no list"),
        ({"messages": [user(), "hi"]}, "data.jsonl:7: message 2 is a str"),
        ({"messages": [{"content": "q"}]}, "message 1 has role None"),
        (
            {"messages": [user(), {"role": "critic", "content": "x"}]},
            "message 2 has role 'critic'; expected one of system",
        ),
        ({"messages": [{"role": "user"}]}, "message 1 has content of type NoneType; expected text"),
        ({"messages": [assistant(None)]}, "message 1 has content of type NoneType"),
        ({"messages": [user(5)]}, "message 1 has content of type int"),
        ({"messages": [user([{"type": "image_url", "image_url": {}}])]}, "part of type 'image_url'; only 'text'"),
        ({"messages": [user(["hi"])]}, "part of type 'str'"),
        ({"messages": [user("\ud800")]}, "message 1 has the lone surrogate U+D800"),
        ({"messages": [user() | {"tool_calls": [{"name": "f"}]}]}, "only an assistant calls tools"),
        ({"messages": [assistant("", tool_calls="[{")]}, "message 1 has a broken tool call"),
        ({"messages": [assistant("", tool_calls=[{"arguments": {}}])]}, "expected an object with a name"),
        ({"messages": [assistant("", tool_calls=[{"name": "f", "arguments": "[1]"}])]}, "arguments of 'f' are a list"),
        (
            {"messages": [assistant("", tool_calls=[{"name": "f", "arguments": {"x": float("nan")}}])]},
            "broken tool call",
        ),
        ({"messages": [assistant("", tool_calls=[{"name": "f", "arguments": {"x": "\ud800"}}])]}, "broken tool call"),
        ({"messages": [assistant("", tool_calls=5)]}, "broken tool call"),
        ({"messages": [assistant("", tool_calls="[" * 100_000)]}, "broken tool call"),
        ({"messages": [user()], "tools": "{"}, "the row has tools that are not JSON"),
        ({"messages": [user()], "tools": ["f"]}, "not a list of objects"),
        ({"messages": [user() | {"tools": "7"}]}, "message 1 has tools that are not a list"),
        (
            {"messages": [user() | {"tools": [TOOL]}], "tools": [{"name": "g"}]},
            "offers tools in two places that differ",
        ),
        ({"instruction": 1, "output": "a"}, "content of type int"),
        ({"instruction": "q", "output": "a", "history": [["q"]]}, "a history that is not a list"),
    ],
)
def test_what_cannot_be_read_is_named(row: dict, words: str) -> None:
    with pytest.raises(DataError) as error:
        Conversation.parse(row, "data.jsonl:7")

    assert str(error.value).startswith("data.jsonl:7: ") and words in str(error.value)


@pytest.mark.parametrize("name", ["sft_valid", "tool_valid", "agent_rl_math_valid", "rl_math_valid", "lora_identity"])
def test_real_rows_are_read_and_written_back_equal(name: str, shared: Path) -> None:
    lines = (shared / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        chat = Conversation.parse(json.loads(line), f"{name}:{number}")
        assert Conversation.parse(chat.to_dict(), "again:1") == chat
        assert len(chat.messages) == len(json.loads(line)["conversations"])
