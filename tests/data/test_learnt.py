"""An empty answer teaches nothing, a flag is followed, and `last` leaves the earlier answers as context."""

from collections import Counter

import pytest

from minimind.data.learnt import Learn, reason_not_to_learn, says_something, with_weights
from minimind.text.messages import Conversation, Message, ToolCall

USER = Message("user", "q")


def chat(*answers: Message) -> Conversation:
    return Conversation(tuple(message for answer in answers for message in (USER, answer)))


def answer(text: str, weight: int = 1) -> Message:
    return Message("assistant", text, weight=weight)


@pytest.mark.parametrize(
    ("learn", "answers", "weights", "reasons"),
    [
        ("all", [answer("a"), answer("b")], [1, 1], {}),
        ("last", [answer("a"), answer("b")], [0, 1], {"answers before the last": 1}),
        ("all", [answer(""), answer("b")], [0, 1], {"empty answers": 1}),
        ("all", [answer("a", 0), answer("b")], [0, 1], {"answers flagged off or given as context": 1}),
        ("last", [answer("a"), answer(" \n")], [0, 0], {"answers before the last": 1, "empty answers": 1}),
    ],
)
def test_each_answer_that_is_not_learnt_has_a_reason(
    learn: Learn, answers: list[Message], weights: list[int], reasons: dict[str, int]
) -> None:
    found, counted = with_weights(chat(*answers), learn)
    assert [message.weight for message in found.messages if message.role == "assistant"] == weights
    assert counted == Counter(reasons)


def test_a_conversation_of_which_nothing_is_learnt_says_why() -> None:
    assert reason_not_to_learn(chat(answer("a"))) == ""
    assert reason_not_to_learn(chat(answer(""))) == reason_not_to_learn(Conversation((USER,))) == "no_answer"
    assert reason_not_to_learn(chat(answer("a", 0))) == "not_to_be_learnt"


def test_calls_and_reasoning_say_something() -> None:
    assert says_something(Message("assistant", "", "because"))
    assert says_something(Message("assistant", "", "", (ToolCall("f", {}),)))
    assert not says_something(Message("assistant", " "))
