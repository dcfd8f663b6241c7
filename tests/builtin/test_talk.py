"""Small talk and knowledge come in the language asked for, and knowledge is always the same."""

from collections import defaultdict
from random import Random

import pytest

from minimind.builtin.talk import FACT_REASONING, draw_talk


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_question_about_a_fact_has_one_answer(language: str) -> None:
    random = Random(0)
    answers: dict[str, set[str]] = defaultdict(set)
    for exchange in (draw_talk(random, language) for _ in range(4000)):
        if exchange.reasoning == FACT_REASONING[language]:
            answers[exchange.question].add(exchange.answer)
    assert len(answers) > 100
    assert {question: found for question, found in answers.items() if len(found) > 1} == {}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_questions_are_in_the_language_asked_for(language: str) -> None:
    random = Random(0)
    for exchange in (draw_talk(random, language) for _ in range(500)):
        is_chinese = any("\u4e00" <= character <= "\u9fff" for character in exchange.question)
        assert is_chinese == (language == "zh"), exchange


def test_the_capital_of_a_country_is_known() -> None:
    random = Random(0)
    found = {exchange.question: exchange.answer for exchange in (draw_talk(random, "en") for _ in range(4000))}
    assert found["What is the capital of France?"] == "The capital of France is Paris."
    assert found["What day comes after Sunday?"] == "Monday"
