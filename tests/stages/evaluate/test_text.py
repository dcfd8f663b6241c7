"""Held-out text is what was held out, and prepared data without any is an error that says what to do."""

import json
from pathlib import Path

import pytest

from minimind.data.options import PrepareOptions
from minimind.data.prepare import prepare
from minimind.errors import ConfigError, DataError
from minimind.stages.evaluate.evaluation import Evaluation
from minimind.stages.evaluate.text import held_out_rows, score_text
from minimind.storage.checkpoint import load_model

TEXTS = [f"what is {number} plus one?" for number in range(30)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return tmp_path / "a.jsonl"


def test_prepared_text_is_scored_beside_counting(tiny: Path, texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = load_model(tiny)
    prepare([texts], tokenizer, texts.parent / "data", PrepareOptions(valid_fraction=0.3))
    train, valid = held_out_rows([str(texts.parent / "data")], tokenizer, 1000)
    assert train and valid and {row["text"] for row in train + valid} == set(TEXTS)
    found = Evaluation()
    score_text(found, model, tokenizer, [str(texts.parent / "data")], max_documents=9, max_tokens=64)
    assert found.measured["bits_per_byte"].value == found.figures["bits_per_byte"]
    assert "bits_per_byte, token trigram" in found.figures and "lower is better" in capsys.readouterr().out


def test_prepared_text_without_a_held_out_part_is_an_error(tiny: Path, texts: Path) -> None:
    _, tokenizer = load_model(tiny)
    prepare([texts], tokenizer, texts.parent / "data", PrepareOptions(valid_fraction=0))
    with pytest.raises(ConfigError, match="--valid_fraction"):
        held_out_rows([str(texts.parent / "data")], tokenizer, 10)


def test_a_row_without_text_is_named(tiny: Path, texts: Path) -> None:
    texts.write_text(texts.read_text() + '{"conversations": []}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:31: has no text to score"):
        held_out_rows([str(texts)], load_model(tiny)[1], 100)
