"""`minimind generate`: prompts from anywhere, texts to the screen or to a file that can be continued."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.serve.tiny_server import wait_for
from tests.tiny import TOKENIZER, fresh_model, write_rows

import minimind
from minimind.cli import parse
from minimind.errors import ConfigError, DataError, UserError
from minimind.generation.completions import complete
from minimind.generation.generate import generate
from minimind.generation.sampling import Sampling
from minimind.lora import LoraConfig, add_lora, lora_weights
from minimind.stages.generate.continuations import Continuation
from minimind.stages.generate.generate import _row, run
from minimind.stages.generate.prompts import GivenPrompt
from minimind.storage.adapters import fingerprint, save_adapter
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.text.answers import Delta
from minimind.text.conversation import Conversation, Message, ToolCall, render_prompt

PROMPTS = ["hello", "你好", "world", "there", "hello there"]
Generate = Callable[..., str]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generate:
    """Run the stage with a small fresh model; gives what it printed."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint("model", fresh_model(max_position_embeddings=200), TOKENIZER)

    def go(*words: str, typed: str = "") -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        run(parse("generate", ["model", "--sampling.max_tokens", "8", *words]))  # type: ignore[arg-type]
        return capsys.readouterr().out

    return go


def read_rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_one_text_is_continued_as_the_library_does_it(go: Generate) -> None:
    model, tokenizer = load_model("model")
    assert go("--prompt", "hello") == generate(model, tokenizer, "hello", max_tokens=8) + "\n"


def test_several_texts_follow_their_prompts(go: Generate) -> None:
    output = go("--prompt", "hello", "你好")
    assert "[1] hello\n" in output and "[2] 你好\n" in output


def test_piped_lines_and_lines_of_a_file_are_prompts(go: Generate) -> None:
    Path("prompts.txt").write_text("hello\n\n你好\n")
    assert go(typed="hello\n\n你好\n") == go("--source", "prompts.txt") != ""


def test_rows_of_every_kind_are_answered(go: Generate) -> None:
    messages = [{"role": "user", "content": "hello"}]
    rows = [{"prompt": "hello"}, {"text": "你好"}, {"messages": messages}, {"conversations": messages}]
    write_rows(Path("in.jsonl"), rows)
    go("--source", "in.jsonl", "--out", "out.jsonl")
    found = read_rows("out.jsonl")
    assert [row.get("prompt") for row in found] == ["hello", "你好", None, None]
    assert [row["messages"] for row in found[2:]] == [messages] * 2
    assert all({"text", "finish_reason", "tokens"} <= row.keys() for row in found)


def test_a_question_is_put_as_in_a_chat(go: Generate) -> None:
    go("--prompt", "hello", "--chat", "--thinking", "--out", "out.jsonl", "--sampling.temperature", "0")
    model, tokenizer = load_model("model")
    ids = render_prompt([Message("user", "hello")], (), tokenizer, thinking=True)
    [expected] = complete(model, tokenizer, [ids], Sampling(temperature=0, max_tokens=8))
    [row] = read_rows("out.jsonl")
    assert row["prompt"] == "hello"
    assert row["reasoning_content"] + row["text"] in expected.text


def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(go: Generate) -> None:
    write_rows(Path("in.jsonl"), [{"prompt": prompt} for prompt in PROMPTS * 4])
    words = ("--source", "in.jsonl", "--out", "out.jsonl", "--batch_size", "1")
    assert go(*words) == "out.jsonl: 20 rows\n"
    whole = Path("out.jsonl").read_bytes()
    rows = whole.splitlines(keepends=True)
    for place in range(21):
        for torn in (b"", b"{", (rows[place] if place < 20 else b"xy")[:-1]):
            Path("out.jsonl").write_bytes(b"".join(rows[:place]) + torn)
            assert go(*words) == "out.jsonl: 20 rows\n"
            assert Path("out.jsonl").read_bytes() == whole


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(go: Generate) -> None:
    write_rows(Path("in.jsonl"), [{"prompt": prompt} for prompt in PROMPTS * 40])
    words = ["--source", "in.jsonl", "--batch_size", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(minimind.__file__).parents[1])}
    command = [sys.executable, "-m", "minimind", "generate", "model", "--sampling.max_tokens", "8", *words]
    with subprocess.Popen([*command, "--out", "killed.jsonl"], env=environment, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: Path("killed.jsonl").exists() and Path("killed.jsonl").read_bytes().count(b"\n") > 20)
        process.kill()
    assert 20 < Path("killed.jsonl").read_bytes().count(b"\n") < 200
    for out in ("killed.jsonl", "whole.jsonl"):
        assert go(*words, "--out", out) == f"{out}: 200 rows\n"
    assert Path("killed.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--prompt", "world"), 'source was "1 prompts, [0-9a-f]{16}" and is now "1 prompts, [0-9a-f]{16}"'),
        (("--prompt", "hello", "world"), 'source was "1 prompts, .*" and is now "2 prompts, '),
        (("--prompt", "hello", "--sampling.temperature", "0.3"), "sampling.temperature was 0.7 and is now 0.3; choose"),
        (("--prompt", "hello", "--sampling.stop", "你"), r'sampling.stop was \[\] and is now \["你"\]'),
        (
            ("--prompt", "hello", "--chat", "--thinking"),
            "chat was false and is now true; thinking was false and is now",
        ),
    ],
)
def test_a_file_that_was_begun_otherwise_is_left_alone(go: Generate, changed: tuple[str, ...], message: str) -> None:
    go("--prompt", "hello", "--out", "out.jsonl")
    before = Path("out.jsonl").read_bytes()
    with pytest.raises(DataError, match=f"out.jsonl: cannot go on: {message}"):
        go(*changed, "--out", "out.jsonl")
    assert Path("out.jsonl").read_bytes() == before


def test_a_file_by_another_model_is_left_alone(go: Generate) -> None:
    go("--prompt", "hello", "--out", "out.jsonl")
    save_checkpoint("model", fresh_model(1, max_position_embeddings=200), TOKENIZER)
    with pytest.raises(DataError, match=r"out\.jsonl: cannot go on: model was .* and is now "):
        go("--prompt", "hello", "--out", "out.jsonl")


def test_prompts_that_do_not_fit_are_rows_with_an_error_and_counted(go: Generate) -> None:
    rows = [{"prompt": "long " * 300}, {"messages": [{"role": "user", "content": "你好" * 300}]}, {"prompt": "hello"}]
    write_rows(Path("in.jsonl"), rows)
    for _ in range(2):
        told = go("--source", "in.jsonl", "--out", "out.jsonl")
        assert told == "out.jsonl: 3 rows, 2 of them with an error in place of an answer\n"
    found = read_rows("out.jsonl")
    assert [row.pop("error", "")[:14] for row in found] == ["the prompt has"] * 2 + [""]
    assert found[:2] == rows[:2] and found[2]["text"]
    assert "(error: the prompt has" in go("--source", "in.jsonl")
    with pytest.raises(UserError, match=r"^--prompt: the prompt has [\d,]+ tokens and the context 200"):
        go("--prompt", "long " * 300)


def test_an_answer_is_a_row_with_its_reasoning_and_its_calls() -> None:
    prompt, call = GivenPrompt("here", {}, Conversation((Message("user", "hi"),))), ToolCall("f", {"x": 1})
    deltas = [Delta("reasoning", "a"), Delta("content", "b </think>"), Delta("call", call=call)]
    row = _row(prompt, Continuation([5, 6], [0.0, 0.0], "stop", deltas=deltas))
    assert row.pop("tool_calls")[0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert row == {"text": "b </think>", "reasoning_content": "a", "finish_reason": "stop", "tokens": 2}


def test_a_row_that_cannot_be_answered_is_named(go: Generate) -> None:
    write_rows(Path("in.jsonl"), [{"prompt": "hello"}, {"body": "why?"}])
    with pytest.raises(DataError, match=r"in\.jsonl:2: has 'body'; expected a prompt or a text"):
        go("--source", "in.jsonl")
    Path("in.jsonl").write_text('{"prompt": "hello"}\n{"prompt": \n')
    with pytest.raises(DataError, match=r"in\.jsonl:2: not JSON"):
        go("--source", "in.jsonl", "--out", "out.jsonl")
    assert not Path("out.jsonl").exists()


def test_exactly_one_source_of_prompts_is_expected(go: Generate) -> None:
    with pytest.raises(ConfigError, match="--prompt and --source are both given"):
        go("--prompt", "hello", "--source", "x.txt")


def test_a_file_that_cannot_be_read_is_named(go: Generate) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt: cannot be read: No such file"):
        go("--source", "nowhere.txt")
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt:1: not UTF-8"):
        go("--source", "latin.txt")


def test_an_adapter_is_used_with_the_model(go: Generate) -> None:
    model, tokenizer = load_model("model")
    facts = {"base_fingerprint": fingerprint(model), "tokenizer_fingerprint": tokenizer.fingerprint}
    add_lora(model, LoraConfig(2), seed=0)
    for weight in lora_weights(model).values():
        weight.normal_(0, 2.0, generator=torch.Generator().manual_seed(1))
    save_adapter("lora", model, base="model", config=LoraConfig(2), **facts)
    words = ("--prompt", "hello", "--sampling.temperature", "0")
    expected = generate(model, tokenizer, "hello", max_tokens=8, temperature=0) + "\n"
    assert go(*words, "--adapter", "lora") == expected != go(*words)
