"""`minimind distill`: a student comes closer to its teacher, asked or kept, and a stopped run goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.stages.tiny_runs import outcome, went_on
from tests.tiny import write_rows

from minimind.model import ModelConfig, Transformer
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.storage.run import RunReader
from minimind.text.tokenizer import Tokenizer

Command = Callable[..., int]
STUDENT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": f"what is {a} plus {b}? the answer is {a + b}."} for a in range(12) for b in range(12)]
    return write_rows(tmp_path_factory.mktemp("texts") / "texts.jsonl", rows)


@pytest.fixture(scope="module")
def teacher(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with opinions: large random weights."""
    model, tokenizer = load_model(tiny)
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.3)
    folder = tmp_path_factory.mktemp("teacher") / "model"
    save_checkpoint(folder, model, tokenizer)
    return folder


def options(teacher: Path, texts: Path, run: Path, **changes: Any) -> dict[str, Any]:
    return {
        "run": run,
        "teacher.model": teacher,
        "teacher.alpha": 1.0,
        "teacher.temperature": 1.0,
        **{f"model.{name}": value for name, value in STUDENT.items()},
        "model.head_dim": 8,
        "model.intermediate_size": 24,
        "data.source": texts,
        "data.context": 64,
        "train.batch_tokens": 256,
        "train.steps": 12,
        "train.valid_every": 6,
        "train.log_every": 1,
        "train.checkpoint_every": 1,
        "train.keep_checkpoints": 99,
        "sample_prompts": "what",
        **changes,
    }


@pytest.fixture(scope="module", params=[0, 316, 20])
def run(request: pytest.FixtureRequest, command: Command, teacher: Path, texts: Path, tmp_path_factory: Any) -> dict:
    folder = tmp_path_factory.mktemp("distill") / "run"
    chosen = options(teacher, texts, folder, **{"teacher.num_kept": request.param})
    assert command("distill", chosen) == 0
    return chosen


def test_the_student_comes_closer_to_its_teacher(run: dict) -> None:
    rows = RunReader(run["run"]).metrics()
    assert rows[-1]["kl"] < 0.9 * rows[1]["kl"]
    assert {"valid_loss", "bits_per_byte"} <= rows[0].keys()


def test_keeping_the_whole_vocabulary_is_asking(command: Command, teacher: Path, texts: Path, tmp_path: Path) -> None:
    losses = []
    for kept in (0, 316):
        chosen = options(teacher, texts, tmp_path / str(kept), **{"teacher.num_kept": kept, "train.steps": 3})
        assert command("distill", chosen) == 0
        losses.append([row["loss"] for row in RunReader(chosen["run"]).metrics() if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_stopped_run_goes_on_to_the_same_bits(run: dict, command: Command) -> None:
    assert outcome(went_on(command, "distill", run, 5)) == outcome(run["run"])


def test_a_teacher_with_another_vocabulary_is_refused(
    command: Command, tiny: Path, teacher: Path, texts: Path, tmp_path: Path, capsys: Any
) -> None:
    tokenizer = Tokenizer.train(["quite other words"], 300)
    model = Transformer(ModelConfig(vocab_size=300, head_dim=8, intermediate_size=24, **STUDENT))
    save_checkpoint(tmp_path / "student", model, tokenizer)
    chosen = options(teacher, texts, tmp_path / "run", base=tmp_path / "student")
    chosen = {name: value for name, value in chosen.items() if not name.startswith("model.")}
    assert command("distill", chosen) == 2
    error = capsys.readouterr().err
    assert "the teacher's tokenizer is" in error and "316 ids" in error and "300 ids" in error


def test_what_was_kept_of_another_teacher_is_refused(
    command: Command, tiny: Path, teacher: Path, texts: Path, tmp_path: Path, capsys: Any
) -> None:
    chosen = options(teacher, texts, tmp_path / "run", **{"teacher.num_kept": 4, "train.steps": 1})
    assert command("distill", chosen) == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "run" / "teacher").rename(tmp_path / "other" / "teacher")
    chosen = {**chosen, "run": tmp_path / "other", "teacher.model": tiny}
    assert command("distill", chosen) == 2
    assert "kept for teacher" in capsys.readouterr().err
