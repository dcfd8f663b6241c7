"""Pairs of every public shape are the same two conversations, and none comes without what was asked."""

from typing import Any

import pytest

from minimind.data.pair_rows import pair_of_conversations
from minimind.errors import DataError

ASKED, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
)
TURN = {"from": "human", "value": "q"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"question": "q", "chosen": "a", "rejected": "b"},
        {"input": "q", "chosen": "a", "rejected": "b", "history": []},
        {"instruction": "q", "chosen_response": "a", "rejected_response": "b"},
        {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "q", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "messages": [ASKED, GOOD]},
        {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"chosen": "Human: q\n\nAssistant: a", "rejected": "Human: q\n\nAssistant: b"},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "a", "rejected": "b"},
        {"conversations": [TURN], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
        {"input": {"messages": [ASKED], "tools": []}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        {"messages": [ASKED, GOOD], "rejected_response": "b"},
        {"messages": [ASKED, GOOD], "rejected_messages": [ASKED, BAD]},
    ],
)
def test_every_shape_is_a_question_with_two_answers(row: dict[str, Any]) -> None:
    chosen, rejected = pair_of_conversations(row)
    assert [(message.role, message.content) for message in chosen.messages] == [("user", "q"), ("assistant", "a")]
    assert [(message.role, message.content) for message in rejected.messages] == [("user", "q"), ("assistant", "b")]


def test_a_system_prompt_and_an_input_beside_the_question_are_kept() -> None:
    row = {"system": "s", "instruction": "sum up", "input": "a text", "chosen": "a", "rejected": "b"}
    for side in pair_of_conversations(row):
        assert [message.content for message in side.messages[:2]] == ["s", "sum up\na text"]


def test_the_last_answer_of_a_dialogue_is_the_one_that_is_compared() -> None:
    before = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
    chosen, rejected = pair_of_conversations({"chosen": f"{before} Because.", "rejected": f"{before} No."})
    assert chosen.messages[:-1] == rejected.messages[:-1] and len(chosen.messages) == 4
    assert (chosen.messages[-1].content, rejected.messages[-1].content) == ("Because.", "No.")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": "a", "rejected": "b"}, "chosen has the roles assistant; expected a prompt"),
        ({"system": "s", "chosen": "a", "rejected": "b"}, "has an answer and nothing that was asked"),
        ({"prompt": "q", "chosen": "a"}, "has no 'rejected'"),
        ({"prompt": "q", "completion": "a", "label": True}, "judged alone (KTO)"),
        ({"messages": [ASKED, GOOD], "label": False}, "judged alone (KTO)"),
        ({"input": "q", "preferred_output": [GOOD], "non_preferred_output": [BAD]}, "an input without messages"),
        ({"prompt": 5, "chosen": "a", "rejected": "b"}, "content of type int"),
        ({"chosen": "\n\nHuman: q", "rejected": "\n\nHuman: q"}, "chosen has the roles user"),
    ],
)
def test_never_a_pair_without_what_was_asked(row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as error:
        pair_of_conversations(row)
    assert words in str(error.value)
