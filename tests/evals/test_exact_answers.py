"""Answers are compared exactly, tools are run, and what a model was taught can be found again."""

import json

import pytest
import torch

from minimind.builtin.conversations import builtin_questions
from minimind.conversation import Conversation, render
from minimind.errors import DataError
from minimind.evals.exact_answers import Answer, ExactAnswers, exact_answers
from minimind.model import ModelConfig, Transformer
from minimind.tokenizer import Tokenizer
from minimind.tools import TOOLS, run_tool

CALCULATOR = TOOLS["calculate_math"]


def row(question: str, answer: str, kind: str, expression: str = "", thinking: bool = False) -> dict:
    """A question with the conversation that teaches it under `lesson`."""
    asked = {"role": "user", "content": question}
    thought = {"reasoning_content": "so"} if thinking else {}
    messages: list[dict] = [asked]
    if expression:
        call = {"name": CALCULATOR.name, "arguments": {"expression": expression}}
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]} | thought,
            {"role": "tool", "content": run_tool(CALCULATOR.name, call["arguments"])},
        ]
    messages.append({"role": "assistant", "content": answer} | thought)
    tools = {"tools": [CALCULATOR.schema]} if expression else {}
    lesson = {"conversations": messages} | tools
    return {"conversations": [asked], "answer": answer, "kind": kind, "thinking": thinking, "lesson": lesson} | tools


ROWS = [
    row("hi", "hello", "talk"),
    row("think", "done", "talk", thinking=True),
    row("2+3", "2+3 = 5", "sum", expression="2+3"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([json.dumps(ROWS)] * 3, 330)


@pytest.fixture(scope="module")
def taught(tokenizer: Tokenizer) -> Transformer:
    """A model that has learnt the three lessons by heart."""
    torch.manual_seed(0)
    small = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=640,
    )
    model = Transformer(small)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    lessons = [render(Conversation.parse(row["lesson"], "lesson"), tokenizer) for row in ROWS]
    for _ in range(80):
        for lesson in lessons:
            ids, weights = torch.tensor(lesson.ids), torch.tensor(lesson.weights)
            losses = torch.nn.functional.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="none")
            ((losses * weights[1:]).sum() / weights.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_a_model_that_learnt_its_lessons_answers_all_of_them(taught: Transformer, tokenizer: Tokenizer) -> None:
    found = exact_answers(taught, tokenizer, ROWS)
    assert [answer.got for answer in found.answers] == ["hello", "done", "2+3 = 5"]
    assert found.overall.amounts == [1, 1, 1]
    assert {kind: share.amounts for kind, share in found.by_kind.items()} == {"talk": [1, 1], "sum": [1]}


def test_another_expected_answer_is_wrong(taught: Transformer, tokenizer: Tokenizer) -> None:
    found = exact_answers(taught, tokenizer, [ROWS[0] | {"answer": "hello!"}, ROWS[0]])
    assert [answer.is_right for answer in found.answers] == [False, True]
    assert found.overall.value == 0.5


def test_batches_do_not_change_the_answers(taught: Transformer, tokenizer: Tokenizer) -> None:
    assert exact_answers(taught, tokenizer, ROWS, batch_size=1) == exact_answers(taught, tokenizer, ROWS)


def test_an_answer_cut_short_of_its_tokens_is_not_right(taught: Transformer, tokenizer: Tokenizer) -> None:
    assert not exact_answers(taught, tokenizer, ROWS[:1], max_tokens=1).answers[0].is_right


def test_white_space_at_the_ends_does_not_count_and_letters_do() -> None:
    answers = tuple(Answer("kind", "question", "4", got) for got in (" 4\n", "4.", ""))
    assert [answer.is_right for answer in answers] == [True, False, False]
    assert ExactAnswers(answers).overall.amounts == [1, 0, 0]


def test_the_builtin_questions_can_be_asked(taught: Transformer, tokenizer: Tokenizer) -> None:
    questions = list(builtin_questions(13))
    found = exact_answers(taught, tokenizer, questions, max_tokens=4)
    assert [answer.expected for answer in found.answers] == [question["answer"] for question in questions]
    assert len(found.overall.amounts) == 13


def test_no_questions_are_an_error(taught: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="no questions"):
        exact_answers(taught, tokenizer, [])
