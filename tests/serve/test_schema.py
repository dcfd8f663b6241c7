"""Every number has bounds and every list a length; and whatever fits the schema, or just does not, is answered."""

import json
import time
from collections import Counter
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from pydantic import ValidationError
from schemathesis import GenerationMode
from tests.serve.strangers import Process

from minimind.serve.schema import ChatBody, CompletionBody

# Fields whose inner values are free: JSON schemas, or chat data that `Conversation.parse` reads.
FREE = {"parameters", "metadata", "content", "tool_calls"}


def unbounded(schema: dict[str, Any], place: str = "") -> list[str]:
    """Where a schema lets a number or a list grow without end."""
    found = []
    if schema.get("type") in ("integer", "number") and not ({"maximum", "exclusiveMaximum"} & set(schema)):
        found.append(place)
    if schema.get("type") == "array" and "maxItems" not in schema and "/prompt" not in place:
        found.append(place)
    if schema.get("type") == "object" and "properties" not in schema and "maxProperties" not in schema:
        found.append(place)
    for key, value in schema.items():
        if key not in FREE and isinstance(value, dict):
            found += unbounded(value, f"{place}/{key}")
        elif isinstance(value, list):
            parts = [part for part in value if isinstance(part, dict)]
            found += [where for part in parts for where in unbounded(part, f"{place}/{key}")]
    return found


@pytest.mark.parametrize("body", [ChatBody, CompletionBody])
def test_nothing_grows_without_end(body: Any) -> None:
    assert unbounded(body.model_json_schema()) == []


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_a_prompt_is_text_or_ids_one_or_many(prompt: Any) -> None:
    assert CompletionBody(model="m", prompt=prompt).prompt == prompt


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], [-1], None, 3, {"a": 1}, [[1], 2], [1.5]])
def test_other_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(ValidationError):
        CompletionBody(model="m", prompt=prompt)


SAID = {"role": "user", "content": "a"}


def chat(*messages: dict[str, Any], **fields: Any) -> ChatBody:
    return ChatBody.model_validate({"model": "m", "messages": [*messages] or [SAID], **fields})


def test_null_is_not_given_and_what_asks_for_nothing_neither() -> None:
    nothing = dict.fromkeys(
        ("functions", "reasoning_effort", "audio", "seed", "tools", "stream_options", "no_such_field")
    )
    asked = chat(**nothing, modalities=["text"], logit_bias={}, min_tokens=0, skip_special_tokens=True)
    assert asked == chat(logit_bias={})
    assert chat(stream_options={"include_usage": None}).stream_options.include_usage is False  # type: ignore


@pytest.mark.parametrize(
    "fields",
    [
        {"functions": [{"name": "f"}]},
        {"modalities": ["text", "audio"]},
        {"min_tokens": 5},
        {"use_beam_search": True},
        {"no_such_field": False},
        {"reasoning_effort": "very"},
    ],
)
def test_unknown_fields_that_ask_for_something_are_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        chat(**fields)


def test_what_clients_send_back_of_an_answer_is_read() -> None:
    call = {"id": "c", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}
    nulls = dict.fromkeys(("refusal", "audio", "function_call", "annotations", "provider_specific_fields"))
    chat(SAID, {"role": "assistant", "content": None, "tool_calls": [call], **nulls, "annotations": []})
    chat(SAID, {"role": "assistant", "content": "b", "refusal": None, "reasoning_content": "c", "reasoning": "c"})


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "contents": "a"}, "contents|no content"),
        ({**SAID, "prefix": True}, "prefix"),
        ({"role": "user", "content": [{"type": "text", "text": "a", "colour": "red"}]}, "colour"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "type 'image_url'; only 'text'"),
        ({"role": "user", "content": None}, "'user' has no content"),
        ({"role": "system"}, "'system' has no content"),
        ({"role": "tool", "content": "1"}, "no tool_call_id"),
        ({"role": "tool", "tool_call_id": "c"}, "'tool' has no content"),
        ({"role": "assistant"}, "'assistant' has no content"),
        ({"role": "user", "content": {"a": 1}}, "only a tool's is an object"),
        ({**SAID, "tool_calls": [{"function": {"name": "f"}}]}, "only an assistant does"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "parameters": {}}}]}, "parameters"),
    ],
)
def test_messages_that_lack_or_have_what_nobody_reads_are_refused(message: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        chat(message)


WRONG_WITHOUT_END: list[tuple[Any, dict[str, Any]]] = [
    (CompletionBody, {"prompt": [-1] * 1000}),
    (CompletionBody, {"prompt": ["a"] * 1000}),
    (CompletionBody, {"prompt": [[-1] * 1000] * 100}),
    (CompletionBody, {"prompt": [["a"] * 1000] * 1000}),
    (CompletionBody, {"prompt": "a", "stop": [1] * 16}),
    (ChatBody, {"messages": [{"role": "x", "content": [1] * 1000}] * 1000}),
    (ChatBody, {"messages": [{"role": "user", "content": "a", "tool_calls": [1] * 100}]}),
    (ChatBody, {"messages": [{"role": "user", "content": "a"}], "tools": [{}] * 100}),
]


@pytest.mark.parametrize(("body", "fields"), WRONG_WITHOUT_END)
def test_a_list_is_refused_at_its_first_mistake(body: Any, fields: dict[str, Any]) -> None:
    """An error costs some 20 microseconds in which no stream goes on, and a body has room for half a million."""
    with pytest.raises(ValidationError) as caught:
        body.model_validate({"model": "m", **fields})
    assert caught.value.error_count() <= 8


# Beside whatever is an object: schemas that a grammar can be made of, or nearly.
REAL_SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"enum": ["a", "b"]}}, "required": ["x"]},
    {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 1, "maxItems": 3},
    {"type": "object", "additionalProperties": {"$ref": "#"}},
    {"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}, {"const": "你"}]},
    {"type": "string", "minLength": 10**6},
    {"properties": {"a": False}, "required": ["a"]},
    {"type": "string", "format": "date-time"},
]
# How often each operation is tried, in its schema and beside it, of 22 times.
SHARES = {"POST /v1/chat/completions": (6, 5), "POST /v1/completions": (5, 4), "GET /v1/models/{name}": (2, 0)}


def operations(process: Process) -> dict[str, Any]:
    """Those of the server's own schema, but with ids and a model that there are, and answers that soon end."""
    text = requests.get(f"http://127.0.0.1:{process.port}/openapi.json", timeout=30).text
    raw = json.loads(text.replace("10000000.0", "309"))
    parts = raw["components"]["schemas"]
    for body in ("ChatBody", "CompletionBody"):
        fields = parts[body]["properties"]
        fields["model"] = {"enum": ["tiny"]}
        fields["max_tokens"] = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 24}, {"type": "null"}]}
    parts["ChatBody"]["properties"]["max_completion_tokens"] = fields["max_tokens"]
    for part, name in (("_JsonSchema", "schema"), ("_Function", "parameters")):
        parts[part]["properties"][name] = {"anyOf": [parts[part]["properties"][name], {"enum": REAL_SCHEMAS}]}
    return {one.ok().label: one.ok() for one in schemathesis.openapi.from_dict(raw).get_all_operations()}


def require_answer(reply: requests.Response) -> None:
    """It is an answer, whole and well-formed, or an error in OpenAI's shape that is not the server's own."""
    assert reply.status_code < 500, reply.text
    if reply.status_code != 200:
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["type"] != "server_error"
    elif reply.headers["content-type"].startswith("text/event-stream"):
        lines = [line for line in reply.content.split(b"\n\n") if line]
        assert lines[-1] == b"data: [DONE]" and b'"server_error"' not in reply.content
        assert all("choices" in json.loads(line.removeprefix(b"data: ")) for line in lines[:-1])
    else:
        assert reply.json()["choices" if "completions" in reply.url else "id"]


def fuzz(process: Process, times: int, *, number: int) -> Counter[int]:
    """The statuses of 22 * times requests."""
    found: Counter[int] = Counter()
    known, session = operations(process), requests.Session()
    for label, shares in SHARES.items():
        for mode, share in zip((GenerationMode.POSITIVE, GenerationMode.NEGATIVE), shares, strict=True):
            if not share:
                continue

            @seed(number)
            @settings(
                max_examples=share * times,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=known[label].as_strategy(generation_mode=mode))
            def try_one(case: Any) -> None:
                given_ = case.as_transport_kwargs(base_url=f"http://127.0.0.1:{process.port}")
                reply = session.request(**given_, timeout=60)
                found[reply.status_code] += 1
                require_answer(reply)

            try_one()
    return found


def test_requests_made_from_the_schema_are_answered(process: Process) -> None:
    before = process.figures()
    found = fuzz(process, 10, number=1)
    assert found[200] > 20 and found[400] > 50 and sum(found.values()) >= 220, found
    process.require_rest(before, megabytes=128)


@pytest.mark.slow
def test_22000_requests_made_from_the_schema_are_answered(process: Process) -> None:
    fuzz(process, 20, number=2)
    before, begin, found = process.figures(), time.monotonic(), Counter[int]()
    for number in range(20):
        found += fuzz(process, 50, number=3 + number)
    after = process.require_rest(before, megabytes=128)
    print(f"{dict(found)} in {time.monotonic() - begin:.0f} s; {before} -> {after}")
    assert sum(found.values()) >= 22_000
