"""Tools answer with JSON whatever a model asks, and let nothing out."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.tools.builtin import TOOLS, run_tool
from minimind.tools.tool import Tool


def answer(name: str, **arguments: Any) -> dict[str, Any]:
    return json.loads(run_tool(name, arguments))


@given(st.text(max_size=10) | st.sampled_from([*TOOLS]), st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_any_arguments_get_an_answer(name: str, value: Any) -> None:
    for arguments in (value, {"expression": value}, {"text": value}, {"timezone_name": value}):
        assert list(json.loads(run_tool(name, arguments))) in (["result"], ["error"])


def test_wrong_calls_are_explained() -> None:
    assert answer("fly")["error"].startswith("there is no tool 'fly'; there are calculate_math")
    assert answer("calculate_math")["error"] == "calculate_math takes exactly these arguments: expression"
    assert answer("calculate_math", expression=5)["error"].startswith("expression must be text")
    assert answer("convert_unit", value=True, from_unit="m", to_unit="km")["error"] == "value must be a finite number"
    assert answer("calculate_math", expression="1/0")["error"] == "division by zero"


@pytest.mark.parametrize(
    ("value", "from_unit", "to_unit", "expected"),
    [(100, "C", "F", 212), (32, "F", "C", 0), (0, "C", "K", 273.15), (1, "mi", "km", 1.609344), (2, "week", "h", 336)],
)
def test_units_are_converted_exactly(value: float, from_unit: str, to_unit: str, expected: float) -> None:
    assert answer("convert_unit", value=value, from_unit=from_unit, to_unit=to_unit) == {"result": expected}


def test_units_of_different_kinds_are_not_converted() -> None:
    for pair in (("km", "kg"), ("C", "m"), ("parsec", "m")):
        assert "cannot convert" in answer("convert_unit", value=1, from_unit=pair[0], to_unit=pair[1])["error"]
    for value in (float("nan"), float("inf"), 10**400):
        assert answer("convert_unit", value=value, from_unit="m", to_unit="km")["error"]


def test_the_clock_knows_time_zones_and_reads_no_other_files() -> None:
    now = datetime.fromisoformat(answer("get_current_time", timezone_name="UTC")["result"])

    assert now.utcoffset() == timedelta(0)
    for name in ("../../etc/passwd", "/etc/passwd", "", "a\0b", "x" * 5000, "Asia"):
        assert "no time zone" in answer("get_current_time", timezone_name=name)["error"]


def test_text_is_counted() -> None:
    assert answer("count_text", text="你好 <|im_end|>\nx") == {"result": {"characters": 15, "words": 3, "lines": 2}}


def test_a_fact_is_looked_up() -> None:
    assert answer("look_up", topic="France") == {"result": "France (法国): capital Paris (巴黎), continent Europe"}
    assert "nothing is known" in answer("look_up", topic="Atlantis")["error"]


def test_tools_of_ones_own_are_called_instead_of_the_built_in_ones() -> None:
    mine = {"double": Tool("double", "Twice a number", {"value": {"type": "number"}}, lambda value: value * 2)}

    assert run_tool("double", {"value": 4}, mine) == '{"result": 8}'
    assert "there is no tool 'calculate_math'; there are double" in run_tool("calculate_math", {}, mine)
    assert "there are none" in run_tool("calculate_math", {}, {})


def test_no_built_in_tool_runs_programs() -> None:
    assert set(TOOLS) == {"calculate_math", "get_current_time", "convert_unit", "look_up", "count_text"}
