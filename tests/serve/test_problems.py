"""Errors have OpenAI's shape, and repeat nothing of what was sent."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from minimind.serve.problems import Problem, problem_reply, validation_problem
from minimind.serve.schema import ChatBody, CompletionBody


@pytest.mark.parametrize(
    ("status", "kind", "header"),
    [
        (400, "invalid_request_error", None),
        (401, "authentication_error", "www-authenticate"),
        (404, "not_found_error", None),
        (413, "invalid_request_error", None),
        (429, "rate_limit_error", "retry-after"),
        (500, "server_error", None),
    ],
)
def test_each_status_has_its_type(status: int, kind: str, header: str | None) -> None:
    reply = problem_reply(Problem(status, "words", param="p", code="c"))
    assert reply.status_code == status
    assert json.loads(bytes(reply.body)) == {
        "type": "error",
        "error": {"message": "words", "type": kind, "param": "p", "code": "c"},
    }
    assert header is None or header in reply.headers


def test_an_invalid_field_is_named_and_its_value_is_not() -> None:
    with pytest.raises(ValidationError) as caught:
        CompletionBody.model_validate({"model": "m", "prompt": ["a"], "temperature": "secret " * 3})
    problem = validation_problem(caught.value.errors())
    assert (problem.status, problem.param) == (400, "temperature")
    assert "secret" not in json.dumps(problem.body())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", [], "prompt: List should have at least 1 item"),
        ("prompt", [[]], "prompt.0: List should have at least 1 item"),
        ("prompt", [-1], "prompt.0: Input should be greater than or equal to 0"),
        ("prompt", ["a", 1], "prompt.1: Input should be a valid string"),
        ("prompt", [1, "a"], "prompt.1: Input should be a valid integer"),
        ("prompt", [[1], [2, "a"]], "prompt.1.1: Input should be a valid integer"),
        ("prompt", ["a"] * 129, "prompt: List should have at most 128 items"),
        ("prompt", 7, "prompt: Input should be a valid string"),
        ("stop", ["a"] * 17, "stop: List should have at most 16 items"),
        ("stop", ["a", ""], "stop.1: String should have at least 1 character"),
        ("tool_choice", {"type": "function"}, "tool_choice.function: Field required"),
        ("tool_choice", "any", "tool_choice: Input should be 'none', 'auto' or 'required'"),
    ],
)
def test_of_several_kinds_the_one_that_was_meant_is_told(field: str, value: Any, message: str) -> None:
    body, rest = (
        (CompletionBody, {}) if field == "prompt" else (ChatBody, {"messages": [{"role": "user", "content": "a"}]})
    )
    with pytest.raises(ValidationError) as caught:
        body.model_validate({"model": "m", **rest, field: value})
    problem = validation_problem(caught.value.errors())
    assert problem.message.startswith(message) and problem.param == message.partition(":")[0]
