r"""What an answer comes to, and whether it is right: the last \boxed{...} or ####, else the last number of the text.

A number is compared as a number, anything else as text. `numbers.py` reads the numbers.
"""

from collections.abc import Sequence

from minimind.text.chat_template import CALL_MARKS
from minimind.text.latex import same_formula
from minimind.text.numbers import Number, is_equal, read_alone, read_last, read_numbers

__all__ = ["final_answer", "is_right", "last_number"]

BOX, MARK = r"\boxed", "####"


def final_answer(text: str) -> str | None:
    """What stands in the last box, or behind the last mark on its line; None where there is neither.

    A box that was cut holds nothing: of 72 it may show the 7.
    """
    box, mark = text.rfind(BOX), text.rfind(MARK)
    if max(box, mark) < 0:
        return None
    if mark > box:
        return text[mark + len(MARK) :].strip().partition("\n")[0].strip()
    behind = text[box + len(BOX) :].lstrip()
    return _in_braces(behind) if behind.startswith("{") else behind.partition("$")[0].partition(" ")[0]


def last_number(text: str) -> Number:
    """The number that a text comes to; () if it comes to none."""
    final = final_answer(text)
    return read_last(text) if final is None else read_alone(final)


def is_right(text: str, expected: Sequence[str]) -> bool:
    """Does the text come to the one that is expected? Of several numbers, do all occur in it?"""
    # What a tool call says that is broken off is no answer.
    text = text.partition(CALL_MARKS[0])[0]
    if len(expected) > 1:
        found = read_numbers(text)
        return all(any(is_equal(one, wanted) for one in found) for wanted in expected)
    if read_alone(expected[0]):
        return is_equal(last_number(text), expected[0])
    final = final_answer(text)
    return same_formula(text if final is None else final, expected[0])


def _in_braces(text: str) -> str:
    """The content of the braces that a text begins with; "" where they are not closed."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:place].strip()
    return ""
