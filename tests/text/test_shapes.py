"""Every public layout of rows is told by its columns, and the conversation wins where two fit."""

from typing import Any

import pytest

from minimind.text.shapes import SHAPES, find_shape, may_matter, present, shape_of, unread_columns

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"messages": TURNS}, "messages"),
        ({"conversations": TURNS, "text": "rendered"}, "messages"),
        ({"prompt": "q", "prompt_id": "x", "messages": TURNS}, "messages"),
        ({"messages": [], "instruction": "q", "output": "a"}, "Alpaca"),
        ({"instruction": "q", "input": "", "output": "a", "text": "rendered"}, "Alpaca"),
        ({"text": "t", "question": "q", "answer": "a"}, "text"),
        ({"prompt": "q", "completion": "a"}, "prompt and completion"),
        ({"prompt": "q", "completion": "a", "label": True}, "judged answers"),
        ({"messages": TURNS, "label": False}, "judged answers"),
        ({"conversations": TURNS, "kto_tag": True}, "judged answers"),
        ({"prompt": "q", "completion": "a", "label": "physics"}, "prompt and completion"),
        ({"prompt": "q", "completions": ["a"], "labels": [True]}, "judged steps"),
        ({"query": "q", "response": "a", "history": []}, "query and response"),
        ({"question": "q", "answer": "a"}, "question and answer"),
        ({"instruction": "q", "context": "", "response": "a", "category": "x"}, "Dolly"),
        ({"system_prompt": "s", "question": "q", "response": "a"}, "OpenOrca"),
        ({"system": "s", "question": "q", "chosen": "a", "rejected": "b"}, "pair"),
        ({"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}, "OpenAI preference"),
        ({"instruction": "q", "chosen_response": "a", "rejected_response": "b"}, "argilla pair"),
        ({"question": "q", "choices": ["a", "b"], "answer": 1}, "multiple choice"),
        ({"question": "q", "A": "a", "B": "b", "answer": "A"}, "multiple choice"),
        ({"good": "a", "bad": "b"}, "minimal pair"),
        ({"prompt": TURNS[:1], "reward_model": {"ground_truth": "1"}}, "prompt"),
        ({"input_ids": [1, 2]}, "token ids"),
    ],
)
def test_a_shape_is_told_by_its_columns(row: dict[str, Any], name: str) -> None:
    shape = shape_of(row)
    assert shape is not None and shape.name == name


def test_whoever_wants_one_kind_is_not_misled_by_the_others() -> None:
    row = {"messages": TURNS, "prompt": "q", "chosen": TURNS, "rejected": TURNS}
    for kind, name in (("conversation", "messages"), ("pair", "pair")):
        found = find_shape(row, kind)
        assert found is not None and found.name == name


def test_what_no_shape_has_is_none() -> None:
    assert shape_of({"content": "a"}) is None and shape_of({}) is None
    assert shape_of({"body": "a"}, "body") is not None


def test_null_is_absent() -> None:
    assert present({"messages": None, "text": "t"}) == {"text": "t"}
    assert present({"a": 0, "b": "", "c": []}) == {"a": 0, "b": "", "c": []}


def test_columns_that_are_not_read_are_named() -> None:
    row = {"instruction": "q", "output": "a", "loss_weights": [1], "id": 1}
    assert sorted(unread_columns(row, shape_of(row))) == ["id", "loss_weights"]
    text = {"text": "t", "weight": 0, "url": "x"}
    assert list(unread_columns(text, shape_of(text))) == ["url"]


def test_what_could_change_the_answers_matters_and_where_a_row_is_from_does_not() -> None:
    assert may_matter("loss_weights", "conversation") and may_matter("prefix", "conversation")
    assert not any(may_matter(name, "conversation") for name in ("id", "source", "lang", "prompt_id"))
    assert may_matter("token_mask", "text") and not may_matter("dump", "text")


def test_a_turn_names_its_two_columns_among_those_it_needs() -> None:
    assert all({shape.question, shape.answer} <= {*shape.needs, ""} for shape in SHAPES)
