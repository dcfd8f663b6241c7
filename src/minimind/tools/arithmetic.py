"""A calculator for hostile expressions: a whitelisted syntax tree, every number bounded before it is computed."""

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

__all__ = ["bounded", "calculate", "plain_number"]

# "3apples" is no arithmetic, and Python's parser would tell so to the terminal as well.
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<expression>")

MAX_EXPRESSION = 500
# A sum of 250 terms is nested that deep, and Python's own stack still has room.
MAX_DEPTH = 250
# Numerators and denominators stay below 2**1024, about 308 digits, the range of a float.
MAX_BITS = 1024


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
    return plain_number(_evaluate(tree.body, 0))


def plain_number(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(f"{float(value):.12g}")


def _evaluate(node: ast.expr, depth: int) -> Fraction:
    if depth > MAX_DEPTH:
        raise ValueError(f"the expression is nested over {MAX_DEPTH} deep")
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return bounded(value)
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


def bounded(value: int | float | Fraction) -> Fraction:
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
    return lambda left, right: bounded(operation(left, right))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator == 1 and abs(base) == 1:
        return base ** int(exponent % 2)
    if exponent.denominator == 1 and _bits(base) * abs(exponent) <= MAX_BITS:
        return bounded(base ** int(exponent))
    if exponent.denominator == 1 and base.denominator == 1:
        raise ValueError("a power has too many digits")
    if base < 0 and exponent.denominator != 1:
        raise ValueError("a negative number has no such power")
    # Roots, and powers of fractions such as 1.05 ** 100, whose exact digits nobody wants.
    return bounded(float(base) ** float(exponent))


def _square_root(value: Fraction) -> Fraction:
    if value < 0:
        raise ValueError("a negative number has no square root")
    exact = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    return exact if exact * exact == value else bounded(math.sqrt(value))


def _round(value: Fraction, digits: Fraction = Fraction(0)) -> Fraction:
    if digits.denominator != 1 or not 0 <= digits <= 100:
        raise ValueError("round takes a whole number of digits from 0 to 100")
    return Fraction(round(value, int(digits)))


def _apply(name: str, arguments: list[Fraction]) -> Fraction:
    try:
        return bounded(_FUNCTIONS[name](*arguments))
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
