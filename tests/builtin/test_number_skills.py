"""Every number skill's answer is the right one, worked out here in another way."""

import re
from random import Random

import pytest

from minimind.builtin.number_skills import NUMBER_SKILLS
from minimind.builtin.skills import Exchange
from minimind.tools.arithmetic import calculate

SKILLS = {skill.name: skill for skill in NUMBER_SKILLS}


def numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def asked(name: str, language: str, held_out: bool = False) -> list[Exchange]:
    """Many questions of one kind."""
    random, skill = Random(name), SKILLS[name]
    values = [skill.draw_value(random, language, held_out=held_out) for _ in range(200)]
    return [skill.ask(value, language, random) for value in values]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("name", "step"), [("next", 1), ("previous", -1)])
def test_the_neighbour_is_one_away(name: str, step: int, language: str) -> None:
    for exchange in asked(name, language):
        assert numbers(exchange.answer) == [numbers(exchange.question)[0] + step]
        assert calculate(exchange.reasoning.split("=")[0]) == int(exchange.answer)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_larger_or_smaller_number_is_named(language: str) -> None:
    for exchange in asked("compare", language):
        is_larger = any(word in exchange.question for word in ("larger", "大"))
        both = numbers(exchange.question)
        assert numbers(exchange.answer) == [max(both) if is_larger else min(both)]
        assert numbers(exchange.reasoning) == sorted(both)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_counting_names_every_number_from_start_to_end(language: str) -> None:
    for exchange in asked("count", language):
        start, stop = numbers(exchange.question)
        assert numbers(exchange.answer) == list(range(start, stop + 1))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_last_digit_decides_between_even_and_odd(language: str) -> None:
    for exchange in asked("parity", language):
        (number,) = numbers(exchange.question)
        word = {"en": ("even.", "odd."), "zh": ("双数。", "单数。")}[language][number % 2]
        assert exchange.answer.startswith(str(number)) and exchange.answer.endswith(word)
        assert numbers(exchange.reasoning) == [number % 10]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_digit_asked_for_is_given(language: str) -> None:
    for exchange in asked("digit", language):
        number = re.findall(r"\d+", exchange.question)[0]
        is_last = any(word in exchange.question for word in ("last", "最后"))
        assert exchange.answer == (number[-1] if is_last else number[0])


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", ["sum", "story"])
def test_the_expression_has_the_questions_numbers_and_the_answer_its_value(name: str, language: str) -> None:
    for exchange in asked(name, language):
        assert sorted(numbers(exchange.expression)) == sorted(numbers(exchange.question))
        assert calculate(exchange.expression) == numbers(exchange.answer)[-1 if name == "sum" else 0] > 0
        assert exchange.expression in exchange.reasoning


@pytest.mark.parametrize("language", ["en", "zh"])
def test_wordings_never_tell_whether_a_value_is_held_out(language: str) -> None:
    # A story's wording also holds a thing, drawn from many.
    for name in SKILLS.keys() - {"story"}:
        train, test = (
            {re.sub(r"\d+", "#", exchange.question) for exchange in asked(name, language, part)}
            for part in (False, True)
        )
        assert train == test
