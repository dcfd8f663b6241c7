"""The assistant says the same about itself however it is asked."""

from random import Random

import pytest

from minimind.builtin.identity import ANSWERS, IDENTITY, QUESTIONS
from minimind.builtin.skills import Value


def drawn(language: str, held_out: bool) -> set[Value]:
    random = Random(0)
    return {IDENTITY.draw_value(random, language, held_out=held_out) for _ in range(3000)}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_held_out_wording_is_a_wording_of_training(language: str) -> None:
    random = Random(0)
    train, test = (
        {IDENTITY.ask(value, language, random).question for value in drawn(language, part)} for part in (False, True)
    )
    assert not train & test
    assert len(test) > 40


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_core_of_the_question_decides_the_answer(language: str) -> None:
    for value in drawn(language, held_out=False):
        exchange = IDENTITY.ask(value, language, Random(0))
        (answer,) = {answer for answer, cores in ANSWERS[language].items() if value[1] in cores}
        assert exchange.answer == answer and str(value[1]) in exchange.question


def test_no_question_has_two_answers() -> None:
    for language, answers in ANSWERS.items():
        assert len(QUESTIONS[language]) == sum(map(len, answers.values()))
