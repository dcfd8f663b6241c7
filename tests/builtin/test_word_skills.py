"""Answers about words follow from the question, and what is said in passing is never a held-out value."""

from random import Random

import pytest

from minimind.builtin.conversations import builtin_conversations
from minimind.builtin.skills import Exchange, is_held_out
from minimind.builtin.word_skills import BY_ENGLISH, PROPERTIES, WORD_SKILLS
from minimind.builtin.words import ITEMS

SKILLS = {skill.name: skill for skill in WORD_SKILLS}


def asked(name: str, language: str) -> list[tuple[list[str], Exchange]]:
    """Many questions of one kind, each with its value's words in the question's language."""
    random, skill = Random(name), SKILLS[name]
    values = [skill.draw_value(random, language, held_out=False) for _ in range(200)]
    names = {item.en: item.en if language == "en" else item.zh for item in ITEMS}
    return [([names.get(str(word), "") for word in value], skill.ask(value, language, random)) for value in values]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_to_be_repeated_ends_the_question(language: str) -> None:
    for words, exchange in asked("repeat", language):
        assert exchange.answer.split(" ") == words
        assert exchange.question.endswith(exchange.answer)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_word_in_the_place_asked_for_is_the_answer(language: str) -> None:
    places = {"first": 0, "second": 1, "last": 2, "第一个": 0, "第二个": 1, "最后一个": 2}
    for words, exchange in asked("list", language):
        (place,) = {index for order, index in places.items() if order in exchange.question}
        assert exchange.answer == words[place]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", ["colour", "place"])
def test_the_answer_is_what_was_said_of_the_thing_asked_about(name: str, language: str) -> None:
    for words, exchange in asked(name, language):
        said = exchange.answer.rstrip(".。")
        assert words[0] in said
        assert said.lower() in exchange.question.lower()
        assert words[0] in exchange.question.replace("。", ". ").split(". ")[1]


@pytest.mark.parametrize("name", ["colour", "place"])
def test_what_training_says_of_other_things_is_no_held_out_value_either(name: str) -> None:
    messages = [message for row in builtin_conversations(6000) for message in row["conversations"]]
    text = "\n".join(message["content"] for message in messages).lower()
    held_out = [(item, of) for item in BY_ENGLISH for of in PROPERTIES[name] if is_held_out(name, (item, of))]
    assert len(held_out) > 30
    for item, of in held_out:
        assert f"the {item} is {of}." not in text and f"the {item} is {of} and" not in text


def test_words_are_told_apart_in_both_languages() -> None:
    assert len({item.en for item in ITEMS}) == len({item.zh for item in ITEMS}) == len(ITEMS)
