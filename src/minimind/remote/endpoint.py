"""An OpenAI-compatible server, asked from here: messages in, one answer out. Nothing but the standard library.

Replies are untrusted: they are parsed like any chat row, quoted text loses its control characters, and every reply has
a size limit. `answer_stream.py` reads answers that come in pieces.
"""

import json
import os
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from typing import Annotated, Any

from minimind.errors import ConfigError, DataError, UserError, printable
from minimind.generation.sampling import Sampling
from minimind.remote.answer_stream import Choice, read_choices, spoken_error
from minimind.text.messages import Conversation, Message

__all__ = ["Endpoint", "EndpointBusy", "Reply", "StreamBroken", "open_request"]

# An answer of a few thousand tokens is some kilobytes; what is larger is not an answer.
MAX_REPLY_BYTES = 16 * 2**20
BUSY_CODES = (408, 429, 500, 502, 503, 504)
MAX_QUOTED = 500
MAX_LISTED = 20


class EndpointBusy(UserError):
    """The server may answer the same request later."""


class StreamBroken(UserError):
    """An answer that had begun to come did not come to its end."""


@dataclass(frozen=True)
class Reply:
    """An answer, and whether it is whole."""

    message: Message
    is_whole: bool


@dataclass(frozen=True)
class Endpoint:
    """A server that answers as OpenAI's does."""

    url: Annotated[str, "Such as https://host/v1."]
    name: Annotated[str, "The model's name there; not needed where the server lists one alone."] = ""
    api_key_env: Annotated[str, "The environment variable with the key, if the server wants one."] = "OPENAI_API_KEY"
    timeout_seconds: Annotated[float, "For each answer, or each piece of one that is streamed."] = 120.0

    def __post_init__(self) -> None:
        if not self.timeout_seconds > 0:
            raise ConfigError(f"timeout_seconds is {self.timeout_seconds}; expected more than 0")

    def named(self) -> "Endpoint":
        """With a model's name: its own, or that of the only model the server lists. Errors: ConfigError, UserError"""
        if self.name:
            return self
        where = self._address("models")
        try:
            names = [str(model["id"]) for model in self._json(where)["data"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{where}: lists no models: {error}; choose one with --endpoint.name") from None
        if len(names) != 1:
            listed = ", ".join(_one_line(name) for name in names[:MAX_LISTED]) or "none"
            more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
            raise ConfigError(f"{where}: the models are {listed}{more}; choose one with --endpoint.name")
        return replace(self, name=names[0])

    def answer(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        *,
        thinking: bool = False,
    ) -> Reply:
        """The server's answer to a conversation. Errors: UserError naming the server and what it said"""
        where = self._address("chat/completions")
        reply = self._json(where, self._body(messages, tools, sampling, thinking))
        try:
            [choice, *_] = reply["choices"]
            message, is_whole = dict(choice["message"]), choice.get("finish_reason") != "length"
            if not is_whole:
                # Its last call may lack its end.
                message |= {"tool_calls": None, "content": message.get("content") or ""}
            parsed = Conversation.parse({"messages": [message]}, where).messages[0]
            return Reply(parsed, is_whole)
        except (KeyError, ValueError, TypeError, DataError) as error:
            raise UserError(
                f"{where}: the reply holds no answer: {error}; expected OpenAI's chat completions"
            ) from error

    def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        *,
        thinking: bool = False,
    ) -> Generator[Choice]:
        """The same while it is written.

        Errors:  StreamBroken once the answer has begun; before that UserError, as `answer`
        """
        where = self._address("chat/completions")
        body = self._body(messages, tools, sampling, thinking) | {"stream": True}
        with self._open(where, body) as response:
            kind = response.headers.get_content_type()
            if kind != "text/event-stream":
                said = _one_line(response.read(MAX_QUOTED).decode(errors="replace"))
                raise UserError(f"{where}: the reply is {_one_line(kind)}, expected text/event-stream: {said}")
            try:
                yield from read_choices(response.readline)
            except (OSError, HTTPException, ValueError) as error:
                raise StreamBroken(f"{where}: the answer broke off: {_reason(error)}") from None

    def _body(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], sampling: Sampling, thinking: bool
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": list(_spelled(messages)),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
        }
        # OpenAI's own server refuses to be told these, so they are told only where they say something.
        off = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        body |= {name: value for name in off if (value := getattr(sampling, name)) != off[name]}
        body |= {"tools": list(tools)} if tools else {}
        body |= {"stop": list(sampling.stop)} if sampling.stop else {}
        body |= {"chat_template_kwargs": {"enable_thinking": True}} if thinking else {}
        return body

    def _address(self, route: str) -> str:
        return f"{self.url.rstrip('/')}/{route}"

    def _json(self, where: str, body: Mapping[str, Any] | None = None) -> Any:
        with self._open(where, body) as response:
            try:
                content = response.read(MAX_REPLY_BYTES + 1)
            except (OSError, HTTPException) as error:
                raise UserError(f"{where}: the reply broke off: {_reason(error)}") from None
        if len(content) > MAX_REPLY_BYTES:
            raise UserError(f"{where}: the reply is longer than {MAX_REPLY_BYTES:,} bytes; expected an answer")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: the reply is not JSON: {error}; expected OpenAI's API") from None

    @contextmanager
    def _open(self, where: str, body: Mapping[str, Any] | None) -> Iterator[HTTPResponse]:
        """A reply with status 200, to be read. Errors: UserError naming the server and what it said"""
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.api_key_env, "").strip()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            content = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(where, content, headers)
            response = open_request(request, self.timeout_seconds)
        except urllib.error.HTTPError as error:
            with error:
                hint = _hint(error.code, self, has_key=bool(key))
                kind = EndpointBusy if error.code in BUSY_CODES else UserError
                raise kind(f"{where}: answered {error.code}: {_said(error)}; {hint}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise UserError(
                f"{where}: cannot be asked: {_reason(error)}; check the address, and that it is running"
            ) from None
        with response:
            yield response


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A server that sends us elsewhere would have the key sent there, too."""

    def redirect_request(self, *_: Any) -> None:
        return None


def open_request(request: urllib.request.Request, timeout_seconds: float) -> Any:
    """As urllib's `urlopen`, but an answer that sends us elsewhere is an error."""
    return urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout_seconds)


def _spelled(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    """The messages as strict servers want them: arguments as text, calls with ids, and results that name them."""
    calls: deque[str] = deque()
    count = 0
    for message in messages:
        row = message.to_dict()
        # Some refuse the field; where it is empty, it only keeps readers from looking for reasoning in the content.
        if not message.reasoning_content and "</think>" not in message.content:
            row.pop("reasoning_content", None)
        for call in row.get("tool_calls", ()):
            count += 1
            # Mistral's template takes ids of nine letters and digits only.
            calls.append(f"call{count:05d}")
            call["id"] = calls[-1]
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        if message.role == "tool" and calls:
            row["tool_call_id"] = calls.popleft()
        yield row


def _hint(code: int, endpoint: Endpoint, *, has_key: bool) -> str:
    if code in (401, 403):
        state = "has another key" if has_key else "is not set"
        return f"the key is taken from the environment variable {endpoint.api_key_env}, which {state}"
    if code == 404:
        end = "" if endpoint.url.rstrip("/").endswith("/v1") else ", which ends in /v1 as a rule"
        name = f", and the model's name {endpoint.name!r}" if endpoint.name else ""
        return f"check the address{end}{name}"
    return "check the address and the settings"


def _said(error: urllib.error.HTTPError) -> str:
    """What a server says of its error, in a line."""
    try:
        content = error.read(MAX_REPLY_BYTES)
    except (OSError, HTTPException):
        return "nothing"
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError):
        reply = content.decode(errors="replace")
    return _one_line(spoken_error(reply.get("error", reply) if isinstance(reply, dict) else reply)) or "nothing"


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return _one_line(str(reason) or repr(reason))


def _one_line(text: str) -> str:
    """A line of what a stranger wrote: nothing in it is obeyed by a terminal."""
    line = " ".join(text[: 2 * MAX_QUOTED].split())[:MAX_QUOTED]
    return printable(line)
