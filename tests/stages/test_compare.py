"""`minimind compare` prints what differs and who is better, and draws a page of two runs."""

import json
from pathlib import Path

import pytest
import torch
from tests.report.test_comparison import make_run

from minimind.cli import main
from minimind.storage.checkpoint import load_model, save_checkpoint


@pytest.fixture
def other(tiny: Path, tmp_path: Path) -> Path:
    model, tokenizer = load_model(tiny)
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    save_checkpoint(tmp_path / "other", model, tokenizer)
    return tmp_path / "other"


def test_models_are_scored_and_continue_prompts(
    tiny: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": f"what is {n} plus one?", "source": "sums" if n % 2 else "other"} for n in range(12)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--text", str(tmp_path / "texts.jsonl"), "--prompts", "what is", "--sample_tokens", "3"]
    assert main(["compare", str(tiny), str(other), *words]) == 0
    out = capsys.readouterr().out
    assert "Settings that differ: none" in out and "model is better" in out and "sums" in out
    assert "What they write" in out


def test_two_runs_are_drawn_on_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / "a", 0.01, 3.0), make_run(tmp_path / "b", 0.02, 2.5)]
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    assert "train.lr" in (out := capsys.readouterr().out) and "What they wrote last" in out
    assert "train.lr" in (tmp_path / "page.html").read_text()


def test_a_model_has_no_curves_to_draw(tiny: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tiny), str(other), "--out", "page.html"]) == 2
    assert "is no run and has no curves" in capsys.readouterr().err
    assert main(["compare", str(tiny)]) == 2
    assert "models" in capsys.readouterr().err
