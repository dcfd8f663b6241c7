"""`minimind generate`: prompts from anywhere, texts to the screen or to a file that can be continued."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.adapters import fingerprint, save_adapter
from minimind.checkpoint import load_model, save_checkpoint
from minimind.cli import parse
from minimind.conversation import Message, render_prompt
from minimind.errors import ConfigError, DataError
from minimind.generation import complete, generate
from minimind.lora import LoraConfig, add_lora, lora_weights
from minimind.model import ModelConfig, Transformer
from minimind.sampling import Sampling
from minimind.stages.generate import run
from minimind.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["hello world, hello there", "你好，世界。" * 3], 305)
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
PROMPTS = ["hello", "你好", "world", "there", "hello there"]
Generate = Callable[..., str]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generate:
    """Run the stage with a small fresh model; gives what it printed."""
    monkeypatch.chdir(tmp_path)
    config = ModelConfig(vocab_size=305, intermediate_size=16, max_position_embeddings=200, **SIZES)
    save_checkpoint("model", Transformer(config), TOKENIZER)

    def go(*words: str, typed: str = "") -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        run(parse("generate", ["model", "--sampling.max_tokens", "8", *words]))  # type: ignore[arg-type]
        return capsys.readouterr().out

    return go


def write_rows(path: str, rows: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


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
    assert go(typed="hello\n\n你好\n") == go("--file", "prompts.txt") != ""


def test_rows_of_every_kind_are_answered(go: Generate) -> None:
    messages = [{"role": "user", "content": "hello"}]
    rows = [{"prompt": "hello"}, {"text": "你好"}, {"messages": messages}, {"conversations": messages}]
    write_rows("in.jsonl", rows)
    go("--file", "in.jsonl", "--out", "out.jsonl")
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


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_file_that_was_cut_off_is_continued_to_the_same_rows(go: Generate, cut: int) -> None:
    write_rows("in.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    words = ("--file", "in.jsonl", "--out", "out.jsonl", "--batch_size")
    go(*words, "2")
    whole = Path("out.jsonl").read_bytes()
    rows = whole.splitlines(keepends=True)
    Path("out.jsonl").write_bytes(rows[0] + rows[1][:cut] if cut >= 0 else whole[:-1])
    assert "5 rows" in go(*words, "3")
    assert [(r["prompt"], r["text"]) for r in read_rows("out.jsonl")] == [
        (r["prompt"], r["text"]) for r in map(json.loads, rows)
    ]


def test_a_file_that_answers_other_prompts_is_left_alone(go: Generate) -> None:
    go("--prompt", "hello", "--out", "out.jsonl")
    before = Path("out.jsonl").read_bytes()
    for words in (("--prompt", "world"), ()):
        with pytest.raises(DataError, match=r"out\.jsonl:1: answers another prompt"):
            go(*words, "--out", "out.jsonl")
    assert Path("out.jsonl").read_bytes() == before


def test_a_file_that_was_not_written_here_is_left_alone(go: Generate) -> None:
    Path("notes").write_text("precious")
    with pytest.raises(DataError, match="notes: was not written here"):
        go("--prompt", "hello", "--out", "notes")
    assert Path("notes").read_text() == "precious"


def test_a_row_that_cannot_be_answered_is_named(go: Generate) -> None:
    write_rows("in.jsonl", [{"prompt": "hello"}, {"question": "why?"}])
    with pytest.raises(DataError, match=r"in\.jsonl:2: has no column 'text'"):
        go("--file", "in.jsonl")
    write_rows("in.jsonl", [{"prompt": "hello"}, {"prompt": "long " * 300}])
    with pytest.raises(DataError, match=r"in\.jsonl:2: the prompt has [\d,]+ tokens and the model's context 200"):
        go("--file", "in.jsonl")


def test_exactly_one_source_of_prompts_is_expected(go: Generate) -> None:
    with pytest.raises(ConfigError, match="--prompt and --file are both given"):
        go("--prompt", "hello", "--file", "x.txt")


def test_a_file_that_cannot_be_read_is_named(go: Generate) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt: cannot be read: No such file"):
        go("--file", "nowhere.txt")
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt: not UTF-8"):
        go("--file", "latin.txt")


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
