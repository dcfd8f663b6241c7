"""Training and test ask about different values, and every answer is right."""

import re
from collections import defaultdict
from typing import Any

import pytest

from minimind.builtin.conversations import SKILLS, builtin_conversations, builtin_questions
from minimind.builtin.skills import Skill, Value
from minimind.text.messages import Conversation
from minimind.tools.arithmetic import calculate

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def train() -> Rows:
    return list(builtin_conversations())


@pytest.fixture(scope="module")
def questions() -> Rows:
    return list(builtin_questions())


def said(row: dict[str, Any], role: str) -> list[str]:
    return [message["content"] for message in row["conversations"] if message["role"] == role]


def numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def test_no_value_of_the_questions_is_drawn_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[bool, dict[str, set[Value]]] = {part: defaultdict(set) for part in (False, True)}
    draw_value = Skill.draw_value

    def recording(skill: Skill, random: Any, language: str, *, held_out: bool) -> Value:
        value = draw_value(skill, random, language, held_out=held_out)
        drawn[held_out][skill.family or skill.name].add(value)
        return value

    monkeypatch.setattr(Skill, "draw_value", recording)
    list(builtin_conversations())
    assert not drawn[True]
    list(builtin_questions())
    assert drawn[True].keys() == drawn[False].keys() == {skill.family or skill.name for skill in SKILLS}
    for family, values in drawn[True].items():
        assert not values & drawn[False][family]


def test_no_question_is_asked_in_training_with_any_of_its_numbers(train: Rows, questions: Rows) -> None:
    """Without the generator's own word for it: the same wording, numbers left out, never meets the same numbers."""

    def wording_and_numbers(text: str) -> tuple[str, tuple[int, ...]]:
        return re.sub(r"\d+", "#", text), tuple(sorted(numbers(text)))

    trained = {wording_and_numbers(text) for row in train for text in said(row, "user")}
    wordings = {wording for wording, _ in trained}
    asked = [wording_and_numbers(said(row, "user")[0]) for row in questions]
    assert not trained & set(asked)
    # The wordings themselves are known wherever the value is a number.
    numeric = [wording for wording, found in asked if found and "#" in wording]
    assert sum(wording in wordings for wording in numeric) > 0.8 * len(numeric)


def test_every_sum_is_called_with_the_questions_numbers_and_answered_with_the_result(train: Rows) -> None:
    num_calls = 0
    for row in train:
        messages = row["conversations"]
        for at, message in enumerate(messages):
            for call in message.get("tool_calls", []):
                num_calls += 1
                expression = call["arguments"]["expression"]
                asked, result, answer = (messages[place]["content"] for place in (at - 1, at + 1, at + 2))
                assert sorted(numbers(expression)) == sorted(numbers(asked))
                assert numbers(result) == [calculate(expression)]
                assert calculate(expression) in (numbers(answer)[0], numbers(answer)[-1])
    assert num_calls > 2000


def test_calls_are_made_only_where_the_calculator_is_offered(train: Rows, questions: Rows) -> None:
    for row in train:
        calls = any(message.get("tool_calls") for message in row["conversations"])
        assert "tools" in row or not calls
    for row in questions:
        assert ("tools" in row) == (row["kind"] in ("sum", "story"))


def test_every_row_is_a_conversation_and_thinks_throughout_or_not_at_all(train: Rows) -> None:
    thinking = 0
    for number, row in enumerate(train[:2000], start=1):
        conversation = Conversation.parse(row, f"row {number}")
        answers = [message for message in conversation.messages if message.role == "assistant"]
        assert conversation.messages[0].role == "user" and conversation.messages[-1] == answers[-1]
        assert len({bool(answer.reasoning_content) for answer in answers}) == 1
        thinking += bool(answers[0].reasoning_content)
    assert 0.25 < thinking / 2000 < 0.35


def test_questions_are_of_every_kind_in_both_languages_with_and_without_thinking(questions: Rows) -> None:
    assert len(questions) == len({said(row, "user")[0] for row in questions}) == 200
    for skill in SKILLS:
        rows = [row for row in questions if row["kind"] == skill.name]
        assert len(rows) >= 15
        assert {(row["lang"], row["thinking"]) for row in rows} == {
            (language, thinking) for language in ("en", "zh") for thinking in (False, True)
        }


def test_a_row_depends_on_the_seed_and_its_number_alone() -> None:
    assert list(builtin_conversations(50)) == list(builtin_conversations(80))[:50]
    assert list(builtin_conversations(50, seed=1)) != list(builtin_conversations(50))
    assert list(builtin_questions(30)) == list(builtin_questions(60))[:30]
