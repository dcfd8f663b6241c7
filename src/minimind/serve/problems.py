"""What goes wrong, in the shape of OpenAI's errors, so that its clients raise the exceptions that users expect."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.responses import JSONResponse

__all__ = ["TWO_LENGTHS", "Problem", "problem_reply", "translated", "validation_problem"]

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

# The code of a request whose end is in doubt: what follows it on the connection is not to be read.
TWO_LENGTHS = "two_lengths"

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}

_BRANCHES = {"str", "int", "NamedChoice"}
# What a branch says to a value of another kind.
_MISFITS = ("_type", "_parsing", "literal_error")


class Problem(Exception):
    """An error for the client.

    param:  the field that is wrong
    code:   a word that a program can look for
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def problem_reply(problem: Problem) -> JSONResponse:
    headers = {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.code == TWO_LENGTHS:
        headers["Connection"] = "close"
    if problem.status in (429, 503):
        headers["Retry-After"] = "1"
    # The last is what Anthropic's clients look for.
    return JSONResponse({**problem.body(), "type": "error"}, problem.status, headers)


def validation_problem(errors: Sequence[Any]) -> Problem:
    """The first of pydantic's errors, without what was sent: it may be long, or secret."""
    place = _place(errors[0])
    # A union has an error for each branch; what was sent was meant for the one that took most of it.
    error = max((other for other in errors if _place(other)[: len(place)] == place), key=_taken)
    field = ".".join(_place(error))
    message = str(error.get("msg", "is wrong")).removeprefix("Value error, ")
    if error.get("type") == "json_invalid":
        return Problem(400, "the body is not JSON", code="invalid_json")
    if error.get("type") == "extra_forbidden":
        message = "is not supported by this server"
    return Problem(400, f"{field[:200] or 'the body'}: {message}", param=field[:200] or None, code="invalid_value")


def translated(translate: Callable[[_Given], _Made], body: _Given) -> _Made:
    """What a translation of a body makes of it. Errors: Problem, in the words of what it became"""
    try:
        return translate(body)
    except ValidationError as error:
        raise validation_problem(error.errors()) from None


def _place(error: Any) -> list[str]:
    """The field. A union names the branch that failed, too; the field is what the client knows."""
    parts = [str(part) for part in error.get("loc", ()) if part != "body"]
    return [part for part in parts if (part.isidentifier() or part.isdigit()) and part not in _BRANCHES]


def _taken(error: Any) -> tuple[bool, list[int]]:
    """How much was taken before the error: whether the kind was right, and how far into lists it went."""
    is_right = not str(error.get("type", "")).endswith(_MISFITS)
    return is_right, [part for part in error.get("loc", ()) if isinstance(part, int)]
