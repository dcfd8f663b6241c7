"""Answers in Anthropic's shape, whole and as events."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from tests.serve.tiny_server import Running, listen, make_service

from minimind.serve.guard import Policy

ADD = {
    "name": "add",
    "input_schema": {"type": "object", "properties": {"x": {"enum": [1, 2, 3]}}, "required": ["x"]},
}
KEY = "0123456789abcdef0123456789abcdef"
ASK: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 40,
    "temperature": 0,
    "seed": 1,
    "messages": [{"role": "user", "content": "hello"}],
}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with listen(make_service(), Policy(key=KEY)) as running:
        yield running


def post(running: Running, path: str = "/v1/messages", key: str = KEY, **fields: Any) -> requests.Response:
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return requests.post(f"http://127.0.0.1:{running.port}{path}", json={**ASK, **fields}, headers=headers, timeout=60)


def events(reply: requests.Response) -> list[dict[str, Any]]:
    parts = [part.split("\n") for part in reply.content.decode().strip().split("\n\n")]
    told = [json.loads(data.removeprefix("data: ")) for _, data in parts]
    assert [name.removeprefix("event: ") for name, _ in parts] == [event["type"] for event in told]
    return told


def rebuilt(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks of content that a stream makes."""
    blocks: list[dict[str, Any]] = []
    for event in told:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append({**event["content_block"], "partial": ""})
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            name = "partial" if delta["type"] == "input_json_delta" else delta["type"].removesuffix("_delta")
            blocks[event["index"]][name] += delta.get("partial_json", delta.get(name))
    for block in blocks:
        if partial := block.pop("partial"):
            block["input"] = json.loads(partial)
    return blocks


@pytest.mark.parametrize(
    "fields", [{}, {"tools": [ADD], "tool_choice": {"type": "any"}}, {"thinking": {"type": "enabled"}}]
)
def test_the_pieces_of_a_stream_are_the_whole_answer(running: Running, fields: dict[str, Any]) -> None:
    whole = post(running, **fields).json()
    told = events(post(running, **fields, stream=True))
    assert [told[0]["type"], told[-2]["type"], told[-1]["type"]] == ["message_start", "message_delta", "message_stop"]
    for ours, streamed in zip(whole["content"], rebuilt(told), strict=True):
        assert {**ours, "id": ""} == {**streamed, "id": ""}
    assert told[-2]["delta"]["stop_reason"] == whole["stop_reason"]
    assert told[-2]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_a_forced_call_is_a_block_with_its_input(running: Running) -> None:
    answer = post(running, tools=[ADD], tool_choice={"type": "tool", "name": "add"}).json()
    [block] = answer["content"]
    assert (block["type"], block["name"], answer["stop_reason"]) == ("tool_use", "add", "tool_use")
    assert set(block["input"]) == {"x"}


def test_tokens_are_counted_without_an_answer(running: Running) -> None:
    asked = {name: value for name, value in ASK.items() if name in ("model", "messages")}
    headers = {"x-api-key": KEY}
    url = f"http://127.0.0.1:{running.port}/v1/messages/count_tokens"
    counted = requests.post(url, json=asked, headers=headers, timeout=60).json()
    assert counted == {"input_tokens": post(running).json()["usage"]["input_tokens"]}


def test_errors_have_anthropics_shape(running: Running) -> None:
    for reply, status, kind in (
        (post(running, key="wrong"), 401, "authentication_error"),
        (post(running, model="other"), 404, "not_found_error"),
        (post(running, max_tokens=0), 400, "invalid_request_error"),
    ):
        body = reply.json()
        assert (reply.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
