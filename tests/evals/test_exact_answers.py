"""Answers are compared exactly, tools are run, and what a model was taught can be found again."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from tests.evals.lessons import ROWS

from minimind.builtin.conversations import builtin_questions
from minimind.errors import DataError
from minimind.evals.exact_answers import Answer, ExactAnswers, exact_answers
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer


def placed(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(f"q.jsonl:{line}", row) for line, row in enumerate(rows, start=1)]


def test_a_model_that_learnt_its_lessons_answers_all_of_them(taught: Transformer, tokenizer: Tokenizer) -> None:
    found = exact_answers(taught, tokenizer, placed(ROWS))
    assert [answer.got for answer in found.answers] == ["hello", "done", "2+3 = 5"]
    assert found.overall.amounts == [1, 1, 1]
    assert {kind: share.amounts for kind, share in found.by_kind.items()} == {"talk": [1, 1], "sum": [1]}


def test_another_expected_answer_is_wrong(taught: Transformer, tokenizer: Tokenizer) -> None:
    found = exact_answers(taught, tokenizer, placed([ROWS[0] | {"answer": "hello!"}, ROWS[0]]))
    assert [answer.is_right for answer in found.answers] == [False, True]
    assert found.overall.value == 0.5


def test_batches_do_not_change_the_answers(taught: Transformer, tokenizer: Tokenizer) -> None:
    assert exact_answers(taught, tokenizer, placed(ROWS), batch_size=1) == exact_answers(
        taught, tokenizer, placed(ROWS)
    )


def test_an_answer_cut_short_of_its_tokens_is_not_right(taught: Transformer, tokenizer: Tokenizer) -> None:
    assert not exact_answers(taught, tokenizer, placed(ROWS[:1]), max_tokens=1).answers[0].is_right


def test_white_space_at_the_ends_does_not_count_and_letters_do() -> None:
    answers = tuple(Answer("kind", "question", "4", got) for got in (" 4\n", "4.", ""))
    assert [answer.is_right for answer in answers] == [True, False, False]
    assert ExactAnswers(answers).overall.amounts == [1, 0, 0]


def test_the_builtin_questions_can_be_asked(taught: Transformer, tokenizer: Tokenizer) -> None:
    questions = list(builtin_questions(13))
    found = exact_answers(taught, tokenizer, placed(questions), max_tokens=4)
    assert [answer.expected for answer in found.answers] == [question["answer"] for question in questions]
    assert len(found.overall.amounts) == 13


def test_no_questions_are_an_error(taught: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="no questions"):
        exact_answers(taught, tokenizer, [])


def test_a_row_that_is_no_question_is_named_before_anything_is_asked(taught: Transformer, tokenizer: Tokenizer) -> None:
    for row in ({**ROWS[0], "answer": None}, {key: value for key, value in ROWS[0].items() if key != "answer"}):
        with pytest.raises(DataError, match=r"q\.jsonl:2: does not say what is right"):
            exact_answers(taught, tokenizer, placed([ROWS[0], row]))


def test_a_question_without_a_user_and_one_too_long_are_asked_or_wrong(
    taught: Transformer, tokenizer: Tokenizer
) -> None:
    system = {"conversations": [{"role": "system", "content": "say hello"}], "answer": "hello"}
    long = {"conversations": [{"role": "user", "content": "word " * 2000}], "answer": "hello"}
    found = exact_answers(taught, tokenizer, placed([system, long, ROWS[0]]))
    assert found.answers[0].question == "" and len(found.answers) == 3
    assert found.answers[1].got == "" and found.answers[2].is_right


def test_the_answer_of_a_row_is_not_shown_to_the_model(taught: Transformer, tokenizer: Tokenizer) -> None:
    found = exact_answers(
        taught, tokenizer, placed([{"question": ROWS[0]["conversations"][0]["content"], "answer": "x"}])
    )
    assert [(answer.got, answer.is_right) for answer in found.answers] == [("hello", False)]
