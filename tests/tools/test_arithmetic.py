"""Sums are exact, bounded, and nothing else is computed."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.tools.arithmetic import calculate
from minimind.tools.builtin import run_tool


def answer(name: str, **arguments: Any) -> dict[str, Any]:
    return json.loads(run_tool(name, arguments))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1+2*3", 7),
        ("(18 + 11) - 24", 5),
        ("0.1+0.2", 0.3),
        ("10/4", 2.5),
        ("10/5", 2),
        ("1/3", 0.333333333333),
        ("-7//2", -4),
        ("7%3", 1),
        ("2^10 + 2**10", 2048),
        ("2**-1", 0.5),
        ("2**0.5", 1.41421356237),
        ("1.05**100", 131.501257846),
        ("(-1)**999999999999", -1),
        ("sqrt(16) + sqrt(2.25)", 5.5),
        ("round(2.567, 1)", 2.6),
        ("max(1, 2, 3) - min(1, 2)", 2),
        ("floor(-1.5) + ceil(1.2)", 0),
        ("log(8, 2)", 3),
        ("5×3÷2", 7.5),
        ("（1＋2）", 3),
        ("1_000 + 0x10", 1016),
        ("+".join(["1"] * 250), 250),
        ("9999999999999999999 + 1", 10**19),
    ],
)
def test_arithmetic_is_exact(expression: str, value: float) -> None:
    assert calculate(expression) == value
    assert answer("calculate_math", expression=expression) == {"result": value}


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12), st.sampled_from(["+", "-", "*", "//", "%"]))
def test_whole_numbers_are_computed_as_python_computes_them(left: int, right: int, sign: str) -> None:
    expected = {"+": left + right, "-": left - right, "*": left * right}
    if right:
        expected |= {"//": left // right, "%": left % right}

    assert answer("calculate_math", expression=f"({left}) {sign} ({right})").get("result") == expected.get(sign)


ESCAPES = [
    "__import__('os').system('touch {canary}')",
    "open('{canary}', 'w')",
    "eval('1')",
    "exec('import os')",
    "compile('1', '', 'eval')",
    "globals()",
    "print(1)",
    "input()",
    "breakpoint()",
    "getattr(1, 'real')",
    "().__class__.__bases__[0].__subclasses__()",
    "(1).__class__",
    "abs.__self__",
    "sqrt.__globals__",
    "pi.numerator",
    "max.__call__(1, 2)",
    "[x for x in (1, 2)]",
    "(x for x in (1, 2))",
    "{{1: 2}}",
    "{{1, 2}}",
    "[1][0]",
    "(1, 2)",
    "lambda: 1",
    "(y := 5)",
    "f'{{1}}'",
    "'a' * 10",
    "b'a'",
    "1 if 1 else 2",
    "not 1",
    "1 and 2",
    "1 < 2",
    "1 in [1]",
    "1 << 2",
    "1 | 1",
    "1 & 1",
    "1 @ 1",
    "~1",
    "1j",
    "True",
    "None",
    "...",
    "x",
    "await x",
    "max(*[1, 2])",
    "max(1, 2, key=abs)",
    "abs()",
    "sqrt(1)(2)",
    "1; 2",
    "import os",
    "1 +",
    "",
    "\x00",
]
WRAPPERS = ["{}", "({})", "1 + ({})", "abs({})", "-({})", "max(1, {}, 2)"]


@pytest.mark.parametrize(("escape", "wrapper"), [*product(ESCAPES, WRAPPERS)])
def test_nothing_but_arithmetic_is_computed(escape: str, wrapper: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    result = answer("calculate_math", expression=wrapper.format(escape.format(canary=canary)))

    assert list(result) == ["error"]
    assert not canary.exists()


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "9**9**9**9",
        "10**1000",
        "(2**1000)**1000",
        "2**(2**1000)",
        "0.5**(2**1000)",
        "1.5**(10**300)",
        "10**-1000",
        "(2**600)*(2**600)",
        "*".join(["(2**300)"] * 5),
        "9" * 400,
        "1e400",
        "1e308*10",
        "1e-308/1e300",
        "exp(1000)",
        "exp(2**1000)",
        "round(1, 10**9)",
        "round(1, -1)",
        "9" * 501,
        "-" * 400 + "1",
        "(" * 240 + "1" + ")" * 240,
        "f(" + "-" * 400 + "1)",
        "abs(" * 90 + "1" + ")" * 90 + "(" * 10,
        "1/0",
        "1//0",
        "1%0",
        "0**-1",
        "sqrt(-1)",
        "(-8)**(1/3)",
        "log(0)",
        "log(-1)",
    ],
)
def test_numbers_are_bounded_before_they_are_computed(expression: str) -> None:
    assert list(answer("calculate_math", expression=expression)) == ["error"]


@given(st.text(alphabet="0123456789.+-*/%^() episqrtmaxlog,", max_size=40))
def test_any_text_gets_an_answer(expression: str) -> None:
    assert list(answer("calculate_math", expression=expression)) in (["result"], ["error"])


def test_there_are_three_hundred_escapes() -> None:
    assert len(ESCAPES) == len(set(ESCAPES)) and len(ESCAPES) * len(WRAPPERS) >= 300


def test_what_is_no_arithmetic_says_nothing_to_the_terminal() -> None:
    program = (
        "from minimind.tools.builtin import run_tool; print(run_tool('calculate_math', {'expression': '3apples'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "error" in done.stdout and done.stderr == ""
