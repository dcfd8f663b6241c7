"""Evaluation prints and keeps what it measured, and refuses to measure nothing."""

import json
from pathlib import Path

import pytest
import torch

from minimind.checkpoint import save_checkpoint
from minimind.config import load
from minimind.errors import ConfigError
from minimind.model import ModelConfig, Transformer
from minimind.stages.evaluate import EvaluateConfig, run
from minimind.tokenizer import Tokenizer

TEXTS = [f"The number {n} comes after {n - 1}." for n in range(50)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=32,
    )
    save_checkpoint(tmp_path / "model", Transformer(shape), Tokenizer.train(TEXTS, 300))
    return tmp_path / "model"


def test_figures_are_written_where_the_report_looks(model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    question = {"messages": [{"role": "user", "content": "Hello?"}], "answer": "No.", "kind": "greeting"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    options = {"text": str(tmp_path / "texts.jsonl"), "questions": str(tmp_path / "questions.jsonl")}
    run(load(EvaluateConfig, None, options | {"model": str(model), "out": str(tmp_path / "evaluation.json")}))
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["figures"]["bits_per_byte"] > 1 and found["figures"]["exact_answers"] == 0
    assert [table["columns"][0] for table in found["tables"]][:2] == ["model", "kind"]


def test_nothing_to_measure_is_an_error_that_says_what_to_give(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"--text.*--questions"):
        run(load(EvaluateConfig, None, {"model": str(model)}))
