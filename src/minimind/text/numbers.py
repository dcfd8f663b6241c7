r"""Numbers as people and models write them: 1,234.5, 3/4, \frac{3}{4}, 1 1/2, 50%, １２, 1.2 \times 10^{-3}, 2^{10}.

All are read as exact fractions. A percentage has two readings, since data asks "how many percent?" and means 50, and
asks for a share and means 0.5. What has a value that is not computed here (`2\sqrt{3}`, a division left undone) is a
number without readings. Numbers spelled in words (fifty, 五十) are not read.
"""

import re
from fractions import Fraction

from minimind.text.latex import UNREADABLE, plain_math

__all__ = ["Number", "is_equal", "read_alone", "read_last", "read_numbers"]

# Longer runs of digits are no answer, and turning them into a number takes time that grows with their square.
MAX_CHARACTERS = 60
# Data writes 1/3 as 0.3333: with so many decimals a value counts as rounded, and half a unit of the last is forgiven.
ROUNDED_DECIMALS = 3

Number = tuple[Fraction, ...]
"""What a written number can mean; empty where it means none."""

_PLAIN = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
# A full stop may follow, but not more of a date or of decimals.
_END = r"(?![0-9/]|\.[0-9])"
_POWER = r"\^ ?\{{? ?(?P<{0}>[-+]?[0-9]{{1,2}})(?![0-9]) ?\}}?"
_NUMBER = re.compile(
    # A minus behind a digit or a word is an operator or a hyphen; 3.11.2 and 3/4/2024 are no numbers to the end, and
    # A2B is a name.
    r"(?<![0-9/])(?<![0-9]\.)(?!(?<=[A-Za-z])[0-9]+[A-Za-z])(?P<sign>(?<![0-9A-Za-z)\]%])[-+])?"
    rf"(?:[A-Z]{{0,2}}[$€£¥])?(?:(?P<whole>[0-9]+) (?=[0-9]+/[0-9]+{_END}))?"
    rf"(?:(?P<plain>{_PLAIN})(?:[eE](?P<exponent>[-+]?[0-9]{{1,2}})(?![0-9])"
    rf"| ?(?:\\times|\\cdot|[×·*x]) ?10 ?{_POWER.format('tens')}| ?{_POWER.format('power')})?"
    rf"(?: ?/ ?(?P<under>[0-9]+){_END})?(?P<percent>\$? ?%| percent(?:age)?\b| pct\b)?"
    # The 2 of cm2 and m3 belongs to the unit.
    rf"(?P<value> ?\*? ?{UNREADABLE})?(?: ?[a-zµ]+[23](?![0-9a-zA-Z]))?|{UNREADABLE})"
)
_DECIMALS = re.compile(r"(?<=\.)[0-9]+")
_ABOUT = re.compile(r"≈|\\approx(?![a-zA-Z])")
# What makes a text with one number in it something else: 2x, 72 - n, f(2), x > 3, \ln 2, \pm 5.
_BEFORE = re.compile(r"[a-zA-Z]\(?$|[-+±*/^<>≤≥|] *$|\\[a-zA-Z]")
_BEHIND = re.compile(r"^(?:\*? ?[beinquvwxyz]|a| ?[-/] ?[a-zA-Z(])(?![a-zA-Z])|[+±*^<>≤≥|]|\\[a-zA-Z]")


def read_numbers(text: str) -> list[Number]:
    """All numbers of a text that have a value, in order."""
    return [reading for match in _NUMBER.finditer(plain_math(text)) if (reading := _value(match))]


def read_last(text: str) -> Number:
    """The last number of a text, also as it stands before a last ≈; () where it has none that is computed here."""
    plain = plain_math(text)
    matches = list(_NUMBER.finditer(plain))[-2:]
    if len(matches) == 2 and _ABOUT.fullmatch(plain[matches[0].end() : matches[1].start()].strip("$ ")):
        return _value(matches[0]) + _value(matches[1])
    return _value(matches[-1]) if matches else ()


def read_alone(text: str) -> Number:
    """The number that a text is, with units and what it equals around it: x = 72 cm; () where it is more or less."""
    parts = _ABOUT.split(plain_math(text))
    plain = next(filter(_NUMBER.search, parts), "").rpartition("=")[2].strip()
    matches = list(_NUMBER.finditer(plain))
    if len(matches) != 1:
        return ()
    [match] = matches
    is_part = _BEFORE.search(plain[: match.start()]) or _BEHIND.search(plain[match.end() :])
    return () if is_part else _value(match)


def is_equal(found: Number, expected: str) -> bool:
    """Is a number that was found what `expected` spells? Never, where that is no number alone."""
    decimals = max(map(len, _DECIMALS.findall(expected)), default=0)
    slack = Fraction(1, 2 * 10**decimals) if ROUNDED_DECIMALS <= decimals <= MAX_CHARACTERS else 0
    return any(abs(one - other) <= slack for one in found for other in read_alone(expected))


def _value(match: re.Match[str]) -> Number:
    if len(match[0]) > MAX_CHARACTERS or match["plain"] is None or match["value"]:
        return ()
    value = Fraction(match["plain"].replace(",", ""))
    value *= Fraction(10) ** int(match["exponent"] or match["tens"] or 0)
    if match["power"]:
        if value == 0:
            return ()
        value **= int(match["power"])
    if match["under"]:
        under = int(match["under"])
        # A quotient that comes out whole, such as 84/12, is a division left undone and not an answer.
        if under == 0 or (value / under).denominator == 1:
            return ()
        value /= under
    value += int(match["whole"] or 0)
    value = -value if match["sign"] == "-" else value
    return (value, value / 100) if match["percent"] else (value,)
