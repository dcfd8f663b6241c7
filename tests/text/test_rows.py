"""Rows of every shape give the same messages, prompts are context, and no question is dropped."""

from typing import Any

import pytest

from minimind.errors import DataError
from minimind.text.messages import Conversation, Message
from minimind.text.rows import dialogue, raw_messages, said_in, unread_keys

ASKED, ANSWERED = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def said(row: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(m.role, m.content, m.weight) for m in Conversation.parse(row, "x:1").messages]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"prompt": [ASKED], "completion": [ANSWERED]},
        {"prompt": [ASKED], "completion": ANSWERED},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "completion": " a"},
        {"query": "q", "response": "a", "history": None},
        {"question": "q", "answer": "a"},
        {"instruction": "q", "context": "", "response": "a", "category": "x"},
        {"problem": "q", "solution": "a"},
        {"conversation": [{"input": "q", "output": "a"}]},
        {"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'},
        {"messages": [{"from": "Human", "value": "q"}, {"from": "GPT", "value": "a"}]},
    ],
)
def test_every_shape_of_a_single_turn_is_a_question_and_an_answer(row: dict[str, Any]) -> None:
    found = said(row)
    assert [(role, text.strip(), weight) for role, text, weight in found] == [("user", "q", 1), ("assistant", "a", 1)]


def test_an_answer_that_a_prompt_quotes_is_context() -> None:
    row = {"prompt": [ASKED, ANSWERED, {"role": "user", "content": "why?"}], "completion": "so"}
    assert [weight for role, _, weight in said(row) if role == "assistant"] == [0, 1]


def test_an_answer_of_a_history_is_learnt() -> None:
    row = {"query": "why?", "response": "so", "history": [["q", "a"]]}
    assert [weight for role, _, weight in said(row) if role == "assistant"] == [1, 1]
    assert said(row) == said({**row, "history": [ASKED, ANSWERED]}) == said({**row, "history": '[["q", "a"]]'})


def test_what_a_question_is_asked_of_stands_behind_it() -> None:
    assert said({"instruction": "sum up", "context": "a text", "response": "a"})[0][1] == "sum up\na text"
    assert said({"question": "who?", "context": "a text", "answer": "a"})[0][1] == "who?\na text"


def test_a_number_is_an_answer() -> None:
    assert said({"question": "1+1?", "answer": 2})[1] == ("assistant", "2", 1)


def test_reasoning_in_a_column_of_its_own_is_the_answers() -> None:
    row = {"question": "q", "reasoning": "because", "answer": "a"}
    assert Conversation.parse(row, "x:1").messages[1] == Message("assistant", "a", "because")


def test_a_system_prompt_said_twice_is_there_once() -> None:
    system = {"role": "system", "content": "s"}
    assert said({"messages": [system, ASKED], "system": "s"}) == said({"messages": [ASKED], "system_prompt": "s"})
    with pytest.raises(DataError, match="system prompts in two places that differ"):
        said({"messages": [system, ASKED], "system": "other"})


def test_a_prompt_alone_is_its_question() -> None:
    assert [raw.value for raw in raw_messages({"prompt": "q"}, "x:1")] == [ASKED]


def test_a_dialogue_in_one_text_is_taken_apart() -> None:
    text = "\n\nHuman: Hi\n\nAssistant: Hello\nyou\n\nHuman: Why?\n\nAssistant: So."
    assert [message["content"] for message in dialogue(text)] == ["Hi", "Hello\nyou", "Why?", "So."]
    assert dialogue("\n\nHuman: Hi\n\nAssistant:") == [{"role": "user", "content": "Hi"}]
    assert dialogue("Be kind.\n\nHuman: Hi")[0] == {"role": "system", "content": "Be kind."}
    assert said_in("just\n\nHuman: text", "user") == [{"role": "user", "content": "just\n\nHuman: text"}]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": "[{"}, "has messages as a text that is not JSON"),
        ({"messages": "hi"}, "has no list 'messages' or 'conversations': messages is a str"),
        ({"conversation": [{"input": "q", "output": "a"}, ASKED]}, "mixes turns"),
        ({"instruction": [ASKED], "input": "x", "output": "a"}, "not both texts"),
        ({"chosen": "a", "rejected": "b"}, "its keys are 'chosen', 'rejected'"),
    ],
)
def test_what_is_no_such_row_is_named(row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=r"^x:1: the row ") as error:
        Conversation.parse(row, "x:1")
    assert words in str(error.value)


def test_keys_of_messages_that_are_not_read_are_named_each_time() -> None:
    row = {"messages": [{**ASKED, "prefix": True}, {**ANSWERED, "prefix": True, "channel": None, "name": "x"}]}
    assert list(unread_keys(row)) == ["prefix", "prefix"]
