"""`minimind pretrain` makes a model that continues the text it has seen, dense or mixture."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from minimind.cli import main
from minimind.data.prepare import PrepareOptions, prepare
from minimind.generation.generate import generate
from minimind.storage.checkpoint import load_model
from minimind.storage.run import RunReader
from minimind.text.tokenizer import Tokenizer

SENTENCES = [
    f"the {size} {animal} sat on the {place} and looked at the moon"
    for size in ("big", "small", "old", "red")
    for animal in ("cat", "dog", "fox", "hen")
    for place in ("mat", "log", "hill")
]
TINY = {
    "model.hidden_size": 32,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 4,
    "model.num_key_value_heads": 2,
    "model.head_dim": 8,
    "model.intermediate_size": 64,
    "data.context": 64,
    "train.steps": 40,
    "train.batch_tokens": 512,
    "train.valid_every": 20,
    "train.warmup_steps": 2,
    "train.dtype": "float32",
    "train.device": "cpu",
}
EXPERTS = {"model.num_experts": 4, "model.num_experts_per_tok": 2, "model.moe_intermediate_size": 32}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and prepared text."""
    folder = tmp_path_factory.mktemp("prepared")
    tokenizer = Tokenizer.train(SENTENCES, 320)
    tokenizer.save(folder / "tokenizer")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES))
    prepare([folder / "text.jsonl"], tokenizer, folder / "data", PrepareOptions(valid_fraction=0.15, workers=1))
    return folder


def start(prepared: Path, run: Path, **changes: Any) -> int:
    """`minimind pretrain` with these options; underscores stand for the dots of their names."""
    options = {"run": run, "tokenizer": prepared / "tokenizer", "data.source": prepared / "data", **TINY, **changes}
    return main(["pretrain", *(word for name, value in options.items() for word in (f"--{name}", str(value)))])


@pytest.mark.parametrize("changes", [{}, EXPERTS])
def test_a_model_learns_to_continue_its_text(prepared: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    assert start(prepared, tmp_path / "run", **changes) == 0
    rows = RunReader(tmp_path / "run").metrics()
    assert rows[0]["valid_loss"] == pytest.approx(math.log(320), abs=0.1)
    assert rows[-1]["valid_loss"] < 1.0 and rows[-1]["bits_per_byte"] < 0.5
    assert ("router_balance" in rows[-1]) == bool(changes)
    model, tokenizer = load_model(tmp_path / "run")
    (text,) = generate(model, tokenizer, ["the old fox sat on the"], max_tokens=20, temperature=0.0)
    assert text.endswith("and looked at the moon")


def test_samples_are_kept_beside_the_curves(prepared: Path, tmp_path: Path) -> None:
    start(prepared, tmp_path / "run", **{"train.steps": 4, "train.valid_every": 2, "sample_prompts": "the red"})
    samples = RunReader(tmp_path / "run").samples()
    assert [(row["step"], row["prompt"]) for row in samples] == [(2, "the red"), (4, "the red")]


def test_a_mistake_is_one_line_and_leaves_no_run_behind(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(prepared, tmp_path / "run", **{"model.num_key_value_heads": 3}) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "num_attention_heads is 4; expected a multiple of num_key_value_heads (3)" in line
    assert not (tmp_path / "run").exists()


def test_a_model_goes_on_from_another_with_its_shape_and_tokenizer(prepared: Path, tmp_path: Path) -> None:
    start(prepared, tmp_path / "first", **{"train.steps": 20})
    options = {"run": tmp_path / "second", "base": tmp_path / "first", "data.source": prepared / "data"}
    options |= {name: value for name, value in TINY.items() if not name.startswith("model.")}
    assert main(["pretrain", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]) == 0
    first, second = RunReader(tmp_path / "first").metrics(), RunReader(tmp_path / "second").metrics()
    assert second[0]["valid_loss"] == pytest.approx(first[-1]["valid_loss"], rel=1e-5)
    assert second[-1]["valid_loss"] < first[-1]["valid_loss"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "runs/other"}, "base brings its own shape and tokenizer"),
        ({"tokenizer": "none"}, "tokenizer is missing"),
        ({**EXPERTS, "model.qk_norm": "false"}, "qk_norm"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_written(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    assert start(prepared, tmp_path / "run", **changes) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_finite_are_refused(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(prepared, tmp_path / "run", **{"train.steps": "none", "train.epochs": "inf"}) == 2
    assert "--train.epochs: Input should be a finite number" in capsys.readouterr().err
