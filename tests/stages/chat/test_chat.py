"""`minimind chat` through a pipe: questions, commands, and every mistake answered in a line."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.scripted_server import ScriptedServer, Sent, event, listening, models, plain, streamed
from tests.tiny import TOKENIZER, fresh_model

import minimind
from minimind.cli import parse
from minimind.errors import CheckpointError, ConfigError, UserError
from minimind.lora import LoraConfig, add_lora, lora_weights
from minimind.stages.chat.chat import run
from minimind.storage.adapters import fingerprint, save_adapter
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.text.conversation import Conversation

Talk = Callable[..., str]


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Chat with a small fresh model: lines in, the output back."""
    monkeypatch.chdir(tmp_path)
    # Any other weights might say the escape character, which a pipe passes on.
    save_checkpoint("model", fresh_model(max_position_embeddings=2000), TOKENIZER)

    def talk(*lines: str, words: tuple[str, ...] = (), model: str = "model") -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        run(parse("chat", [*[model][: bool(model)], "--sampling.max_tokens", "8", *words]))  # type: ignore[arg-type]
        return capsys.readouterr().out

    return talk


def saved(path: str) -> list[Conversation]:
    return [Conversation.parse(json.loads(line), path) for line in Path(path).read_text().splitlines()]


def test_piped_questions_are_answered_in_order_and_in_chinese_too(talk: Talk) -> None:
    talk("hello", "", "你好，世界。", "/save talk.jsonl")
    [conversation] = saved("talk.jsonl")
    assert [m.role for m in conversation.messages] == ["user", "assistant"] * 2
    assert [m.content for m in conversation.messages[::2]] == ["hello", "你好，世界。"]


def test_a_pipe_gets_neither_prompts_nor_styles(talk: Talk) -> None:
    output = talk("hello", words=("--thinking",))
    assert "\x1b" not in output and "> " not in output and output.startswith("thinking\n  │ ")


def test_the_same_input_gives_the_same_output(talk: Talk) -> None:
    first, second, other = (talk("hello", "/retry", words=("--sampling.seed", seed)) for seed in "112")
    assert first == second != other


def test_asking_again_gives_another_answer(talk: Talk) -> None:
    talk("hello", "/save a", "/retry", "/save b")
    assert saved("a")[0].messages[0] == saved("b")[0].messages[0]
    assert saved("a")[0].messages[1] != saved("b")[0].messages[1]


def test_a_new_conversation_forgets_the_old_one(talk: Talk) -> None:
    talk("hello", "/new", "/system 简短一点", "again", "/save a")
    assert [m.content for m in saved("a")[0].messages[:2]] == ["简短一点", "again"]


def test_a_system_prompt_can_be_removed(talk: Talk) -> None:
    output = talk("/system", "hello", "/save a", words=("--system", "Be brief."))
    assert "there is no system prompt now" in output
    assert saved("a")[0].messages[0].role == "user"


def test_thinking_is_switched_by_a_command(talk: Talk) -> None:
    assert "thinking is on" in talk("/thinking on", "/thinking off")
    assert "takes on or off; it is off" in talk("/thinking maybe")


def test_help_names_every_command(talk: Talk) -> None:
    output = talk("/help")
    for command in (
        "/help",
        "/new",
        "/thinking on|off",
        "/system TEXT",
        "/adapter NAME",
        "/retry",
        "/save FILE",
        "/quit",
    ):
        assert command in output


def test_quit_ends_before_the_input_does(talk: Talk) -> None:
    assert talk("/quit", "/help") == ""


def test_an_unknown_command_is_answered_with_the_nearest(talk: Talk) -> None:
    assert "unknown command /retyr; did you mean /retry?" in talk("/retyr")
    assert "/help lists the commands" in talk("/xyzzy")


def test_two_slashes_send_a_slash(talk: Talk) -> None:
    talk("//new", "/save a")
    assert saved("a")[0].messages[0].content == "/new"


def test_a_mistake_does_not_end_the_program(talk: Talk) -> None:
    output = talk("/save", "/retry", "long " * 2000, "hello", "/save no/such/folder", "/save a")
    assert "/save takes a file name" in output and "there is no question yet" in output
    assert "error: this turn has" in output and "no/such/folder: not saved" in output
    assert len(saved("a")[0].messages) == 2


def test_a_tool_that_does_not_exist_is_refused_before_the_model_is_read(talk: Talk) -> None:
    with pytest.raises(ConfigError, match=r"tools has 'calculate_maths'.*did you mean calculate_math"):
        talk(words=("--tools", "calculate_maths"))


def test_tools_are_offered_to_the_model(talk: Talk) -> None:
    talk("hello", "/save a", words=("--tools", "calculate_math", "count_text"))
    assert [tool["function"]["name"] for tool in saved("a")[0].tools] == ["calculate_math", "count_text"]


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a model folder"):
        run(parse("chat", [str(tmp_path)]))  # type: ignore[arg-type]


def save_lora(name: str, seed: int) -> None:
    """A random adapter for the model, strong enough to be noticed."""
    model, tokenizer = load_model("model")
    facts = {"base_fingerprint": fingerprint(model), "tokenizer_fingerprint": tokenizer.fingerprint}
    add_lora(model, LoraConfig(2), seed)
    for weight in lora_weights(model).values():
        weight.normal_(0, 2.0, generator=torch.Generator().manual_seed(seed))
    save_adapter(name, model, base="model", config=LoraConfig(2), **facts)


def answers(talk: Talk, *lines: str, words: tuple[str, ...] = (), model: str = "model") -> list[str]:
    talk(*lines, "/save talk.jsonl", words=("--sampling.temperature", "0", *words), model=model)
    [conversation] = saved("talk.jsonl")
    Path("talk.jsonl").unlink()
    return [m.content for m in conversation.messages if m.role == "assistant"]


def test_adapters_are_switched_while_talking(talk: Talk) -> None:
    save_lora("runs/a", 1)
    save_lora("runs/b", 2)
    words = ("--adapters", "runs/a", "runs/b")
    [alone], [first] = answers(talk, "hello"), answers(talk, "hello", words=words)
    [again] = answers(talk, "/adapter b", "/adapter none", "hello", words=words)
    [second] = answers(talk, "/adapter b", "hello", words=words)
    assert first != alone and second not in (alone, first) and again == alone
    assert len(answers(talk, "hello", "/adapter b", "hello", "/adapter none", "hello", words=words)) == 3


def test_an_adapter_run_is_talked_with_as_it_is(talk: Talk) -> None:
    save_lora("runs/a", 1)
    assert answers(talk, "hello", words=("--adapters", "runs/a")) == answers(talk, "hello", model="runs/a")


def test_the_adapters_are_told_and_a_wrong_name_is_answered(talk: Talk) -> None:
    save_lora("runs/a", 1)
    output = talk("/adapter", "/adapter none", "/adapter c", words=("--adapters", "runs/a"))
    assert "(adapters: a, none)\n(the adapter is a)\n(the adapter is none)\n" in output
    assert "error: no adapter is called 'c'; there are a, none" in output
    assert "there are no adapters; name LoRA runs with --adapters" in talk("/adapter")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with listening() as server:
        yield server


def made(name: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "id": "a", "function": {"name": name, "arguments": '{"expression": "2+3"}'}}]}


def test_a_server_is_talked_with_as_a_model_is(talk: Talk, server: ScriptedServer) -> None:
    server.say(models("tiny"), streamed({"reasoning": "Hm."}, "你", "好"), streamed("again"), streamed("new"))
    words = ("--url", server.url, "--thinking")
    output = talk("hello", "/retry", "/new", "/system Be brief.", "world", "/save a", model="", words=words)
    assert output.startswith("thinking\n  │ Hm.\n你好\n") and "again\n" in output
    [first, second, third] = [body["messages"] for _, body, _ in server.asked[1:]]
    assert first == second == [{"role": "user", "content": "hello"}]
    assert [message["content"] for message in third] == ["Be brief.", "world"]
    assert [m.content for m in saved("a")[0].messages] == ["Be brief.", "world", "new"]


def test_a_server_may_call_the_tools_that_are_offered_and_no_other(talk: Talk, server: ScriptedServer) -> None:
    calls = [streamed(made(name), finish_reason="tool_calls") for name in ("calculate_math", "run_shell\x1b[2J")]
    server.say(*calls, streamed("it is 5"))
    words = ("--endpoint.url", server.url, "--endpoint.name", "tiny", "--tools", "calculate_math")
    output = talk("2+3?", model="", words=words)
    assert '-> calculate_math(expression="2+3") = 5\n' in output and "it is 5" in output
    assert "= error: there is no tool 'run_shell\\x1b[2J'; there are calculate_math" in output
    results = [message for message in server.asked[2][1]["messages"] if message["role"] == "tool"]
    assert [json.loads(result["content"]).get("result") for result in results] == [5, None]


def test_a_server_that_fails_does_not_end_the_program(talk: Talk, server: ScriptedServer) -> None:
    broken = Sent((event({"content": "Once"}),), ending="cut")
    server.say(plain(b'{"error": {"message": "no key"}}', 401), broken, streamed("upon a time"))
    words = ("--endpoint.url", server.url, "--endpoint.name", "tiny")
    output = talk("one", "two", "/retry", "/save a", model="", words=words)
    assert "answered 401: no key; the key is taken from the environment variable OPENAI_API_KEY" in output
    assert "Once\n(" in output and "the answer broke off: the stream ended" in output
    assert [m.content for m in saved("a")[0].messages] == ["two", "upon a time"]


def test_a_pipe_of_questions_that_all_fail_is_an_error(talk: Talk, server: ScriptedServer) -> None:
    words = ("--url", server.url.removesuffix("/v1"), "--endpoint.name", "tiny")
    server.say(*[plain(b"nothing", 404)] * 2, streamed("hello"))
    with pytest.raises(UserError, match="none of the questions was answered"):
        talk("one", model="", words=words)
    output = talk("two", "three", model="", words=words)
    assert "check the address, which ends in /v1 as a rule, and the model's name 'tiny'" in output and "hello" in output


def test_one_side_to_talk_with_is_expected(talk: Talk, server: ScriptedServer) -> None:
    both = ("--url", server.url, "--endpoint.url", server.url)
    for model, words in (
        ("", ()),
        ("model", ("--endpoint.url", server.url)),
        ("model", ("--url", server.url)),
        ("", both),
    ):
        with pytest.raises(ConfigError, match="expected one to talk with"):
            talk(model=model, words=words)
    with pytest.raises(ConfigError, match="--adapters belong to a model here"):
        talk(model="", words=("--endpoint.url", server.url, "--adapters", "runs/a"))
    server.say(models("a", "b"))
    with pytest.raises(ConfigError, match="the models are a, b; choose one"):
        talk(model="", words=("--endpoint.url", server.url))


def test_a_servers_address_may_stand_before_its_other_options(talk: Talk, server: ScriptedServer) -> None:
    """As the advice says to who gives --url alone, and the server has several models."""
    server.say(models("a", "b"), streamed("hello"))
    with pytest.raises(ConfigError, match=r"choose one with --endpoint\.name"):
        talk(model="", words=("--url", server.url))
    assert talk("hello", model="", words=("--url", server.url, "--endpoint.name", "b")) == "hello\n\n"
    assert server.asked[1][1]["model"] == "b"
    with pytest.raises(ConfigError, match="address is missing: set it with --url"):
        talk(model="", words=("--endpoint.name", "b"))


def test_adapters_are_not_a_servers_matter(talk: Talk, server: ScriptedServer) -> None:
    words = ("--endpoint.url", server.url, "--endpoint.name", "tiny")
    assert "error: there are no adapters" in talk("/adapter none", model="", words=words)


def test_ctrl_c_stops_a_servers_answer_and_not_the_program(server: ScriptedServer) -> None:
    server.say(Sent((event({"content": "Once"}),), ending="hang"), streamed("upon a time"))
    words = ("--endpoint.url", server.url, "--endpoint.name", "tiny")
    command = [sys.executable, "-m", "minimind", "chat", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(minimind.__file__).parents[1])}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdin and process.stdout
        process.stdin.write("hello\n")
        assert process.stdout.read(4) == "Once"
        process.send_signal(signal.SIGINT)
        assert server.is_left.wait(20)
        rest, _ = process.communicate("and then?\n")
    assert rest == "\n(stopped)\n\nupon a time\n\n" and process.returncode == 0
    assert [message["content"] for message in server.asked[1][1]["messages"]] == ["hello", "Once", "and then?"]
