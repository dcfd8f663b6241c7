"""Flags say what is not to be learnt, each as its convention means it; what cannot be followed is refused."""

from typing import Any

import pytest

from minimind.errors import DataError
from minimind.text.conversation import render
from minimind.text.flags import row_weight, weight_of
from minimind.text.messages import Conversation
from minimind.text.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("flags", "weight"),
    [
        ({}, 1),
        ({"weight": 0}, 0),
        ({"weight": 1}, 1),
        ({"weight": 0.0}, 0),
        ({"train": False}, 0),
        ({"training": False}, 0),
        ({"loss": False}, 0),
        ({"loss": True}, 1),
        ({"loss": None}, 1),
        ({"loss_scale": 0}, 0),
        ({"mask": True}, 0),
        ({"mask": False}, 1),
        ({"train": "false"}, 0),
        ({"weight": 0, "train": False, "mask": True}, 0),
    ],
)
def test_a_flag_means_what_its_convention_says(flags: dict[str, Any], weight: int) -> None:
    assert weight_of(flags) == weight


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"weight": 0.5}, "has weight 0.5; expected 0 or 1"),
        ({"train": "maybe"}, "has train 'maybe'"),
        ({"weight": 1, "train": False}, "contradict each other: weight 1, train False"),
        ({"train_detail": [{"begin_offset": 0}]}, "has train_detail, which flags parts of a message"),
    ],
)
def test_a_flag_that_cannot_be_followed_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as error:
        Conversation.parse({"messages": [{"role": "assistant", "content": "a", **flags}]}, "x:3")
    assert str(error.value).startswith("x:3: message 1 ") and words in str(error.value)


@pytest.mark.parametrize(
    ("row", "weight"),
    [
        ({"weight": 0}, 0),
        ({"train": False}, 0),
        ({"mask": True}, 0),
        ({"weight": 70.5}, 1),
        # A column of figures is no flag.
        ({"loss": 0.0}, 1),
        ({"mask": [0, 1]}, 1),
        ({}, 1),
    ],
)
def test_a_row_can_be_flagged_as_a_whole(row: dict[str, Any], weight: int) -> None:
    assert row_weight(row) == weight


def test_an_answer_flagged_off_is_context_and_the_next_one_is_learnt() -> None:
    tokenizer = Tokenizer.train(["how warm is it bad good answer " * 9], 300)
    asked, bad = {"role": "user", "content": "how"}, {"role": "assistant", "content": "bad", "weight": 0}
    chat = Conversation.parse({"messages": [asked, bad, asked, {"role": "assistant", "content": "good"}]}, "x:1")
    found = render(chat, tokenizer)
    learnt = [index for index, weight in zip(found.ids, found.weights, strict=True) if weight]
    assert tokenizer.decode(learnt) == "good<|im_end|>"
    assert (
        found.ids
        == render(
            Conversation.parse(
                {"messages": [asked, {**bad, "weight": 1}, asked, {"role": "assistant", "content": "good"}]}, "x:1"
            ),
            tokenizer,
        ).ids
    )
    assert Conversation.parse(chat.to_dict(), "x:1") == chat
