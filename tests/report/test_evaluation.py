"""evaluation.json becomes aligned tables, or an error that says what it should look like."""

import json
from pathlib import Path
from typing import Any

import pytest

from minimind.errors import RunError
from minimind.evals.measured import Measured
from minimind.report.evaluation import FEW_ITEMS, EvaluationSummary, read_evaluation


def test_columns_of_numbers_are_aligned_and_gaps_are_dashes(tmp_path: Path) -> None:
    table = {
        "title": "Bits per byte",
        "columns": ["model", "all", "size"],
        "rows": [["ours", 1.4312, 5242880], ["xz", 2.4]],
    }
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"tables": [table], "figures": {"match": 0.97123, "by": {"set": 3}}}))
    evaluation = read_evaluation(path)
    (found,) = evaluation.tables
    assert found.rows == [["ours", "1.431", "5,242,880"], ["xz", "2.400", "–"]]
    assert found.numeric == {1, 2}
    assert evaluation.figures == [("match", "0.9712"), ("by.set", "3")]


def test_a_run_that_was_not_evaluated_has_no_tables(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path / "evaluation.json") == EvaluationSummary()


def test_a_figure_that_a_table_tells_is_told_again_only_for_its_error(tmp_path: Path) -> None:
    table = {"title": "Bits per byte", "columns": ["model", "bits"], "rows": [["this model", 1.5], ["unigram", 2.898]]}
    bits = Measured([12.0, 18.0, 15.0], [10.0, 10.0, 10.0], "x")
    figures = {"bits_per_byte": bits.value, "bits_per_byte, unigram": 2.8976}
    found = {"tables": [table], "figures": figures, "measured": {"bits_per_byte": bits.to_json()}}
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    evaluation = read_evaluation(tmp_path / "evaluation.json")
    assert evaluation.figures == [("bits_per_byte", "1.5 ± 0.17")]
    assert evaluation.too_few == ["Bits per byte was measured on 3 items: too few to compare with; hold out more."]
    found["measured"]["bits_per_byte"] = Measured([1.0] * FEW_ITEMS, [1.0] * FEW_ITEMS, "x").to_json()
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    assert read_evaluation(tmp_path / "evaluation.json").too_few == []


@pytest.mark.parametrize("value", [[], 3, {"tables": 1}, {"tables": [{}]}, {"tables": [[]]}, {"figures": [1]}])
def test_another_shape_is_refused_with_the_one_expected(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(value))
    if value == []:
        path.write_text("[" * 100_000)
    with pytest.raises(RunError, match=r"evaluation.json: expected \{.*; evaluate the model again$"):
        read_evaluation(path)
