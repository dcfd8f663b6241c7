"""Built-in tools: a schema that a model is shown, and the function behind it.

Arguments come from a model, so they are hostile until checked. Nothing here evaluates code, opens a file or a
connection. A failure is a result too: the model reads `{"error": ...}` and can try again. Control tokens spelled in a
result are harmless, because `text/conversation.py` encodes results as ordinary text.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from minimind.tools.arithmetic import bounded, calculate, plain_number
from minimind.tools.facts import look_up
from minimind.tools.tool import Tool

__all__ = ["TOOLS", "run_tool"]

MAX_TEXT = 100_000


def run_tool(name: str, arguments: Mapping[str, Any], tools: Mapping[str, Tool] | None = None) -> str:
    """Call a tool, one of `TOOLS` unless others are given. The answer is always JSON text.

    It is `{"result": ...}` or `{"error": why}`; what else a tool of yours raises comes through.
    """
    try:
        return json.dumps({"result": _call(name, arguments, TOOLS if tools is None else tools)}, ensure_ascii=False)
    except ZeroDivisionError:
        return json.dumps({"error": "division by zero"})
    except OverflowError:
        return json.dumps({"error": "a number is too large"})
    except (ValueError, ArithmeticError) as error:
        return json.dumps({"error": str(error)}, ensure_ascii=False)


def _call(name: str, arguments: Mapping[str, Any], tools: Mapping[str, Tool]) -> Any:
    if name not in tools:
        raise ValueError(f"there is no tool {str(name)[:50]!r}; there are {', '.join(tools) or 'none'}")
    tool = tools[name]
    if not isinstance(arguments, Mapping) or arguments.keys() != tool.parameters.keys():
        raise ValueError(f"{name} takes exactly these arguments: {', '.join(tool.parameters) or 'none'}")
    for key, schema in tool.parameters.items():
        _check(key, arguments[key], schema["type"])
    return tool.function(**arguments)


def _check(key: str, value: Any, kind: str) -> None:
    if kind == "string" and not (isinstance(value, str) and len(value) <= MAX_TEXT):
        raise ValueError(f"{key} must be text of at most {MAX_TEXT} characters")
    # A bool is an int to Python, but not a number to anybody else.
    if kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300):
        raise ValueError(f"{key} must be a finite number")


def _time(timezone_name: str) -> str:
    try:
        zone = UTC if timezone_name == "UTC" else ZoneInfo(timezone_name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{timezone_name[:50]!r} is no time zone; give a name such as Asia/Shanghai or UTC") from error
    return datetime.now(zone).isoformat(timespec="seconds")


# How many of the base unit (metre, gram, second, litre) one unit is, by the units' legal definitions.
_UNITS = {
    "length": {"mm": "0.001", "cm": "0.01", "m": "1", "km": "1000", "in": "0.0254", "ft": "0.3048", "mi": "1609.344"},
    "mass": {"mg": "0.001", "g": "1", "kg": "1000", "t": "1000000", "oz": "28.349523125", "lb": "453.59237"},
    "time": {"s": "1", "min": "60", "h": "3600", "day": "86400", "week": "604800"},
    "volume": {"ml": "0.001", "l": "1", "gal": "3.785411784"},
}
# Kelvin = factor * degrees + offset.
_TEMPERATURES = {"K": ("1", "0"), "C": ("1", "273.15"), "F": ("5/9", "45967/180")}


def _convert(value: float, from_unit: str, to_unit: str) -> int | float:
    exact = bounded(value)
    if {from_unit, to_unit} <= _TEMPERATURES.keys():
        factor, offset = map(Fraction, _TEMPERATURES[from_unit])
        to_factor, to_offset = map(Fraction, _TEMPERATURES[to_unit])
        return plain_number((exact * factor + offset - to_offset) / to_factor)
    for units in _UNITS.values():
        if {from_unit, to_unit} <= units.keys():
            return plain_number(exact * Fraction(units[from_unit]) / Fraction(units[to_unit]))
    known = ", ".join([*_TEMPERATURES, *(unit for units in _UNITS.values() for unit in units)])
    raise ValueError(f"cannot convert {from_unit[:20]!r} to {to_unit[:20]!r}; units are {known}")


def _count(text: str) -> dict[str, int]:
    return {"characters": len(text), "words": len(text.split()), "lines": len(text.splitlines())}


def _string(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "calculate_math",
            "Evaluate a mathematical expression",
            {"expression": _string("for example (18 + 11) * 2")},
            calculate,
        ),
        Tool(
            "get_current_time",
            "Get the current date and time in a time zone",
            {"timezone_name": _string("for example Asia/Shanghai or UTC")},
            _time,
        ),
        Tool(
            "convert_unit",
            "Convert a value from one unit to another",
            {
                "value": {"type": "number", "description": "the value in from_unit"},
                "from_unit": _string("for example km, lb, C"),
                "to_unit": _string("for example mi, kg, F"),
            },
            _convert,
        ),
        Tool(
            "look_up",
            "Look up a country, element, planet or constant",
            {"topic": _string("for example France, 金, Mars or speed of light")},
            look_up,
        ),
        Tool(
            "count_text",
            "Count the characters, words and lines of a text",
            {"text": _string("the text to count")},
            _count,
        ),
    )
}
