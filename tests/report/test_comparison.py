"""Side by side are the settings that differ, the figures of both, and the documents that both were scored on."""

import json
from pathlib import Path

import pytest
from tests.tiny import TOKENIZER, fresh_model, write_rows

from minimind.evals.measured import Measured
from minimind.report.comparison import (
    figures_table,
    is_run,
    parts_by_source,
    samples_table,
    scores_table,
    settings_table,
)
from minimind.storage.checkpoint import save_checkpoint


def make_run(folder: Path, lr: float, loss: float) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"run": str(folder), "train": {"lr": lr, "steps": 5}}))
    (folder / "recipe.toml").write_text(f"[train]\nlr = {lr}\nsteps = 5\n")
    write_rows(folder / "metrics.jsonl", [{"step": s, "loss": loss} for s in range(3)])
    samples = [{"step": s, "prompt": "The", "text": f"The {folder.name} {s}"} for s in range(3)]
    write_rows(folder / "samples.jsonl", samples)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path / "a", 0.01, 3.0), make_run(tmp_path / "b", 0.02, 2.5)]


def test_runs_differ_in_what_was_set_otherwise(runs: list[Path]) -> None:
    assert all(map(is_run, runs))
    assert settings_table(runs, ["a", "b"]).rows == [["train.lr", "0.01", "0.02"]]
    assert ["Loss", "3", "2.5"] in figures_table(runs, ["a", "b"]).rows
    assert samples_table(runs, ["a", "b"]).rows == [["The", "a 2", "b 2"]]


def test_models_differ_in_shape(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", fresh_model(), TOKENIZER)
    save_checkpoint(tmp_path / "b", fresh_model(rope_theta=5e5), TOKENIZER)
    table = settings_table([tmp_path / "a", tmp_path / "b"], ["a", "b"])
    assert table.rows == [["rope_theta", "1000000.0", "500000.0"]] and not is_run(tmp_path / "a")


def test_scores_are_compared_by_source_on_the_same_documents() -> None:
    sources = ["en", "zh", "en", "zh"] * 10
    first = Measured([float(20 + n % 9) for n in range(40)], [10.0] * 40, "x")
    second = Measured([a - (s == "en") for a, s in zip(first.amounts, sources, strict=True)], first.sizes, "x")
    parts = [parts_by_source(measured, sources) for measured in (first, second)]
    assert list(parts[0]) == ["en", "zh", "all"]
    rows = {row[0]: row for row in scores_table(parts, ["a", "b"]).rows}
    assert rows["en"][3] == pytest.approx(-0.1) and rows["en"][-1] == "b is better"
    assert rows["zh"][3] == 0 and rows["zh"][-1] == "within noise"
    assert list(parts_by_source(first, ["one"] * 40)) == ["all"]
