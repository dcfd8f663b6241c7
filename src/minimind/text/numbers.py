"""Numbers as people and models write them in answers: 1,234.5, 3/4, \\frac{3}{4}, 1 1/2, 50%, １２, #### 72.

All are read as exact fractions. A percentage has two readings, since data asks "how many percent?" and means 50, and
asks for a share and means 0.5. Numbers spelled in words (fifty, 五十) are not read.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from minimind.text.chat_template import CALL_MARKS

__all__ = ["Number", "holds_numbers", "is_equal", "last_number", "read_numbers"]

# Longer runs of digits are no answer, and turning them into a number takes time that grows with their square.
MAX_CHARACTERS = 60
# Data writes 1/3 as 0.3333: with so many decimals a value counts as rounded, and half a unit of the last is forgiven.
ROUNDED_DECIMALS = 3

Number = tuple[Fraction, ...]
"""What a written number can mean; empty where it means none."""

_PLAIN = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
# A full stop may follow, but not more of a date or of decimals.
_END = r"(?![0-9/]|\.[0-9])"
_NUMBER = re.compile(
    # A minus behind a digit or a word is an operator or a hyphen; 3.11.2 and 3/4/2024 are no numbers to the end.
    rf"(?<![0-9/])(?<![0-9]\.)(?P<sign>(?<![0-9A-Za-z)\]%])[-+])?[$€£¥]?(?:(?P<whole>[0-9]+) (?=[0-9]+/[0-9]+{_END}))?"
    rf"(?P<plain>{_PLAIN})(?:[eE](?P<exponent>[-+]?[0-9]{{1,2}})(?![0-9]))?"
    rf"(?: ?/ ?(?P<under>[0-9]+){_END})?(?P<percent> ?%| percent\b)?"
)
_DECIMALS = re.compile(r"(?<=\.)[0-9]+")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_WIDE_COMMA = re.compile(r"(?<=[０-９])，(?=[０-９]{3})")
_WIDE = str.maketrans("０１２３４５６７８９．－＋％／−￥＄", "0123456789.-+%/-¥$")


def read_numbers(text: str) -> list[Number]:
    """All numbers of a text, in order."""
    plain = _WIDE_COMMA.sub(",", text).translate(_WIDE)
    plain = _LATEX_FRACTION.sub(r"\1/\2", plain)
    readings = (_value(match) for match in _NUMBER.finditer(plain))
    return [reading for reading in readings if reading]


def last_number(text: str) -> Number:
    """The last number of the line behind the last `####`, if there is one, or of the text; () if it has none."""
    marked = text.rpartition("####")[2].strip().partition("\n")[0] if "####" in text else text
    numbers = read_numbers(marked)
    return numbers[-1] if numbers else ()


def holds_numbers(text: str, expected: Sequence[str]) -> bool:
    """Is the expected number the last one of the text? Of several, do all occur in it?"""
    # What a tool call says that is broken off is no answer.
    text = text.partition(CALL_MARKS[0])[0]
    if len(expected) == 1:
        return is_equal(last_number(text), expected[0])
    found = read_numbers(text)
    return all(any(is_equal(one, wanted) for one in found) for wanted in expected)


def is_equal(found: Number, expected: str) -> bool:
    """Is a number that was found what `expected` spells? Never, where that is no number."""
    wanted = read_numbers(expected)
    decimals = max(map(len, _DECIMALS.findall(expected)), default=0)
    slack = Fraction(1, 2 * 10**decimals) if ROUNDED_DECIMALS <= decimals <= MAX_CHARACTERS else 0
    return len(wanted) == 1 and any(abs(one - other) <= slack for one in found for other in wanted[0])


def _value(match: re.Match[str]) -> Number:
    if len(match[0]) > MAX_CHARACTERS:
        return ()
    value = Fraction(match["plain"].replace(",", "")) * Fraction(10) ** int(match["exponent"] or 0)
    if match["under"]:
        under = int(match["under"])
        # A quotient that comes out whole, such as 84/12, is a division left undone and not an answer.
        if under == 0 or (value / under).denominator == 1:
            return ()
        value /= under
    value += int(match["whole"] or 0)
    value = -value if match["sign"] == "-" else value
    return (value, value / 100) if match["percent"] else (value,)
