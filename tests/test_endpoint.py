"""Asking an OpenAI-compatible server: what is sent, what is read, and every way it can fail is one clear line."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from minimind.endpoint import Endpoint
from minimind.errors import ConfigError, UserError
from minimind.messages import Message, ToolCall
from minimind.sampling import Sampling

QUESTION = [Message("system", "Be brief."), Message("user", "Who?")]


class Server(HTTPServer):
    """Answers every request with `reply`, and remembers what was asked."""

    status, reply = 200, b"{}"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []

    def say(self, message: dict[str, Any], finish_reason: str = "stop") -> None:
        self.reply = json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}]}).encode()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers["Authorization"]))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.reply)))
        self.end_headers()
        self.wfile.write(self.server.reply)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def endpoint(server: Server) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "tiny", "TEST_KEY", timeout_seconds=5)


def test_a_question_is_sent_in_openais_shape(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret")
    server.say({"role": "assistant", "content": "Me."})
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    reply = endpoint(server).answer(QUESTION, [tool], Sampling(temperature=0.5, max_tokens=9, seed=3))
    assert reply.message == Message("assistant", "Me.") and reply.is_whole
    [(path, body, key)] = server.asked
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("tiny", 0.5, 9, 3)
    assert body["tools"] == [tool]


def test_reasoning_and_tool_calls_are_read(server: Server) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    server.say({"role": "assistant", "content": None, "reasoning": "Hm.", "tool_calls": [call]})
    message = endpoint(server).answer(QUESTION, [], Sampling()).message
    assert message == Message("assistant", "", "Hm.", (ToolCall("f", {"x": 1}),))


def test_an_answer_that_was_cut_is_not_whole(server: Server) -> None:
    server.say({"role": "assistant", "content": "Once upon"}, "length")
    assert not endpoint(server).answer(QUESTION, [], Sampling()).is_whole


@pytest.mark.parametrize(
    ("status", "reply", "message"),
    [
        (200, b"not json", "the reply is not JSON"),
        (200, b"{}", "the reply holds no answer"),
        (200, b'{"choices": []}', "the reply holds no answer"),
        (200, b'{"choices": [{"message": {"role": "robot", "content": "x"}}]}', "has role 'robot'"),
        (401, b"who are you", "answered 401: who are you; check the model's name and the key"),
        (500, b"oops", "answered 500: oops"),
    ],
)
def test_a_bad_reply_is_one_line_that_names_the_server(server: Server, status: int, reply: bytes, message: str) -> None:
    server.status, server.reply = status, reply
    with pytest.raises(UserError, match=message) as error:
        endpoint(server).answer(QUESTION, [], Sampling())
    assert str(error.value).startswith(f"http://127.0.0.1:{server.server_port}/v1/chat/completions: ")


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"cannot be asked: .*check the address"):
        Endpoint("http://127.0.0.1:9/v1", "tiny", timeout_seconds=2).answer(QUESTION, [], Sampling())


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_limit_has_to_be_above_zero(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"timeout_seconds is .*; expected more than 0"):
        Endpoint("http://127.0.0.1:9/v1", "tiny", timeout_seconds=seconds)
