"""`minimind sft` teaches a model to answer, and what others say in the conversation is not learnt."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.cli import main
from minimind.data.prepare import PrepareOptions, prepare
from minimind.generation.completions import complete
from minimind.generation.sampling import Sampling
from minimind.model import ModelConfig, Transformer
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.storage.run import RunReader
from minimind.text.conversation import Message, render_prompt
from minimind.text.tokenizer import Tokenizer

ANSWERS = {"who are you?": "I am a small model.", "what do cats eat?": "Cats eat fish.", "is the sun hot?": "Very hot."}
SETTINGS = {
    "data.context": 96,
    "train.steps": 60,
    "train.batch_tokens": 288,
    "train.valid_every": 60,
    "train.warmup_steps": 2,
    "train.dtype": "float32",
    "train.device": "cpu",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fresh model and prepared conversations."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer.train([f"{question} {answer} " * 9 for question, answer in ANSWERS.items()], 340)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=340, head_dim=8, intermediate_size=64, **shape))
    save_checkpoint(folder / "model", model, tokenizer)
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in ANSWERS.items()
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare([folder / "chats.jsonl"], tokenizer, folder / "data", PrepareOptions(valid_fraction=0, workers=1))
    return folder


def start(base: Path, run: Path, **changes: Any) -> int:
    options = {"run": run, "model": base / "model", "data.source": base / "data", **SETTINGS, **changes}
    return main(["sft", *(word for name, value in options.items() for word in (f"--{name}", str(value)))])


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft") / "run"
    assert start(base, folder, sample_prompts="who are you?") == 0
    return folder


def test_the_model_gives_the_answers_it_was_taught_and_stops(run: Path) -> None:
    model, tokenizer = load_model(run)
    prompts = [render_prompt([Message("user", question)], (), tokenizer) for question in ANSWERS]
    answers = complete(model, tokenizer, prompts, Sampling(temperature=0.0, max_tokens=64))
    assert [(answer.text.strip(), answer.finish_reason) for answer in answers] == [
        (answer, "stop") for answer in ANSWERS.values()
    ]


def test_samples_are_answers_to_questions(run: Path) -> None:
    (sample,) = RunReader(run).samples()
    assert (sample["step"], sample["prompt"], sample["text"].strip()) == (60, "who are you?", "I am a small model.")


def test_questions_are_not_learnt(base: Path, run: Path) -> None:
    """The trained model finds answers certain, and the questions, which had no weight, no likelier than at random."""
    model, tokenizer = load_model(run)
    for question, answer in ANSWERS.items():
        prompt = render_prompt([Message("user", question)], (), tokenizer)
        spoken = torch.tensor([*prompt, *tokenizer.encode(answer), tokenizer.eos_id])
        losses = -model(spoken[None, :-1])[0].log_softmax(-1).gather(1, spoken[1:, None])[:, 0]
        start = prompt.index(tokenizer.encode(question)[0])
        assert losses[len(prompt) - 1 :].mean() < 0.2
        assert losses[start - 1 : start + 3].mean() > 4.0


def test_the_model_to_start_from_is_not_changed(base: Path, run: Path) -> None:
    fresh = load_model(base / "model")[0].state_dict()
    trained = load_model(run)[0].state_dict()
    assert not torch.equal(fresh["layers.0.mlp.down_proj.weight"], trained["layers.0.mlp.down_proj.weight"])
    assert not fresh["layers.0.mlp.down_proj.weight"].any(), "as it was saved"


def test_a_model_that_is_not_there_is_named(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(base, tmp_path / "run", model=tmp_path / "gone") == 2
    assert "gone: not there; expected a model folder or a run's folder" in capsys.readouterr().err


def test_a_run_is_not_resumed_from_another_model_or_other_data_of_the_same_name(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained anew under the same path, a base model would otherwise leave a stale fine-tune behind, in silence."""
    own = tmp_path / "own"
    shutil.copytree(base, own)
    assert start(own, tmp_path / "run", **{"train.steps": 2}) == 0
    assert start(own, tmp_path / "run", **{"train.steps": 2}) == 0, "nothing has changed yet"

    model, tokenizer = load_model(own / "model")
    with torch.no_grad():
        model.norm.weight[0] += 1
    save_checkpoint(own / "model", model, tokenizer)
    assert start(own, tmp_path / "run", **{"train.steps": 2}) == 2
    assert f"{tmp_path / 'run'}: model is no longer what this run began with" in capsys.readouterr().err

    shutil.rmtree(own)
    shutil.copytree(base, own)
    rows = (own / "chats.jsonl").read_text().splitlines()[:2]
    (own / "chats.jsonl").write_text("\n".join(rows) + "\n")
    prepare([own / "chats.jsonl"], tokenizer, own / "data", PrepareOptions(valid_fraction=0, workers=1))
    assert start(own, tmp_path / "run", **{"train.steps": 2}) == 2
    assert f"{tmp_path / 'run'}: data.source is no longer what this run began with" in capsys.readouterr().err


def test_what_was_not_given_stands_in_the_run_which_goes_on_with_it(base: Path, tmp_path: Path) -> None:
    unset = {"train.steps": 2, "train.batch_tokens": "none", "train.warmup_steps": "none"}
    assert start(base, tmp_path / "run", **unset) == 0
    train = RunReader(tmp_path / "run").config()["train"]
    assert (train["batch_tokens"], train["warmup_steps"]) == (1024, 0)
    assert start(base, tmp_path / "run", **unset) == 0
    assert start(base, tmp_path / "run", **{**unset, "train.batch_tokens": 2048}) == 2


@pytest.mark.parametrize("long", ["split", "drop", "truncate_prompt"])
def test_prompts_that_fill_the_context_never_end_a_run_and_what_was_done_is_said(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], long: str
) -> None:
    rows = [("who are you? " * (1 if number % 3 else 90), "I am a small model.") for number in range(30)]
    lines = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in rows]
    (tmp_path / "mix.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    changes = {"data.long": long, "data.source": tmp_path / "mix.jsonl", "train.batch_tokens": 96, "train.steps": 40}
    assert start(base, tmp_path / "run", **changes) == 0
    said = capsys.readouterr().err
    assert f"data.long {long}: " in said and "longer than the context" in said


def test_only_the_last_answer_is_learnt_when_asked_and_prepared_data_must_have_been_asked(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = [{"role": "user", "content": "who are you?"}, {"role": "assistant", "content": "Very hot."}]
    (tmp_path / "two.jsonl").write_text(json.dumps({"messages": turn + turn}) + "\n")
    changes = {"data.learn": "last", "data.source": tmp_path / "two.jsonl", "train.steps": 1}
    assert start(base, tmp_path / "run", **changes) == 0
    assert "not learnt: 1 answers before the last" in capsys.readouterr().err
    assert start(base, tmp_path / "other", **{"data.learn": "last"}) == 2
    assert "is prepared already, without it; give --learn to `minimind prepare`" in capsys.readouterr().err
