"""A teacher's answers become rows to train on; a run that was cut off goes on without asking twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import TOKENIZER, fresh_model, write_rows

from minimind.cli import main
from minimind.errors import ConfigError, DataError, UserError
from minimind.generation.sampling import Sampling
from minimind.remote.endpoint import Endpoint, EndpointBusy
from minimind.stages import synthesize
from minimind.stages.synthesize import WAIT_SECONDS, Reply, SynthesizeConfig, run
from minimind.storage.checkpoint import save_checkpoint
from minimind.text.conversation import Conversation
from minimind.text.messages import Message

QUESTIONS = [f"Question {number}?" for number in range(7)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "model"
    save_checkpoint(folder, fresh_model(), TOKENIZER)
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [[{"role": "user", "content": text}, {"role": "assistant", "content": ""}] for text in QUESTIONS]
    return write_rows(tmp_path / "prompts.jsonl", [{"conversations": row} for row in rows])


def answering(asked: list[str], answers: dict[str, Reply | UserError] | None = None) -> Any:
    """A teacher that says what it was asked, and notes it."""

    def answer(numbered: list[tuple[int, Conversation]]) -> list[Reply | UserError]:
        texts = [prompt.messages[-1].content for _, prompt in numbered]
        asked.extend(texts)
        return [(answers or {}).get(text) or Reply(Message("assistant", f"A: {text}"), True) for text in texts]

    return lambda config: (answer, {"endpoint.url": "http://x"})


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


def test_what_was_answered_before_an_error_is_kept(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {QUESTIONS[4]: UserError("answered 401: no")}
    monkeypatch.setattr(synthesize, "_server", answering([], refused))
    with pytest.raises(UserError, match="answered 401"):
        run(make(prompts))
    rows = prompts.with_name("out.jsonl").read_text().splitlines()
    assert [json.loads(row)["messages"][0]["content"] for row in rows] == [*QUESTIONS[:4], QUESTIONS[5]]
    asked: list[str] = []
    monkeypatch.setattr(synthesize, "_server", answering(asked))
    run(make(prompts))
    assert asked == [QUESTIONS[4], QUESTIONS[6]]


@pytest.mark.parametrize("times", [2, 9])
def test_a_busy_server_is_asked_again_with_patience(prompts: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    waited, calls = list[float](), list[str]()

    def ask(self: Endpoint, messages: Any, *_: object, **__: object) -> Reply:
        calls.append(messages[-1].content)
        if calls.count(QUESTIONS[1]) <= times and calls[-1] == QUESTIONS[1]:
            raise EndpointBusy("answered 429: later")
        return Reply(Message("assistant", "yes"), True)

    monkeypatch.setattr(Endpoint, "answer", ask)
    monkeypatch.setattr(synthesize.time, "sleep", waited.append)
    if times == 2:
        run(make(prompts))
    else:
        with pytest.raises(EndpointBusy, match="429"):
            run(make(prompts))
    assert waited == list(WAIT_SECONDS[:times])
    assert len(prompts.with_name("out.jsonl").read_text().splitlines()) == (7 if times == 2 else 2)


def test_other_settings_and_other_prompts_are_not_mixed(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesize, "_server", answering([]))
    run(make(prompts))
    before = prompts.with_name("out.jsonl").read_text()
    with pytest.raises(DataError, match=r"sampling\.temperature was .* choose another --out"):
        run(make(prompts, sampling=Sampling(temperature=0.123)))
    prompts.write_text(prompts.read_text().replace("Question 3", "Query 3"))
    with pytest.raises(DataError, match=r"prompts\.jsonl:4: has changed since it was answered"):
        run(make(prompts))
    assert prompts.with_name("out.jsonl").read_text() == before


def test_rows_that_are_no_prompts_are_told_and_skipped_where_that_is_allowed(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"text": "no chat"}\n' + prompts.read_text())
    monkeypatch.setattr(synthesize, "_server", answering([]))
    with pytest.raises(DataError, match=r"prompts\.jsonl:1"):
        run(make(prompts))
    run(make(prompts, max_bad_rows=1))
    said = capsys.readouterr()
    assert "left out: " in said.err and "prompts.jsonl:1" in said.err and "7 rows" in said.out


def test_there_is_one_teacher(prompts: Path) -> None:
    for changes in ({"endpoint": None}, {"model": Path("x")}):
        with pytest.raises(ConfigError, match="expected one teacher"):
            run(make(prompts, **changes))


def test_a_file_of_something_else_is_not_added_to(prompts: Path) -> None:
    prompts.with_name("out.jsonl").write_text("my notes\n")
    with pytest.raises(DataError, match="was not written here"):
        run(make(prompts))
    assert prompts.with_name("out.jsonl").read_text() == "my notes\n"
