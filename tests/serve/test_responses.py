"""A body of the Responses API is the same as a chat."""

from typing import Any

import pytest
from pydantic import ValidationError

from minimind.serve.problems import Problem, translated
from minimind.serve.responses import ResponsesBody, chat_of_responses

USER = {"role": "user", "content": "hello"}
CALL = {
    "type": "function_call",
    "call_id": "c1",
    "name": "add",
    "arguments": '{"x": 1}',
    "id": "fc_1",
    "status": "completed",
}


def chat(given: Any, **fields: Any) -> dict[str, Any]:
    body = ResponsesBody.model_validate({"model": "m", "input": given, **fields})
    return chat_of_responses(body).model_dump(exclude_unset=True, by_alias=True)


def test_a_text_is_what_a_user_says_and_instructions_are_the_systems() -> None:
    asked = chat("hello", instructions="be brief", max_output_tokens=5, temperature=0.5)
    assert asked["messages"] == [{"role": "system", "content": "be brief"}, USER]
    assert (asked["max_completion_tokens"], asked["temperature"]) == (5, 0.5)


def test_what_the_assistant_said_in_a_row_is_one_message() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    said = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed"}
    said |= {"content": [{"type": "output_text", "text": "I add", "annotations": [], "logprobs": []}]}
    result = {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "2"}]}
    messages = chat([USER, thought, said, CALL, {**CALL, "call_id": "c2"}, result, said])["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert (messages[1]["reasoning_content"], messages[1]["content"]) == ("hm", "I add")
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c1", "c2"]
    assert (messages[2]["tool_call_id"], messages[2]["content"]) == ("c1", "2")


def test_tools_formats_and_effort_are_a_chats() -> None:
    tool = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}
    wanted = {"format": {"type": "json_schema", "name": "p", "schema": {"type": "object"}, "strict": True}}
    choice = {"type": "function", "name": "add"}
    asked = chat([USER], tools=[tool], tool_choice=choice, text=wanted, reasoning={"effort": "low"}, include=[])
    assert asked["tools"][0]["function"] == {"name": "add", "parameters": {"type": "object"}, "strict": True}
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert asked["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "r"},
        {"background": True},
        {"conversation": "c"},
        {"tools": [{"type": "web_search"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
    ],
)
def test_what_needs_a_memory_or_more_than_text_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ResponsesBody.model_validate({"model": "m", "input": "a", **fields})


@pytest.mark.parametrize("item", [{"role": "user"}, {"type": "function_call"}, {"type": "function_call_output"}])
def test_an_item_that_lacks_what_it_needs_is_named(item: dict[str, Any]) -> None:
    body = ResponsesBody.model_validate({"model": "m", "input": [USER, item]})
    with pytest.raises(Problem, match=r"input\.1"):
        translated(chat_of_responses, body)
