"""Asking an OpenAI-compatible server: what is sent, what is read, and every way it can fail is one clear line."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.scripted_server import DONE, ScriptedServer, Sent, event, listening, models, plain, streamed, whole

from minimind.errors import ConfigError, UserError
from minimind.generation.sampling import Sampling
from minimind.remote.endpoint import Endpoint, StreamBroken
from minimind.text.messages import Message, ToolCall

QUESTION = [Message("system", "Be brief."), Message("user", "Who?")]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with listening() as server:
        yield server


def endpoint(server: ScriptedServer) -> Endpoint:
    return Endpoint(server.url, "tiny", "TEST_KEY", timeout_seconds=5)


def texts(endpoint: Endpoint) -> list[str | None]:
    return [choice.delta.content for choice in endpoint.stream(QUESTION, [], Sampling())]


def test_a_question_is_sent_in_openais_shape(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret")
    server.say(whole({"role": "assistant", "content": "Me."}))
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    reply = endpoint(server).answer(QUESTION, [tool], Sampling(temperature=0.5, max_tokens=9, seed=3))
    assert reply.message == Message("assistant", "Me.") and reply.is_whole
    [(path, body, key)] = server.asked
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("tiny", 0.5, 9, 3)
    assert body["tools"] == [tool]


def test_reasoning_and_tool_calls_are_read(server: ScriptedServer) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    server.say(whole({"role": "assistant", "content": None, "reasoning": "Hm.", "tool_calls": [call]}))
    message = endpoint(server).answer(QUESTION, [], Sampling()).message
    assert message == Message("assistant", "", "Hm.", (ToolCall("f", {"x": 1}),))


def test_an_answer_that_was_cut_is_not_whole(server: ScriptedServer) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1'}}
    for message in ({"content": "Once upon"}, {"content": None, "tool_calls": [call]}):
        server.say(whole({"role": "assistant", **message}, "length"))
        assert not endpoint(server).answer(QUESTION, [], Sampling()).is_whole


@pytest.mark.parametrize(
    ("status", "reply", "message"),
    [
        (200, b"not json", "the reply is not JSON"),
        (200, b"{}", "the reply holds no answer"),
        (200, b'{"choices": []}', "the reply holds no answer"),
        (200, b'{"choices": [{"message": {"role": "robot", "content": "x"}}]}', "has role 'robot'"),
        (401, b"who are you", "answered 401: who are you; .* the environment variable TEST_KEY, which is not set"),
        (401, b'{"error": {"message": "no", "code": 7}}', "answered 401: no;"),
        (
            404,
            b'{"error": "no such model"}',
            "answered 404: no such model; check the address, and the model's name 'tiny'",
        ),
        (500, b"", "answered 500: nothing"),
        (500, b"[" * 9999, r"answered 500: \[\[\["),
        (500, b"oops", "answered 500: oops"),
    ],
)
def test_a_bad_reply_is_one_line_that_names_the_server(
    server: ScriptedServer, status: int, reply: bytes, message: str
) -> None:
    server.say(plain(reply, status))
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


def test_the_same_question_is_streamed(server: ScriptedServer) -> None:
    server.say(whole({"role": "assistant", "content": "Me."}), streamed("M", "e."))
    assert endpoint(server).answer(QUESTION, [], Sampling()).message.content == "Me."
    assert texts(endpoint(server)) == ["M", "e.", None]
    [(_, first, _), (_, second, _)] = server.asked
    assert second == first | {"stream": True}


def test_a_stream_may_be_cut_anywhere_on_its_way(server: ScriptedServer) -> None:
    content = b": hello\n\n" + b"".join(streamed("你好，", "世界。").pieces)
    for stream in (content, content.replace(b"\n", b"\r\n")):
        server.say(Sent(tuple(bytes([byte]) for byte in stream)))
        assert texts(endpoint(server)) == ["你好，", "世界。", None]


def test_an_answer_that_breaks_off_is_told_behind_what_came(server: ScriptedServer) -> None:
    said = (event({"content": "Once"}), b"data: {")
    replies = [
        ("the stream ended before the answer did", Sent(said)),
        ("the stream ended before the answer did", Sent(said, ending="cut")),
        ("the server says full", Sent((*said[:1], b'data: {"error": {"message": "full"}}\n\n'))),
        ("an event has more than", Sent((*said[:1], *[b"x" * 2**20] * 3))),
    ]
    for message, reply in replies:
        server.say(reply)
        choices = endpoint(server).stream(QUESTION, [], Sampling())
        assert next(choices).delta.content == "Once"
        with pytest.raises(StreamBroken, match=f"the answer broke off: {message}"):
            next(choices)


def test_a_server_that_falls_silent_is_left(server: ScriptedServer) -> None:
    server.say(Sent((b"data: ",), ending="hang"))
    short = Endpoint(server.url, "tiny", timeout_seconds=0.001)
    with pytest.raises(UserError, match="timed out"):
        texts(short)


def test_leaving_a_stream_closes_the_connection(server: ScriptedServer) -> None:
    server.say(Sent((event({"content": "Once"}),), ending="hang"))
    with closing(endpoint(server).stream(QUESTION, [], Sampling())) as choices:
        next(choices)
    assert server.is_left.wait(10)


def test_a_reply_that_is_no_stream_is_quoted(server: ScriptedServer) -> None:
    server.say(Sent((b"<html>Hello\x1b[2J",), kind="text/html"))
    with pytest.raises(UserError, match=r"the reply is text/html, expected text/event-stream: <html>Hello␛\[2J$"):
        texts(endpoint(server))


def test_garbage_in_place_of_http_is_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as client:
                client.recv(65536)
                client.sendall(b"\x1b]0;owned\x07 garbage\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UserError, match="cannot be asked: ␛]0;owned␇ garbage") as error:
            texts(Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "x", timeout_seconds=5))
        thread.join()
    assert str(error.value).isprintable()


def test_what_a_server_says_cannot_control_a_terminal(server: ScriptedServer) -> None:
    server.say(plain('{"error": {"message": "\\u001b[2J\\u202eno\\n你好"}}'.encode(), 500))
    with pytest.raises(UserError) as error:
        endpoint(server).answer(QUESTION, [], Sampling())
    assert "answered 500: ␛[2J\ufffdno 你好; " in str(error.value) and str(error.value).isprintable()


def test_nobody_is_sent_elsewhere_with_the_key(server: ScriptedServer) -> None:
    with listening() as other:
        server.say(Sent((), status=302, headers=(("Location", f"{other.url}/models"),)))
        with pytest.raises(UserError, match="answered 302"):
            endpoint(server).named().answer(QUESTION, [], Sampling())
        with pytest.raises(UserError, match="answered 302"):
            Endpoint(server.url).named()
        assert other.asked == []


def test_the_only_model_needs_no_name(server: ScriptedServer) -> None:
    server.say(models("other"))
    assert endpoint(server).named().name == "tiny" and server.asked == []
    assert Endpoint(server.url).named().name == "other" and server.asked[0][0] == "/v1/models"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (models(), "the models are none; choose one"),
        (models("a", "b\x1b"), "the models are a, b␛; choose one with --endpoint.name"),
        (models(*map(str, range(30))), f"the models are {', '.join(map(str, range(20)))} and 10 more; choose one"),
        (plain(b'{"data": 5}'), "lists no models"),
        (plain(b"[]"), "lists no models"),
        (plain(b"nonsense"), "the reply is not JSON"),
        (plain(b"", 404), "answered 404"),
    ],
)
def test_where_there_is_no_only_model_one_has_to_be_chosen(server: ScriptedServer, reply: Sent, message: str) -> None:
    server.say(reply)
    with pytest.raises(UserError, match=re.escape(f"{server.url}/models: ") + message):
        Endpoint(server.url).named()


def test_calls_and_results_are_sent_as_strict_servers_want_them(server: ScriptedServer) -> None:
    server.say(streamed("5"))
    calls = (ToolCall("f", {"x": "你"}), ToolCall("g", {}))
    said = [*QUESTION, Message("assistant", "", "Hm.", calls), Message("tool", "1"), Message("tool", "2")]
    said += [Message("assistant", "a"), Message("assistant", "a </think> b")]
    list(endpoint(server).stream(said, [], Sampling()))
    _, _, called, *results, answer, odd = server.asked[0][1]["messages"]
    assert [call["function"]["arguments"] for call in called["tool_calls"]] == ['{"x": "你"}', "{}"]
    assert [call["id"] for call in called["tool_calls"]] == [result["tool_call_id"] for result in results]
    assert called["reasoning_content"] == "Hm." and "reasoning_content" not in answer
    assert odd["reasoning_content"] == ""


def test_settings_that_openai_lacks_are_sent_where_they_are_set(server: ScriptedServer) -> None:
    server.say(Sent((DONE,)))
    for sampling in (Sampling(), Sampling(top_k=5, min_p=0.1, repetition_penalty=1.2)):
        list(endpoint(server).stream(QUESTION, [], sampling))
    [plainly, fully] = [body for _, body, _ in server.asked]
    assert not {"top_k", "min_p", "repetition_penalty"} & plainly.keys()
    assert (fully["top_k"], fully["min_p"], fully["repetition_penalty"]) == (5, 0.1, 1.2)


def test_a_key_with_a_newline_behind_it_is_not_shown(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret\n")
    server.say(streamed("hi"))
    assert texts(endpoint(server)) == ["hi", None] and server.asked[0][2] == "Bearer secret"
