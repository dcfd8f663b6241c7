"""Errors have OpenAI's shape, and repeat nothing of what was sent."""

import json

import pytest
from pydantic import ValidationError

from minimind.serve.problems import Problem, problem_reply, validation_problem
from minimind.serve.schema import CompletionBody


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
    assert json.loads(bytes(reply.body)) == {"error": {"message": "words", "type": kind, "param": "p", "code": "c"}}
    assert header is None or header in reply.headers


def test_an_invalid_field_is_named_and_its_value_is_not() -> None:
    with pytest.raises(ValidationError) as caught:
        CompletionBody.model_validate({"model": "m", "prompt": ["a"], "temperature": "secret " * 3})
    problem = validation_problem(caught.value.errors())
    assert (problem.status, problem.param) == (400, "temperature")
    assert "secret" not in json.dumps(problem.body())
