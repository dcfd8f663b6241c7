"""What was measured is written so that people, the report and a later comparison can read it."""

import json
from pathlib import Path

import pytest

from minimind.evals.measured import Measured
from minimind.report.baseline import read_baseline
from minimind.report.evaluation import read_evaluation
from minimind.stages.evaluate.evaluation import Evaluation, percent


def test_the_file_is_json_that_the_report_and_a_baseline_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Evaluation()
    share = Measured.share([True, False, True, True], "x")
    found.add("minimal_pairs", share)
    found.show("Pairs", ["field", "right"], [["all", percent(share)]])
    found.write(tmp_path / "evaluation.json")
    assert "75.0% ± 25.0%" in capsys.readouterr().out
    assert json.loads((tmp_path / "evaluation.json").read_text())["figures"] == {"minimal_pairs": 0.75}
    found = read_evaluation(tmp_path / "evaluation.json")
    tables, figures = found.tables, found.figures
    assert tables[0].title == "Pairs" and figures == [("minimal_pairs", "0.75 ± 0.25")]
    assert read_baseline(tmp_path / "evaluation.json") == ({"minimal_pairs": 0.75}, {"minimal_pairs": share})


def test_a_single_item_has_no_standard_error() -> None:
    assert percent(Measured.share([True], "x")) == "100.0%"
