r"""Numbers in LaTeX -> the same as plain text: `1\frac12` is 1 1/2, `1{,}234` is 1,234, `72\text{ cm}^2` is 72 cm.

What is no number but stands for one, such as `\pi`, `\sqrt{2}` or a fraction of them, becomes UNREADABLE, so that
nobody takes the 2 in it for a value. All other commands stay as they are. `numbers.py` reads what comes out.
"""

import re
import unicodedata

__all__ = ["UNREADABLE", "plain_math", "same_formula"]

UNREADABLE = "\0"
"""Stands where a value is that is not computed here."""

_BRACES = r"\{(?:[^{}]|\{[^{}]*\})*\}"
_WIDE_COMMA = re.compile(r"(?<=[０-９])，(?=[０-９]{3})")
_WIDE = str.maketrans("０１２３４５６７８９．－＋％／−￥＄⁄", "0123456789.-+%/-¥$/")
_SUPERSCRIPTS = re.compile("[⁺⁻⁰¹²³⁴-⁹]+")
_VULGAR = re.compile("([0-9]?)([¼-¾⅐-⅞])")
# A space of its own width between digits groups them, in LaTeX and in Unicode.
_GROUPED = re.compile(r"(?<=[0-9])(?:\\,|\{,\}|[\u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))")
_STYLE = re.compile(
    r"\\! ?|\\(?:left|right|displaystyle|limits)(?![a-zA-Z])|\\(?=[%$])|\^ ?\{? ?\\(?:circ|prime)\b ?\}?"
)
_SPACE = re.compile(r"\\(?:[,;: ]|q?quad(?![a-zA-Z]))|~")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname) ?\{([^{}]*)\}")
_FRACTION = re.compile(
    r"([0-9] ?)?(-?)\\[cdt]?frac ?(?:\{ ?(-?) ?([0-9][0-9.,]*) ?\}|([0-9])) ?(?:\{ ?([0-9]+) ?\}|([0-9]))"
)
_VALUE = re.compile(
    r"\\(?:[cdt]?frac|binom|sqrt(?:\[[^\]]*\])?|overline|pi|infty|sin|cos|tan|log|ln|exp|theta|alpha|beta)(?![a-zA-Z])"
    rf"(?: ?{_BRACES}| ?[0-9]+){{0,2}}|[π√∞]"
)
# Of an index, and of an exponent on anything but a number, nothing is a value: cm^2, x_1.
_RAISED = re.compile(rf"(?<=[^\W\d_]|[)\]}}])(?:_| ?\^ ?)(?:{_BRACES}|[-+]?[0-9]+|[a-zA-Z])")


def plain_math(text: str) -> str:
    """The text with its LaTeX numbers in plain characters, wide digits and superscripts included."""
    text = _WIDE_COMMA.sub(",", text).translate(_WIDE)
    text = _SUPERSCRIPTS.sub(lambda match: f"^{{{unicodedata.normalize('NFKC', match[0]).replace('−', '-')}}}", text)
    text = _VULGAR.sub(_vulgar, text)
    text = _STYLE.sub("", _TEXT.sub(r"\1", text))
    text = _GROUPED.sub(lambda match: "," if match[0] == "{,}" else "", text)
    text = _SPACE.sub(" ", text)
    text = _FRACTION.sub(_fraction, text)
    text = _VALUE.sub(UNREADABLE, text)
    return _RAISED.sub(
        lambda match: UNREADABLE if match.string[match.start() - 1 : match.start()] in ")}]" else "", text
    )


def same_formula(one: str, other: str) -> bool:
    """Are two texts the same but for spaces, dollars and how LaTeX sets them? Formulas that are equal may not be."""
    return _unset(one) == _unset(other)


def _unset(text: str) -> str:
    text = re.sub(r"\\[cdt]frac(?![a-zA-Z])", r"\\frac", _STYLE.sub("", _TEXT.sub(r"\1", text)))
    return "".join(_SPACE.sub("", text).replace("$", "").split())


def _vulgar(match: re.Match[str]) -> str:
    fraction = unicodedata.normalize("NFKC", match[2]).replace("⁄", "/")
    return f"{match[1]} {fraction}" if match[1] else fraction


def _fraction(match: re.Match[str]) -> str:
    whole, sign, inner_sign, *parts = match.groups(default="")
    sign = "-" if (sign or inner_sign) and sign != inner_sign else ""
    # Behind a digit it is the rest of a mixed number.
    return f"{whole.strip()}{' ' if whole else ''}{sign}{parts[0] or parts[1]}/{parts[2] or parts[3]}"
