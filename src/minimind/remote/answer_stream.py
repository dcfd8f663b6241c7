"""An answer that comes while it is written: lines of an HTTP reply -> server-sent events -> OpenAI's choices.

Whoever sends it is not trusted: a line, an event and the whole stream are bounded, and of an event only what an answer
needs is read, each field of its type. `endpoint.py` asks for such streams. Sources: WHATWG HTML, section 9.2, and
OpenAI's chat completion chunks, with the two names that servers have for reasoning.
"""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, Field, ValidationError

__all__ = ["CallPiece", "Choice", "StreamPiece", "read_choices", "read_events", "spoken_error"]

# An event is a few words with some JSON around them; a stream is an answer with all of that.
MAX_EVENT_BYTES = 2**20
MAX_STREAM_BYTES = 64 * 2**20


class _FunctionPiece(BaseModel):
    name: str | None = None
    arguments: str | None = None


class CallPiece(BaseModel):
    """A part of a tool call: first its id and name, then its arguments in pieces."""

    index: int | None = None
    id: str | None = None
    function: _FunctionPiece = Field(default_factory=_FunctionPiece)


class StreamPiece(BaseModel):
    """What an event adds to an answer."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallPiece] | None = None


class Choice(BaseModel):
    """A piece, and with the last one why the answer ends."""

    delta: StreamPiece
    finish_reason: str | None = None


class _Event(BaseModel):
    choices: list[Choice] | None = None
    error: Any = None


def read_choices(read_line: Callable[[int], bytes]) -> Iterator[Choice]:
    """The choices of a stream, up to its [DONE].

    read_line:  as `read_events`
    Errors:     ValueError for what is no answer, and for one that does not come to its end
    """
    is_ended = False
    for data in read_events(read_line):
        if data == "[DONE]":
            return
        try:
            event = _Event.model_validate_json(data)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, found["loc"])) or "an event"
            raise ValueError(f"{place}: {found['msg']}; expected OpenAI's chat completion chunks") from None
        if event.error:
            raise ValueError(f"the server says {spoken_error(event.error)}")
        for choice in event.choices or ():
            is_ended = is_ended or bool(choice.finish_reason)
            yield choice
    if not is_ended:
        raise ValueError("the stream ended before the answer did")


def read_events(
    read_line: Callable[[int], bytes], max_event_bytes: int = MAX_EVENT_BYTES, max_bytes: int = MAX_STREAM_BYTES
) -> Iterator[str]:
    """The data of each event. One that the stream's end cuts off is none.

    read_line:  gives the next line with its end, or so many bytes of it; nothing at the end of the stream
    Errors:     ValueError for a stream that is too long or is not UTF-8
    """
    data: list[bytes] = []
    size = total = 0
    while line := read_line(max_event_bytes + 1):
        size += len(line)
        total += len(line)
        if size > max_event_bytes:
            raise ValueError(f"an event has more than {max_event_bytes:,} bytes")
        if total > max_bytes:
            raise ValueError(f"the stream has more than {max_bytes:,} bytes")
        line = line.rstrip(b"\r\n")
        # A line that begins with a colon is a comment, which keeps the connection open; other fields say nothing here.
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line:
            if data:
                yield b"\n".join(data).decode()
            data, size = [], 0


def spoken_error(error: Any) -> str:
    """What OpenAI's `error` object says, or whatever a server has in its place."""
    return str(error.get("message") or error) if isinstance(error, dict) else str(error)
