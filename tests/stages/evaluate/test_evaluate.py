"""Evaluation prints and keeps what it measured, and refuses to measure nothing."""

import json
from pathlib import Path

import pytest
from tests.tiny import TOKENIZER, fresh_model, write_rows

from minimind.config import load
from minimind.errors import ConfigError, RunError
from minimind.lora import LoraConfig, add_lora, lora_weights
from minimind.stages.evaluate.evaluate import EvaluateConfig, run
from minimind.storage.adapters import fingerprint, save_adapter
from minimind.storage.checkpoint import load_model, save_checkpoint

TEXTS = [f"The number {n} comes after {n - 1}." for n in range(50)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model", fresh_model(), TOKENIZER)
    return tmp_path / "model"


def test_figures_are_written_where_the_report_looks(model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    question = {"messages": [{"role": "user", "content": "Hello?"}], "answer": "No.", "kind": "greeting"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    options = {"text": str(tmp_path / "texts.jsonl"), "questions": str(tmp_path / "questions.jsonl")}
    run(load(EvaluateConfig, None, options | {"model": str(model), "out": str(tmp_path / "evaluation.json")}))
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["figures"]["bits_per_byte"] > 1 and found["figures"]["exact_answers"] == 0
    assert [table["columns"][0] for table in found["tables"]][:2] == ["model", "kind"]


def test_a_place_that_cannot_be_written_is_refused_before_measuring_and_a_new_folder_is_made(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "The number"}\n')
    (tmp_path / "file").write_text("")
    options = {"model": str(model), "text": str(tmp_path / "texts.jsonl")}
    for out in (tmp_path, tmp_path / "file" / "x.json"):
        with pytest.raises(RunError, match=r"cannot be written.*choose another --out"):
            run(load(EvaluateConfig, None, options | {"model": str(tmp_path / "gone"), "out": str(out)}))
    run(load(EvaluateConfig, None, options | {"out": str(tmp_path / "new" / "x.json")}))
    assert "bits_per_byte" in (tmp_path / "new" / "x.json").read_text()


def test_nothing_to_measure_is_an_error_that_says_what_to_give(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"--text.*--questions"):
        run(load(EvaluateConfig, None, {"model": str(model)}))


def test_an_adapter_is_measured_and_its_figures_lie_in_its_run(model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    adapted, tokenizer = load_model(model)
    facts = {"base_fingerprint": fingerprint(adapted), "tokenizer_fingerprint": tokenizer.fingerprint}
    add_lora(adapted, LoraConfig(2), seed=0)
    for weight in lora_weights(adapted).values():
        weight.normal_(0, 0.5)
    checkpoints = tmp_path / "lora" / "checkpoints"
    save_adapter(checkpoints / "step-000001", adapted, base=str(model), config=LoraConfig(2), **facts)
    (checkpoints / "latest").symlink_to("step-000001")
    options = {"text": str(tmp_path / "texts.jsonl"), "model": str(model)}
    run(load(EvaluateConfig, None, options | {"adapter": str(tmp_path / "lora")}))
    run(load(EvaluateConfig, None, options | {"out": str(tmp_path / "base.json")}))
    places = (tmp_path / "lora" / "evaluation.json", tmp_path / "base.json")
    adapted_figure, base_figure = (json.loads(path.read_text())["figures"]["bits_per_byte"] for path in places)
    assert adapted_figure != base_figure and not (model / "evaluation.json").exists()


def test_a_baseline_tells_what_changed_beyond_noise(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    options = {"model": str(model), "text": str(tmp_path / "texts.jsonl"), "out": str(tmp_path / "e.json")}
    run(load(EvaluateConfig, None, options))
    # The baseline may be the file that is written: it is read first.
    run(load(EvaluateConfig, None, options | {"baseline": str(tmp_path / "e.json")}))
    assert "within noise" in capsys.readouterr().out
    assert json.loads((tmp_path / "e.json").read_text())["tables"][-1]["rows"][0][3] == 0
    with pytest.raises(RunError, match=r"nowhere\.json: cannot be read"):
        run(load(EvaluateConfig, None, options | {"baseline": str(tmp_path / "nowhere.json")}))
