"""A body of Anthropic's Messages API is the same as a chat."""

from typing import Any

import pytest
from pydantic import ValidationError

from minimind.serve.anthropic import AnthropicBody, chat_of_anthropic
from minimind.serve.problems import Problem

USER = {"role": "user", "content": "hello"}


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = AnthropicBody.model_validate({"model": "m", "max_tokens": 9, "messages": [*messages], **fields})
    return chat_of_anthropic(body).model_dump(exclude_unset=True)


def test_the_system_stands_first_and_settings_are_kept() -> None:
    system = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    asked = chat(USER, system=system, stop_sequences=["x"], top_k=3, metadata={"user_id": "u"})
    assert asked["messages"] == [{"role": "system", "content": "be brief"}, USER]
    assert (asked["max_completion_tokens"], asked["stop"], asked["top_k"]) == (9, ["x"], 3)


def test_blocks_become_reasoning_calls_and_results() -> None:
    said = [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "I add"},
        {"type": "tool_use", "id": "t1", "name": "add", "input": {"x": 1}},
    ]
    back = [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "2"}]},
        {"type": "text", "text": "and now?"},
    ]
    messages = chat(USER, {"role": "assistant", "content": said}, {"role": "user", "content": back})["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
    assert (messages[1]["reasoning_content"], messages[1]["content"]) == ("hm", "I add")
    assert messages[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"x": 1}}
    assert (messages[2]["content"], messages[3]["content"]) == ("2", "and now?")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "any"}, "required"),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto"),
        ({"type": "tool", "name": "add"}, {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_tools_and_their_choice_are_a_chats(choice: dict[str, Any], expected: Any) -> None:
    tool = {"name": "add", "description": "d", "input_schema": {"type": "object"}}
    asked = chat(USER, tools=[tool], tool_choice=choice)
    assert asked["tools"][0]["function"]["parameters"] == {"type": "object"} and asked["tool_choice"] == expected
    assert asked["parallel_tool_calls"] is ("disable_parallel_tool_use" not in choice)


@pytest.mark.parametrize(("kind", "thinks"), [("enabled", True), ("disabled", False)])
def test_thinking_is_the_templates_switch(kind: str, thinks: bool) -> None:
    budget = {"budget_tokens": 1024} if thinks else {}
    assert chat(USER, thinking={"type": kind, **budget})["chat_template_kwargs"] == {"enable_thinking": thinks}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "a"},
        {"role": "user", "content": [{"type": "image", "source": {}}]},
        {"role": "user", "content": [{"type": "text", "text": "a", "colour": "red"}]},
    ],
)
def test_what_no_text_is_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        chat(message)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "tool_result", "content": "2"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
    ],
)
def test_a_block_that_lacks_what_it_needs_is_named(message: dict[str, Any]) -> None:
    with pytest.raises(Problem, match=r"messages\.0"):
        chat(message)
