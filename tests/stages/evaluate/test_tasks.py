"""Each task prints a table, keeps its figure with its items, and names a row that it cannot use."""

from pathlib import Path

import pytest
from tests.tiny import write_rows

from minimind.errors import DataError
from minimind.stages.evaluate.evaluation import Evaluation
from minimind.stages.evaluate.tasks import ask_choices, ask_questions, compare_pairs
from minimind.storage.checkpoint import load_model

PAIRS = [{"good": "what is one?", "bad": "is what one?", "field": f} for f in ("syntax", "semantics")]
CHOICES = [{"question": "what is one plus two?", "choices": ["three", "nine"], "answer": "A"} for _ in range(3)]
QUESTION = {"messages": [{"role": "user", "content": "what is one?"}], "answer": "no such answer", "kind": "sum"}


def test_every_task_has_its_table_and_its_figure(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = load_model(tiny)
    found = Evaluation()
    compare_pairs(found, model, tokenizer, [str(write_rows(tmp_path / "p.jsonl", PAIRS))])
    ask_choices(found, model, tokenizer, [str(write_rows(tmp_path / "c.jsonl", CHOICES))])
    ask_questions(found, model, tokenizer, [str(write_rows(tmp_path / "q.jsonl", [QUESTION]))])
    out = capsys.readouterr().out
    assert "chance 50%" in out and "chance 50.0%" in out and "no such answer" in out
    assert len(found.measured) == 6 and set(found.measured) == set(found.figures)
    assert found.measured["exact_answers"].amounts == [0] and len(found.measured["minimal_pairs"].amounts) == 2


def test_a_row_of_another_kind_is_named(tiny: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(tiny)
    path = write_rows(tmp_path / "c.jsonl", [*PAIRS])
    with pytest.raises(DataError, match=r"c\.jsonl:1: question is None"):
        ask_choices(Evaluation(), model, tokenizer, [str(path)])
