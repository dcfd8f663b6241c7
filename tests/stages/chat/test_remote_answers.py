"""A server's stream becomes pieces of an answer; calls that are not whole are text."""

import re
from collections.abc import Iterator

import pytest
from tests.scripted_server import DONE, ScriptedServer, Sent, event, listening, streamed
from tests.serve.tiny_server import Running, listen, make_service

from minimind.errors import UserError
from minimind.generation.sampling import Sampling
from minimind.remote.endpoint import Endpoint
from minimind.stages.chat.dialogue import AnswerEnding
from minimind.stages.chat.remote_answers import RemoteAnswerer
from minimind.text.answers import Delta, join
from minimind.text.conversation import Conversation, Message, ToolCall
from minimind.tools.builtin import TOOLS

QUESTION = Conversation((Message("user", "2+3?"),), (TOOLS["calculate_math"].schema,))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with listening() as server:
        yield server


@pytest.fixture(scope="module")
def ours() -> Iterator[Running]:
    with listen(make_service()) as running:
        yield running


def answer(url: str, *, name: str = "tiny", turn: int = 1, thinking: bool = False) -> tuple[Message, AnswerEnding]:
    said: list[Delta] = []
    sampling = Sampling(temperature=1, max_tokens=300)
    answerer = RemoteAnswerer(Endpoint(url, name, timeout_seconds=10), sampling)
    ending = answerer.answer(QUESTION, turn, thinking=thinking, say=said.append)
    return join(said), ending


def call(index: int | None = None, number: str | None = None, name: str | None = None, arguments: str = "") -> dict:
    part = {"index": index, "id": number, "function": {"name": name, "arguments": arguments}}
    return {"tool_calls": [{key: value for key, value in part.items() if value is not None}]}


def test_text_comes_as_it_was_sent(server: ScriptedServer) -> None:
    server.say(streamed({"role": "assistant", "content": ""}, "你", "好，", "世界。\n"))
    assert answer(server.url) == (Message("assistant", "你好，世界。\n"), (True, ""))


@pytest.mark.parametrize("names", [["reasoning"], ["reasoning_content"], ["reasoning", "reasoning_content"]])
def test_reasoning_is_read_once_whatever_it_is_called(server: ScriptedServer, names: list[str]) -> None:
    server.say(streamed(dict.fromkeys(names, "Two and "), dict.fromkeys(names, "three."), {"content": "5", "x": None}))
    assert answer(server.url)[0] == Message("assistant", "5", "Two and three.")


def test_calls_are_put_together_from_their_pieces(server: ScriptedServer) -> None:
    pieces = [
        call(0, "a", "f"),
        call(0, None, None, '{"x": '),
        call(1, "b", "g"),
        call(0, None, None, '"你"}'),
        call(1),
    ]
    server.say(streamed("let me see", *pieces, finish_reason="tool_calls"))
    message, ending = answer(server.url)
    assert message == Message("assistant", "let me see", "", (ToolCall("f", {"x": "你"}), ToolCall("g", {})))
    assert ending.is_whole


@pytest.mark.parametrize("index", [None, 0])
def test_calls_that_come_whole_under_one_index_are_kept_apart(server: ScriptedServer, index: int | None) -> None:
    server.say(
        streamed(call(index, "a", "f", '{"x": 1}'), call(index, "b", "f", '{"x": 2}'), finish_reason="tool_calls")
    )
    assert [made.arguments for made in answer(server.url)[0].tool_calls] == [{"x": 1}, {"x": 2}]


def test_a_call_that_cannot_be_read_is_text(server: ScriptedServer) -> None:
    server.say(streamed(call(0, "a", "f", "x = 1"), call(1, "b", "g"), finish_reason="tool_calls"))
    assert answer(server.url)[0] == Message("assistant", "f(x = 1)", "", (ToolCall("g", {}),))


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        (streamed(call(0, "a", "f", "{}"), finish_reason="length"), "cut by --sampling.max_tokens, or by the end"),
        (streamed(call(0, "a", "f", "{}"), finish_reason="content_filter"), "ended by the server: content_filter"),
        (Sent((event(call(0, "a", "f", "{}")),), ending="cut"), "the answer broke off: .*; /retry asks again"),
        (Sent((event(call(0, "a", "f", "{}")), b"data: [\n\n", DONE)), "the answer broke off: .*; /retry asks again"),
    ],
)
def test_a_call_in_an_answer_that_is_not_whole_is_not_one(server: ScriptedServer, reply: Sent, note: str) -> None:
    server.say(reply)
    message, ending = answer(server.url)
    assert message == Message("assistant", "f({})") and not ending.is_whole
    assert re.search(note, ending.note)


def test_another_turn_is_asked_with_another_seed(server: ScriptedServer) -> None:
    server.say(streamed("hi"))
    for turn in (1, 2):
        answer(server.url, turn=turn)
    assert [body["seed"] for _, body, _ in server.asked] == [1, 2]


def test_a_refusal_is_an_error(ours: Running) -> None:
    with pytest.raises(UserError, match=r"answered 404: there is no such model; this server has tiny, scripted; "):
        answer(f"{ours.url}/v1", name="other")


def test_our_own_server_answers_with_thinking_and_calls(ours: Running) -> None:
    made = '{"name": "calculate_math", "arguments": {"expression": "2+3"}}'
    ours.say(f"Hm.\n</think>\n\n你好\n<tool_call>\n{made}\n</tool_call>")
    message, ending = answer(f"{ours.url}/v1", name="scripted", thinking=True)
    assert message == Message("assistant", "你好", "Hm.", (ToolCall("calculate_math", {"expression": "2+3"}),))
    assert ending == (True, "")


def test_our_own_server_gives_each_turn_an_answer_of_its_own(ours: Running) -> None:
    first, second, again = (answer(f"{ours.url}/v1", turn=turn)[0] for turn in (1, 2, 1))
    assert first == again != second
