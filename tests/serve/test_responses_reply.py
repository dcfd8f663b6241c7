"""OpenAI's own client reads answers of the Responses API, whole and as they come."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.serve.tiny_server import listen, make_service

ADD = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"x": {"enum": [1, 2, 3]}}, "required": ["x"]},
}
ASK: dict[str, Any] = {"model": "tiny", "input": "hello", "temperature": 0, "extra_body": {"seed": 1}}


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with listen(make_service()) as running:
        url = f"http://127.0.0.1:{running.port}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            yield client


@pytest.mark.parametrize("fields", [{}, {"tools": [ADD], "tool_choice": "required"}, {"reasoning": {"effort": "low"}}])
def test_the_pieces_of_a_stream_are_the_whole_answer(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    whole = client.responses.create(**ASK, **fields, max_output_tokens=40)
    events = list(client.responses.create(**ASK, **fields, max_output_tokens=40, stream=True))
    last = events[-1]
    assert last.type == f"response.{whole.status}"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for ours, streamed in zip(whole.output, last.response.output, strict=True):
        left, right = (item.model_dump(exclude={"id", "call_id"}) for item in (ours, streamed))
        assert left == right
    pieces = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert pieces == whole.output_text
    added, done = (
        [e.item.id for e in events if e.type == f"response.output_item.{kind}"] for kind in ("added", "done")
    )
    assert added == done == [item.id for item in last.response.output]


def test_a_forced_call_is_an_item_with_its_arguments(client: openai.OpenAI) -> None:
    answer = client.responses.create(**ASK, tools=[ADD], tool_choice="required", max_output_tokens=60)
    [call] = answer.output
    assert (call.type, call.name, answer.status) == ("function_call", "add", "completed")
    given = [item.model_dump(exclude_none=True) for item in answer.output]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
    again = client.responses.create(
        **{**ASK, "input": [{"role": "user", "content": "a"}, *given, result]}, max_output_tokens=4
    )
    assert again.usage.output_tokens <= 4 and again.status in ("completed", "incomplete")


def test_an_answer_that_was_cut_says_so(client: openai.OpenAI) -> None:
    answer = client.responses.create(**ASK, max_output_tokens=1)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.total_tokens == answer.usage.input_tokens + 1


def test_what_cannot_be_done_raises_openais_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(**ASK, previous_response_id="r")
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="other", input="a")
