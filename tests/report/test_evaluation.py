"""evaluation.json becomes aligned tables, or an error that says what it should look like."""

import json
from pathlib import Path
from typing import Any

import pytest

from minimind.errors import RunError
from minimind.report.evaluation import read_evaluation


def test_columns_of_numbers_are_aligned_and_gaps_are_dashes(tmp_path: Path) -> None:
    table = {
        "title": "Bits per byte",
        "columns": ["model", "all", "size"],
        "rows": [["ours", 1.4312, 5242880], ["xz", 2.4]],
    }
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"tables": [table], "figures": {"match": 0.97123, "by": {"set": 3}}}))
    (found,), figures = read_evaluation(path)
    assert found.rows == [["ours", "1.431", "5,242,880"], ["xz", "2.400", "–"]]
    assert found.numeric == {1, 2}
    assert figures == [("match", "0.9712"), ("by.set", "3")]


def test_a_run_that_was_not_evaluated_has_no_tables(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path / "evaluation.json") == ([], [])


@pytest.mark.parametrize("value", [[], 3, {"tables": 1}, {"tables": [{}]}, {"tables": [[]]}, {"figures": [1]}])
def test_another_shape_is_refused_with_the_one_expected(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(value))
    if value == []:
        path.write_text("[" * 100_000)
    with pytest.raises(RunError, match=r"evaluation.json: expected \{.*; evaluate the model again$"):
        read_evaluation(path)
