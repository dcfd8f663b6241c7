"""A baseline tells what changed, in which direction, and whether it is more than noise."""

import json
from pathlib import Path

import pytest

from minimind.errors import RunError
from minimind.evals.measured import Measured
from minimind.report.baseline import comparison_table, read_baseline

OLD = Measured([float(10 + number % 7) for number in range(60)], [5.0] * 60, "same")
LESS = Measured([amount - 0.5 for amount in OLD.amounts], [5.0] * 60, "same")


def verdict(name: str, new: Measured, old: Measured | None) -> str:
    known = {name: old} if old else {}
    table = comparison_table("t", {name: new.value}, {name: new}, {name: OLD.value}, known)
    assert table.rows[0][3] == pytest.approx(new.value - OLD.value)
    return table.rows[0][-1]


def test_fewer_bits_are_better_and_fewer_right_answers_are_worse() -> None:
    assert verdict("bits_per_byte", LESS, OLD) == "better"
    assert verdict("false_calls", LESS, OLD) == "better"
    assert verdict("minimal_pairs", LESS, OLD) == "worse"
    assert verdict("minimal_pairs", OLD, OLD) == "within noise"


def test_other_items_are_said_to_be_others_and_missing_ones_cannot_tell() -> None:
    assert verdict("x", Measured(LESS.amounts, LESS.sizes, "b"), OLD) == "within noise (on other items)"
    assert verdict("x", LESS, None).startswith("cannot tell")


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(RunError, match="has a and this evaluation b; nothing to compare"):
        comparison_table("t", {"b": 1.0}, {"b": LESS}, {"a": 1.0}, {})


def test_a_file_that_is_no_evaluation_is_named(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps({"figures": {"x": 0.5}, "measured": {"x": LESS.to_json()}}))
    assert read_baseline(path) == ({"x": 0.5}, {"x": Measured.from_json(LESS.to_json())})
    for content in ("[]", "{}", '{"figures": {"x": "y"}}', '{"figures": {}, "measured": {"x": {}}}', "{"):
        path.write_text(content)
        with pytest.raises(RunError, match=r"e\.json: is no evaluation"):
            read_baseline(path)
    with pytest.raises(RunError, match="cannot be read"):
        read_baseline(tmp_path / "none.json")
