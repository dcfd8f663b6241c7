"""What a built-in question is, and which of its values are kept for the test.

A skill draws a *value* (a number, a pair of numbers, some words) and words a question about it with the one answer that
counts as right. A fixed tenth of all values, chosen by hash, is held out: training never asks about them, the test asks
about nothing else. So a right answer shows a rule that was learnt and not a line that was remembered.
Read `word_skills.py` and `number_skills.py` for the skills, `conversations.py` for their use.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

__all__ = ["Exchange", "Skill", "Value", "Wordings", "is_held_out", "pick"]

# One value in this many is kept for the test.
HELD_OUT_ONE_IN = 10

Value = tuple[str | int, ...]
# Several ways to ask the same, by language.
Wordings = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Exchange:
    """A question and its answer; what to think before it when thinking is on; what to ask the calculator, if at all."""

    question: str
    answer: str
    reasoning: str
    expression: str = ""


@dataclass(frozen=True)
class Skill:
    """One kind of question.

    draw:   (random, language) -> a value
    ask:    (value, language, random) -> a question about it
    family: skills of one family share their held-out values; the name unless given
    weight: how often training draws it, compared with others; harder ones need more examples
    """

    name: str
    draw: Callable[[Random, str], Value]
    ask: Callable[[Value, str, Random], Exchange]
    family: str = ""
    weight: float = 1.0
    uses_calculator: bool = False

    def draw_value(self, random: Random, language: str, *, held_out: bool) -> Value:
        """A value of the training part, or of the held-out part."""
        while True:
            value = self.draw(random, language)
            if is_held_out(self.family or self.name, value) == held_out:
                return value


def is_held_out(family: str, value: Value) -> bool:
    """Whether training must not ask about `value`: the same on every machine and for every seed."""
    digest = blake2b("|".join((family, *map(str, value))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0


def pick(random: Random, wordings: Wordings, language: str) -> str:
    """One of the ways to ask."""
    return random.choice(wordings[language])
