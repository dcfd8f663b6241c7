"""Each rule gives what its docstring says, on the answers that it is meant to tell apart."""

import json
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.prompts import Prompt
from minimind.rl.rollouts import Outcome, ToolResult
from minimind.rl.rules import RULES, exact, length, number, repetition, tool_success, well_formed
from minimind.text.conversation import Message, ToolCall, parse_answer_ids
from minimind.text.tokenizer import RESERVED, Tokenizer

TOKENIZER = Tokenizer.train([], 292)


def outcome(
    text: str, *gt: str, thinking: bool = False, finish_reason: str = "stop", num_tokens: int = 10, **more: object
) -> Outcome:
    """An answer as a policy wrote it behind its prompt."""
    prompt = Prompt((Message("user", "?"),), gt=gt, thinking=thinking)
    answer = parse_answer_ids(TOKENIZER.encode_with_control(text), TOKENIZER, thinking)
    return Outcome(prompt, (answer,), finish_reason, num_tokens, **more)


def test_a_number_is_right_when_it_is_the_last_one() -> None:
    assert number(outcome("6 * 12 = 72", "72")) == 1
    assert number(outcome("72, I think, or 73", "72")) == 0
    assert number(outcome("nothing", "72")) == 0


def test_a_box_holds_the_answer_and_a_gt_in_words_is_compared_as_text() -> None:
    assert number(outcome(r"\boxed{72}, since 8 times 9 is that.", "72")) == 1
    assert number(outcome(r"\boxed{72}, since 8 times 9 is that.", "9")) == 0
    assert number(outcome(r"It is \boxed{Paris}.", "Paris")) == 1


def test_several_numbers_have_to_occur_all() -> None:
    assert number(outcome("They are 12 and 1,000.", "1000", "12")) == 1
    assert number(outcome("They are 12 and 100.", "1000", "12")) == 0


def test_neither_reasoning_nor_a_broken_call_is_an_answer() -> None:
    assert number(outcome("it is 72\n</think>\n\nI do not know", "72", thinking=True)) == 0
    assert number(outcome("it is 72", "72", thinking=True, finish_reason="length")) == 0
    assert number(outcome("hm\n</think>\n\n72", "72", thinking=True)) == 1
    assert number(outcome('<tool_call>\n{"name": 72\n</tool_call>', "72")) == 0
    assert number(outcome('<tool_call>\n{"name": "f", "arguments": {"x": 72}}\n</tool_call>', "72")) == 0


@pytest.mark.parametrize(
    ("text", "thinking", "expected"),
    [
        ("yes", False, 1),
        ("let me see\n</think>\n\nyes", True, 1),
        ("yes", True, 0),
        ("let me see\n</think>\n\nyes", False, 0),
        ("\n</think>\n\nyes", True, 0),
        ("let me see\n</think>\n\n", True, 0),
        ("<think>\nagain <think>\n</think>\n\nyes", True, 0),
        ("let me see\n</think>\n\nyes</think>", True, 0),
        ("", False, 0),
        (" \n", False, 0),
        ('<tool_call>\n{"name": "f"}\n</tool_call>', False, 0),
        ('yes <tool_call>\n{"name": \n</tool_call>', False, 0),
        ("yes</tool_response>", False, 0),
    ],
)
def test_an_answer_is_well_formed_when_it_thinks_as_asked_and_leaves_no_tag(
    text: str, thinking: bool, expected: float
) -> None:
    assert well_formed(outcome(text, thinking=thinking)) == expected
    assert well_formed(outcome(text, thinking=thinking, finish_reason="length")) == 0


# What ends a text is in none.
@pytest.mark.parametrize("tag", [tag for tag in RESERVED if TOKENIZER.control(tag) not in TOKENIZER.end_ids])
def test_no_control_token_may_be_left_in_an_answer(tag: str) -> None:
    assert well_formed(outcome(f"an answer {tag} goes on")) == 0


def test_every_turn_has_to_be_well_formed() -> None:
    call = ToolCall("f", {})
    calls, result, answer = Message("assistant", "", "", (call,)), Message("tool", "1"), Message("assistant", "1")
    prompt = Prompt((Message("user", "?"),))

    assert well_formed(Outcome(prompt, (calls, result, answer), "stop", 9)) == 1
    odd = Message("assistant", "<think>", "", (call,))
    assert well_formed(Outcome(prompt, (odd, result, answer), "stop", 9)) == 0
    assert well_formed(Outcome(prompt, (calls, result, calls), "stop", 9)) == 0
    assert well_formed(Outcome(prompt, (), "length", 0)) == 0


def test_exact_compares_the_text() -> None:
    assert exact(outcome(" Paris \n", "Paris")) == 1
    assert exact(outcome("Paris.", "Paris")) == 0


def test_length_costs_nothing_then_ever_more_then_all() -> None:
    def penalty(num_tokens: int, **parameters: int) -> float:
        return length(outcome("", num_tokens=num_tokens), **parameters)

    values = [penalty(count, max_tokens=100, buffer=20) for count in (0, 80, 85, 90, 100, 1000)]
    assert values == [0, 0, -0.25, -0.5, -1, -1]
    assert penalty(90, max_tokens=100) == pytest.approx(-0.6)
    assert [penalty(count, max_tokens=100, buffer=0) for count in (100, 101)] == [0, -1]


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("今天天气很好，" * 20, 6),
        ("我我我我我我我我我我我我我我我我我我我我", 6),
        ("the same words over and over " * 20, 6),
        ("abc" * 100, 6),
        ("a" * 500, 6),
        ("\n- item" * 40, 6),
        ("=" * 100, 6),
        ("12121212121212121212121212", 6),
    ],
)
def test_loops_are_seen_with_spaces_and_without(text: str, n: int) -> None:
    assert -1 <= repetition(outcome(text), n=n) < -0.6
    reasoning = outcome(f"{text}\n</think>\n\nyes", thinking=True)
    assert repetition(reasoning, n=n) < -0.6


def test_short_and_varied_answers_cost_nothing() -> None:
    for text in (
        "",
        "哈哈",
        "yes yes yes",
        "The cat sat on the mat, and the dog on the log.",
        "床前明月光，疑是地上霜。",
    ):
        assert repetition(outcome(text)) == 0


@given(st.text(max_size=80), st.integers(1, 8))
def test_repetition_is_a_penalty_of_at_most_one(text: str, n: int) -> None:
    once, twice = (repetition(outcome(words), n=n) for words in (text, f"{text} {text}"))
    assert -1 <= once <= 0
    assert twice <= once or not text.strip()


def test_real_answers_repeat_little(shared: Path) -> None:
    lines = (shared / "data" / "sft_valid.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["conversations"][-1]["content"] for line in lines]
    penalties = [repetition(outcome(answer)) for answer in answers]

    assert mean(penalties) > -0.02
    assert sum(penalty < -0.2 for penalty in penalties) <= len(penalties) // 50
    # The same answers three times over are loops, in either language.
    assert all(repetition(outcome(answer * 3)) < -0.4 for answer in answers if len(answer) > 60)


def made(*calls: tuple[int, bool]) -> dict[str, tuple[ToolResult, ...]]:
    results = (ToolResult(ToolCall("f", {"x": x}), "", failed) for x, failed in calls)
    return {"tool_results": tuple(results)}


@pytest.mark.parametrize(
    ("calls", "num_expected", "expected"),
    [
        ([], 1, 0),
        ([(1, False)], 1, 1),
        ([(1, True)], 1, 0),
        ([(1, True), (2, False)], 1, 1 / 2),
        ([(1, False)], 2, 1 / 2),
        ([(1, False), (2, False)], 2, 1),
        ([(1, False), (2, False), (3, False)], 2, 1),
        # The same call again is no second success.
        ([(1, False), (1, False)], 2, 1 / 2),
        ([(1, False), (2, True), (3, True)], 2, 1 / 4),
    ],
)
def test_tools_pay_for_each_expected_call_that_succeeded(
    calls: list[tuple[int, bool]], num_expected: int, expected: float
) -> None:
    assert tool_success(outcome("", *["1"] * num_expected, **made(*calls))) == expected


@pytest.mark.parametrize(
    ("name", "gt", "problem"),
    [
        ("number", (), "has no gt"),
        ("number", ("72",), ""),
        ("number", ("72", "many"), "has 2 gt, of which 'many' is no number"),
        ("number", ("Paris",), ""),
        ("exact", (), "has 0 gt where one is expected"),
        ("exact", ("a", "b"), "has 2 gt where one is expected"),
        ("tools", (), "has no gt"),
        ("format", (), ""),
        ("length", (), ""),
        ("repetition", (), ""),
    ],
)
def test_a_rule_says_what_it_cannot_score(name: str, gt: tuple[str, ...], problem: str) -> None:
    assert RULES[name].problem(Prompt((Message("user", "?"),), gt=gt)) == problem


def test_real_prompts_can_be_scored_and_their_own_answers_are_right(shared: Path) -> None:
    for line in (shared / "data" / "rl_math_valid.jsonl").read_text(encoding="utf-8").splitlines():
        [gt] = json.loads(line)["gt"]
        assert not RULES["number"].problem(Prompt((), gt=(gt,)))
        assert number(outcome(f"So the answer is **{gt}**.", gt)) == 1
