"""Built-in tools: a schema that a model is shown, and the function behind it.

Arguments come from a model, so they are hostile until checked. The calculator walks a whitelisted syntax tree and
bounds every number before it computes it; nothing here evaluates code, opens a file or a connection. A failure is a
result too: the model reads `{"error": ...}` and can try again. Control tokens spelled in a result are harmless,
because `conversation.py` encodes results as ordinary text.
"""

import ast
import json
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from minimind.facts import look_up

__all__ = ["TOOLS", "Tool", "calculate", "offered_names", "run_tool"]

# "3apples" is no arithmetic, and Python's parser would tell so to the terminal as well.
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<expression>")

MAX_EXPRESSION = 500
# A sum of 250 terms is nested that deep, and Python's own stack still has room.
MAX_DEPTH = 250
# Numerators and denominators stay below 2**1024, about 308 digits, the range of a float.
MAX_BITS = 1024
MAX_TEXT = 100_000


@dataclass(frozen=True)
class Tool:
    """A function with JSON arguments; `parameters` maps each argument's name to its JSON schema, all required."""

    name: str
    description: str
    parameters: Mapping[str, Mapping[str, Any]]
    function: Callable[..., Any]

    @property
    def schema(self) -> dict[str, Any]:
        """What the model is shown: a tool in OpenAI's form."""
        parameters = {"type": "object", "properties": dict(self.parameters), "required": list(self.parameters)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


def offered_names(schemas: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of tools in OpenAI's form or as the bare function; nothing for a schema without a name."""
    functions = (schema.get("function", schema) for schema in schemas)
    return [str(function["name"]) for function in functions if isinstance(function, Mapping) and "name" in function]


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


def calculate(expression: str) -> int | float:
    """The value of an arithmetic expression, computed exactly and rounded to 12 digits at the end.

    Knows + - * / // % ** ^ (both powers), parentheses, pi, e and the functions in `_FUNCTIONS`. Anything else, and
    any number that would pass `MAX_BITS`, is a ValueError or an ArithmeticError.
    """
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"the expression has {len(expression)} characters; at most {MAX_EXPRESSION} are allowed")
    plain = expression.strip().translate(_SPELLINGS)
    try:
        tree = ast.parse(plain, "<expression>", mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError("the expression is not arithmetic") from error
    return _plain_number(_evaluate(tree.body, 0))


def _plain_number(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(f"{float(value):.12g}")


def _evaluate(node: ast.expr, depth: int) -> Fraction:
    if depth > MAX_DEPTH:
        raise ValueError(f"the expression is nested over {MAX_DEPTH} deep")
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _evaluate(operand, depth + 1)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(left, depth + 1), _evaluate(right, depth + 1))
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as args, keywords=[]) if name in _FUNCTIONS:
            return _apply(name, [_evaluate(argument, depth + 1) for argument in args])
    found = node.id if isinstance(node, ast.Name) else type(node).__name__
    raise ValueError(f"{found[:50]!r} is not allowed; only numbers, + - * / // % ** and {', '.join(_FUNCTIONS)} are")


def _bounded(value: int | float | Fraction) -> Fraction:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is too large")
        # The decimal that was written, 1/10 for 0.1, and not the nearest binary fraction.
        value = Fraction(repr(value))
    value = Fraction(value)
    if _bits(value) > MAX_BITS:
        raise ValueError("a number has too many digits")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _exactly(operation: Callable[[Fraction, Fraction], Any]) -> Callable[[Fraction, Fraction], Fraction]:
    """An operation whose result has at most the bits of both sides together, which are bounded already."""
    return lambda left, right: _bounded(operation(left, right))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator == 1 and abs(base) == 1:
        return base ** int(exponent % 2)
    if exponent.denominator == 1 and _bits(base) * abs(exponent) <= MAX_BITS:
        return _bounded(base ** int(exponent))
    if exponent.denominator == 1 and base.denominator == 1:
        raise ValueError("a power has too many digits")
    if base < 0 and exponent.denominator != 1:
        raise ValueError("a negative number has no such power")
    # Roots, and powers of fractions such as 1.05 ** 100, whose exact digits nobody wants.
    return _bounded(float(base) ** float(exponent))


def _square_root(value: Fraction) -> Fraction:
    if value < 0:
        raise ValueError("a negative number has no square root")
    exact = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    return exact if exact * exact == value else _bounded(math.sqrt(value))


def _round(value: Fraction, digits: Fraction = Fraction(0)) -> Fraction:
    if digits.denominator != 1 or not 0 <= digits <= 100:
        raise ValueError("round takes a whole number of digits from 0 to 100")
    return Fraction(round(value, int(digits)))


def _apply(name: str, arguments: list[Fraction]) -> Fraction:
    try:
        return _bounded(_FUNCTIONS[name](*arguments))
    except TypeError as error:
        raise ValueError(f"{name} does not take {len(arguments)} arguments") from error


# A model that writes 2^3 means a power, as on a calculator, and binds it like one.
_SPELLINGS = str.maketrans({"^": "**", "×": "*", "÷": "/", "−": "-", "＋": "+", "（": "(", "）": ")"})

_CONSTANTS = {"pi": Fraction(math.pi), "e": Fraction(math.e)}

_OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: _exactly(operator.add),
    ast.Sub: _exactly(operator.sub),
    ast.Mult: _exactly(operator.mul),
    ast.Div: _exactly(operator.truediv),
    ast.FloorDiv: _exactly(operator.floordiv),
    ast.Mod: _exactly(operator.mod),
    ast.Pow: _power,
}

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "max": max,
    "min": min,
    "round": _round,
    "sin": math.sin,
    "sqrt": _square_root,
    "tan": math.tan,
}


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
    exact = _bounded(value)
    if {from_unit, to_unit} <= _TEMPERATURES.keys():
        factor, offset = map(Fraction, _TEMPERATURES[from_unit])
        to_factor, to_offset = map(Fraction, _TEMPERATURES[to_unit])
        return _plain_number((exact * factor + offset - to_offset) / to_factor)
    for units in _UNITS.values():
        if {from_unit, to_unit} <= units.keys():
            return _plain_number(exact * Fraction(units[from_unit]) / Fraction(units[to_unit]))
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
