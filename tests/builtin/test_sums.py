"""Sums whose answers are right, and whose held-out values no training row asks about."""

import re

import pytest

from minimind.builtin.corpus import builtin_rows
from minimind.data.prompts import read_prompts


def values(name: str) -> set[tuple[str, frozenset[int]]]:
    """The operator and the two numbers of each question."""
    found = set()
    for row in builtin_rows(name):
        question = row["conversations"][0]["content"]
        operator = "+" if re.search(r"plus|加|\+", question) else "-"
        found.add((operator, frozenset(map(int, re.findall(r"\d+", question)))))
    return found


@pytest.mark.parametrize("name", ["sums", "held-out-sums"])
def test_every_answer_is_right(name: str) -> None:
    for row in builtin_rows(name):
        question, answer = (message["content"] for message in row["conversations"])
        a, b = map(int, re.findall(r"\d+", question))
        assert int(answer) == (a + b if re.search(r"plus|加|\+", question) else a - b) >= 0
        assert row["gt"] == [answer]


def test_no_held_out_sum_is_asked_in_training() -> None:
    assert not values("sums") & values("held-out-sums")


def test_rows_serve_reinforcement_learning_without_their_answers() -> None:
    prompts = read_prompts(["builtin://held-out-sums"])
    assert len(prompts) == 200
    assert all(prompt.gt and prompt.messages[-1].role == "user" for prompt in prompts)
