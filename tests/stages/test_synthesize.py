"""A teacher's answers become rows to train on; a run that was cut off goes on without asking twice."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.checkpoint import save_checkpoint
from minimind.cli import main
from minimind.conversation import Conversation
from minimind.endpoint import Endpoint
from minimind.errors import ConfigError, DataError
from minimind.messages import Message
from minimind.model import ModelConfig, Transformer
from minimind.sampling import Sampling
from minimind.stages import synthesize
from minimind.stages.synthesize import Reply, SynthesizeConfig, run
from minimind.tokenizer import Tokenizer

QUESTIONS = [f"Question {number}?" for number in range(7)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "model"
    tokenizer = Tokenizer.train(["a question and an answer"], 300)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, head_dim=8, intermediate_size=24, **shape))
    save_checkpoint(folder, model, tokenizer)
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [[{"role": "user", "content": text}, {"role": "assistant", "content": ""}] for text in QUESTIONS]
    path.write_text("".join(json.dumps({"conversations": row}) + "\n" for row in rows))
    return path


def answering(asked: list[str], answers: dict[str, Reply] | None = None) -> Any:
    """A teacher that says what it was asked, and notes it."""

    def answer(numbered: list[tuple[int, Conversation]]) -> list[Reply]:
        texts = [prompt.messages[-1].content for _, prompt in numbered]
        asked.extend(texts)
        return [(answers or {}).get(text) or Reply(Message("assistant", f"A: {text}"), True) for text in texts]

    return lambda config: answer


def make(prompts: Path, **changes: Any) -> SynthesizeConfig:
    options = {"source": [str(prompts)], "out": prompts.with_name("out.jsonl"), "batch_size": 3}
    return SynthesizeConfig(**{**options, "endpoint": Endpoint(url="http://x", name="y"), **changes})


def test_rows_are_conversations_that_training_reads(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(synthesize, "_server", answering(asked))
    run(make(prompts))
    rows = [json.loads(line) for line in prompts.with_name("out.jsonl").read_text().splitlines()]
    said = [[message.content for message in Conversation.parse(row, "here").messages] for row in rows]
    assert said == [[text, f"A: {text}"] for text in QUESTIONS] and asked == QUESTIONS


def test_what_is_empty_or_was_cut_is_left_out_and_counted(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        QUESTIONS[1]: Reply(Message("assistant", " "), True),
        QUESTIONS[4]: Reply(Message("assistant", "x"), False),
    }
    monkeypatch.setattr(synthesize, "_server", answering([], bad))
    run(make(prompts))
    assert "5 rows; left out: 1 empty answers, 1 answers that were cut" in capsys.readouterr().out


@pytest.mark.parametrize("torn", ["", '{"messages": [{"ro'])
def test_the_same_command_goes_on_where_it_was_cut_off(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    out = prompts.with_name("out.jsonl")
    monkeypatch.setattr(synthesize, "_server", answering([]))
    run(make(prompts))
    whole = out.read_text()
    out.write_text("".join(whole.splitlines(keepends=True)[:4]) + torn)
    asked: list[str] = []
    monkeypatch.setattr(synthesize, "_server", answering(asked))
    run(make(prompts))
    assert out.read_text() == whole and asked == QUESTIONS[4:]


def test_a_model_here_can_be_the_teacher(prompts: Path, teacher: Path) -> None:
    words = ["--source", str(prompts), "--out", str(prompts.with_name("out.jsonl")), "--model", str(teacher)]
    assert main(["synthesize", *words, "--sampling.max_tokens", "4", "--max_prompts", "3"]) == 0


def test_a_prompt_that_does_not_fit_is_left_out_and_counted(
    prompts: Path, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"conversations": [{"role": "user", "content": "long " * 8000}]}
    prompts.write_text(json.dumps(long) + "\n" + prompts.read_text())
    words = ["--source", str(prompts), "--out", str(prompts.with_name("out.jsonl")), "--model", str(teacher)]
    assert main(["synthesize", *words, "--sampling.max_tokens", "2"]) == 0
    assert "1 prompts that do not fit the context" in capsys.readouterr().out


def test_a_later_start_draws_what_an_uninterrupted_one_would_have_drawn(
    prompts: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where answers are left out, and so are asked for again."""
    monkeypatch.setattr(synthesize, "_why_left_out", lambda reply: "" if ord(reply.message.content[0]) % 2 else "even")
    options = {"endpoint": None, "model": teacher, "sampling": Sampling(temperature=1.0, top_p=1.0, max_tokens=9)}
    run(make(prompts, **options))
    out = prompts.with_name("out.jsonl")
    whole = out.read_text().splitlines(keepends=True)
    assert 2 <= len(whole) < len(QUESTIONS)
    out.write_text(whole[0])
    run(make(prompts, **options))
    assert out.read_text().splitlines(keepends=True) == whole


def test_there_is_one_teacher(prompts: Path) -> None:
    for changes in ({"endpoint": None}, {"model": Path("x")}):
        with pytest.raises(ConfigError, match="expected one teacher"):
            run(make(prompts, **changes))


def test_a_file_of_something_else_is_not_added_to(prompts: Path) -> None:
    prompts.with_name("out.jsonl").write_text("my notes\n")
    with pytest.raises(DataError, match="was not written by `minimind synthesize`"):
        run(make(prompts))
    assert prompts.with_name("out.jsonl").read_text() == "my notes\n"
