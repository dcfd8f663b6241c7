"""Calls are compared as structures, recorded turns are played again, and false calls are counted beside."""

import json
from typing import Any

import pytest
from tests.evals.lessons import CALCULATOR, ROWS

from minimind.errors import DataError
from minimind.evals.tool_calls import PlayedTurn, ToolCalls, are_same_calls, tool_calls
from minimind.model import Transformer
from minimind.text.conversation import Message, ToolCall
from minimind.text.tokenizer import Tokenizer

LESSON = ROWS[2]["lesson"]


def call(arguments: Any, name: str = "f") -> ToolCall:
    return ToolCall(name, json.loads(arguments) if isinstance(arguments, str) else arguments)


def played(*calls: ToolCall, content: str = "", recorded: tuple[ToolCall, ...] = (call('{"a": 1}'),)) -> PlayedTurn:
    got = Message("assistant", content, tool_calls=calls)
    return PlayedTurn((Message("user", "?"),), Message("assistant", "" if recorded else "Hi", "", recorded), got, True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1, "b": "x"}', '{"b": "x", "a": 1.0}'),
        ('{"a": " x\\n"}', '{"a": "x"}'),
        ('{"a": [1, {"b": null, "c": true}]}', '{"a": [1.0, {"c": true, "b": null}]}'),
        ("{}", "{}"),
    ],
)
def test_equal_values_are_the_same_call_however_they_are_written(one: str, other: str) -> None:
    assert are_same_calls([call(one)], [call(other)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1}', '{"a": true}'),
        ('{"a": 0}', '{"a": false}'),
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": "x"}', '{"a": "X"}'),
        ('{"a": null}', "{}"),
        ('{"a": 1}', '{"a": 1, "b": 2}'),
        ('{"a": [1, 2]}', '{"a": [2, 1]}'),
        ('{"a": [1, 2]}', '{"a": [1]}'),
        ('{"a": {}}', '{"a": []}'),
        ('{"a": 9007199254740993}', '{"a": 9007199254740992}'),
    ],
)
def test_other_values_are_another_call(one: str, other: str) -> None:
    assert not are_same_calls([call(one)], [call(other)]) and not are_same_calls([call(other)], [call(one)])


def test_parallel_calls_may_come_in_any_order_and_each_once() -> None:
    first, second = call('{"a": 1}'), call('{"a": 1}', "g")
    assert are_same_calls([first, second], [second, first])
    assert not are_same_calls([first, second], [first, first])
    assert not are_same_calls([first], [first, first]) and not are_same_calls([first, first], [first])


def test_arguments_may_be_nested_as_deep_as_a_model_likes() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert not are_same_calls([call('{"a": [[1]]}')], [call({"a": deep})])


def test_the_levels_are_nested_and_false_calls_stand_beside_them() -> None:
    right, other = call('{"a": 1}'), call('{"a": 2}')
    broken = '<tool_call>\n{"name": \n</tool_call>'
    turns = [
        played(right),
        played(other),
        played(call('{"a": 1}', "g")),
        played(right, content=broken),
        played(content=broken),
        played(content="1"),
        played(content="Hi", recorded=()),
        played(right, recorded=()),
        played(content=broken, recorded=()),
        PlayedTurn((), Message("assistant", "Hi"), Message("assistant"), fits=False),
        PlayedTurn((), Message("assistant", "", "", (right,)), Message("assistant"), fits=False),
    ]
    found = ToolCalls(turns)
    assert {level: list(share.amounts) for level, share in found.by_level.items()} == {
        "well formed": [1, 1, 1, 0, 0, 0, 0],
        "named": [1, 1, 0, 0, 0, 0, 0],
        "right": [1, 0, 0, 0, 0, 0, 0],
    }
    assert found.false_calls is not None and found.false_calls.amounts == [0, 1, 1] and found.num_too_long == 2
    assert ToolCalls(turns[:1]).false_calls is None


def test_a_model_that_learnt_to_call_makes_the_recorded_calls_again(taught: Transformer, tokenizer: Tokenizer) -> None:
    found = tool_calls(taught, tokenizer, [("a:1", LESSON)])
    assert found.by_level["right"].amounts == [1]
    assert found.false_calls is not None and found.false_calls.amounts == [0]


def test_what_stands_before_a_turn_is_the_recording_and_not_what_the_model_said(
    taught: Transformer, tokenizer: Tokenizer
) -> None:
    asked, recorded, *rest = LESSON["conversations"]
    other = recorded | {"tool_calls": [{"name": CALCULATOR.name, "arguments": {"expression": "9*9"}}]}
    found = tool_calls(taught, tokenizer, [("a:1", LESSON | {"conversations": [asked, other, *rest]})])
    assert found.by_level["named"].amounts == [1] and found.by_level["right"].amounts == [0]
    assert found.turns[1].before[1].tool_calls[0].arguments == {"expression": "9*9"}


def test_a_turn_that_does_not_fit_is_counted_as_wrong(taught: Transformer, tokenizer: Tokenizer) -> None:
    asked, *rest = LESSON["conversations"]
    long = LESSON | {"conversations": [asked | {"content": "2+3 " * 700}, *rest]}
    found = tool_calls(taught, tokenizer, [("a:1", long), ("a:2", LESSON)])
    assert found.num_too_long == 2 and found.by_level["right"].amounts == [0, 1]
    assert found.false_calls is not None and len(found.false_calls.amounts) == 1


USER, SAYS = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
BROKEN = {
    "a:7: offers no tools": {"messages": [USER, SAYS]},
    "a:7: message 2 says nothing and calls nothing": LESSON | {"conversations": [USER, SAYS | {"content": ""}]},
    "a:7: has no message of the assistant": LESSON | {"conversations": [USER]},
    "none of 1 recorded answers calls a tool": LESSON | {"conversations": [USER, SAYS]},
    "a:7: the row has no list 'messages' or 'conversations'": {"talk": [USER]},
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_row_that_cannot_be_played_is_named(taught: Transformer, tokenizer: Tokenizer, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tool_calls(taught, tokenizer, [("a:7", BROKEN[message])])
