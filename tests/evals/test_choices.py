"""Choices are read in every public shape, and each way of asking picks what it says it picks."""

from typing import Any

import pytest
import torch

from minimind.errors import DataError
from minimind.evals.choices import multiple_choice, parse_question
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

Opinionated = tuple[Transformer, Tokenizer]
CHOICES = ["the cat", "mat", "on the mat the cat sat", "sat on"]


def nats(model: Transformer, tokenizer: Tokenizer, context: str, continuation: str) -> tuple[float, int]:
    before, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
    # The model of these tests reads 48 positions.
    ids, count = whole[-49:], len(whole) - len(before)
    found = model(torch.tensor([ids[:-1]])).double().log_softmax(-1)[0]
    return sum(found[-count + place, index].item() for place, index in enumerate(ids[-count:])), count


def picked(scores: list[float]) -> int:
    return scores.index(max(scores))


def test_each_way_of_asking_picks_the_likeliest(opinionated: Opinionated) -> None:
    rows = [
        (f"a:{answer}", {"question": "Who sat?", "choices": CHOICES, "answer": "ABCD"[answer]}) for answer in range(4)
    ]
    found = multiple_choice(*opinionated, rows)
    context = "Question: Who sat?\nAnswer:"
    scores = [nats(*opinionated, context, f" {choice}") for choice in CHOICES]
    listed = "\n".join(
        ["Who sat?", *(f"{letter}. {text}" for letter, text in zip("ABCD", CHOICES, strict=True)), "Answer:"]
    )
    expected = {
        "letter": picked([nats(*opinionated, listed, f" {letter}")[0] for letter in "ABCD"]),
        "continuation, sum": picked([total for total, _ in scores]),
        "continuation, by token": picked([total / count for total, count in scores]),
        "continuation, by byte": picked([total / len(t) for (total, _), t in zip(scores, CHOICES, strict=True)]),
    }
    for method, choice in expected.items():
        assert found.by_method[method].amounts == [float(answer == choice) for answer in range(4)], method
    assert found.chance == 0.25 and len(set(expected.values())) > 1


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "q", "choices": ["x", "y", "z"], "answer": "B"}, 1),
        ({"question": "q", "choices": ["x", "y", "z"], "answer": 1}, 1),
        ({"Question": "q", "A": "x", "B": "y", "C": "z", "Answer": "C"}, 2),
        ({"question": "q", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": "3"}, 2),
        ({"ctx": "q", "endings": ["x", "y", "z"], "label": "0", "activity_label": "s"}, 0),
        ({"question_stem": "q", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, "answerKey": "B"}, 1),
        ({"question": "q", "options": ["x", "y", "z"], "answer": "C", "answer_index": 2}, 2),
    ],
)
def test_every_public_shape_of_three_is_read(row: dict[str, Any], answer: int) -> None:
    question = parse_question("a:1", row)
    assert (question.text, question.choices, question.answer) == ("q", ("x", "y", "z"), answer)
    assert question.is_opening == ("ctx" in row) and question.context() == (
        "q" if "ctx" in row else "Question: q\nAnswer:"
    )


def test_a_chinese_question_is_asked_in_chinese() -> None:
    question = parse_question("a:1", {"question": "今天？", "choices": ["是", "否"], "answer": "A"})
    assert question.context_with_choices() == "今天？\nA. 是\nB. 否\n答案："


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"choices": ["x", "y"], "answer": "A"}, "question is None"),
        ({"question": "q", "choices": ["x"], "answer": "A"}, "expected 2 to 26 texts"),
        ({"question": "q", "choices": ["x", 2], "answer": "A"}, "expected 2 to 26 texts"),
        ({"question": "q", "choices": ["x", "y"], "answer": "C"}, "the answer is 'C'; expected one of A, B"),
        ({"question": "q", "choices": ["x", "y"]}, "the answer is None"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=f"a:3: .*{problem}"):
        parse_question("a:3", row)


def test_subjects_are_told_apart(opinionated: Opinionated) -> None:
    rows = [(f"a:{n}", {"subject": s, "question": "q", "choices": ["x", "y"], "answer": 0}) for n, s in enumerate("ab")]
    found = multiple_choice(*opinionated, rows)
    assert list(found.by_subject) == ["a", "b"] and len(found.by_subject["a"]["letter"].amounts) == 1
    assert found.chance == 0.5


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"goal": "q", "sol1": "x", "sol2": "y", "label": 1}, 1),
        ({"sentence": "q", "option1": "x", "option2": "y", "answer": "1"}, 0),
    ],
)
def test_every_public_shape_of_two_is_read(row: dict[str, Any], answer: int) -> None:
    question = parse_question("a:1", row)
    assert (question.text, question.choices, question.answer) == ("q", ("x", "y"), answer)
