"""Answers are judged by what the row says is right, tables and figures say how it was, and broken rows are named."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import write_rows

from minimind.config import load
from minimind.errors import DataError
from minimind.generation.sampling import Sampling
from minimind.stages.evaluate.answers import draw_answers, open_question
from minimind.stages.evaluate.evaluate import EvaluateConfig, run
from minimind.stages.evaluate.evaluation import Evaluation
from minimind.storage.checkpoint import load_model
from minimind.tools.builtin import TOOLS

USER = {"role": "user", "content": "what is one?"}
TOOL = TOOLS["calculate_math"]
CALL = {"name": TOOL.name, "arguments": {"expression": "1"}}
TALK = [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "1"}]
TALK.append({"role": "assistant", "content": "one"})


def says(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        ({"conversations": [USER, says("")], "gt": ["72"]}, "It is 72.0.", "72 or 73"),
        ({"conversations": [USER, says("")], "gt": ["3", "4"]}, "4 and 3", "4"),
        ({"conversations": [USER, says("")], "gt": "Paris"}, " Paris\n", "Paris."),
        ({"messages": [USER, says("one 1")]}, "one 1", "1"),
        ({"messages": [USER], "answer": "one"}, "one", "One"),
    ],
)
def test_what_is_right_is_said_by_gt_by_answer_or_by_the_last_message(
    row: dict[str, Any], right: str, wrong: str
) -> None:
    question = open_question("a:1", row)
    assert question.is_right(right) and not question.is_right(wrong)
    assert [message.role for message in question.messages] == ["user"]


def test_reasoning_is_asked_for_where_the_row_has_some() -> None:
    assert open_question("a:1", {"messages": [USER, says("<think>so</think>one")]}).thinking
    assert not open_question("a:1", {"messages": [USER, says("one")]}).thinking


BROKEN = {
    "a:3: does not say what is right": {"messages": [USER, says("")]},
    "a:3: has 2 gt that are not all numbers": {"messages": [USER, says("")], "gt": ["1", "x"]},
    "a:3: gt holds 'True'": {"messages": [USER, says("")], "gt": [True]},
    "a:3: ends with system": {"messages": [{"role": "system", "content": "x"}, says("y")]},
    "a:3: does not say what is right; expected gt": {"question": "what is one?"},
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_row_that_cannot_be_asked_is_named(message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_question("a:3", BROKEN[message])


def test_every_power_of_two_is_estimated_and_the_number_that_was_drawn(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"messages": [USER, says("one")], "source": name} for name in ("first", "second")]
    found = Evaluation()
    sampling = Sampling(temperature=0.5, max_tokens=4)
    path = str(write_rows(tmp_path / "a.jsonl", rows))
    draw_answers(found, *load_model(tiny), [path], samples=6, sampling=sampling)
    assert list(found.figures) == ["pass@1", "pass@2", "pass@4", "pass@6"]
    assert [row[0] for row in found.tables[0]["rows"]] == ["first", "second", "all"]
    assert "6 drawn for each at temperature 0.5 and top_p 0.9" in capsys.readouterr().out


def test_questions_that_do_not_fit_are_told(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = load_model(tiny)
    long = {"role": "user", "content": "one " * model.config.max_position_embeddings}
    rows = [{"messages": [long, says("one")]}, {"messages": [USER, says("one")]}]
    path = str(write_rows(tmp_path / "a.jsonl", rows))
    draw_answers(Evaluation(), model, tokenizer, [path], samples=1, sampling=Sampling(max_tokens=4))
    assert "; 1 that do not fit the context count as wrong" in " ".join(capsys.readouterr().out.split())


def test_figures_are_written_and_compared_with_a_baseline(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talks = write_rows(tmp_path / "t.jsonl", [{"messages": TALK, "tools": [TOOL.schema]}] * 2)
    answers = write_rows(tmp_path / "a.jsonl", [{"messages": [USER, says("one")]}] * 2)
    options = {"model": str(tiny), "answers": str(answers), "tool_calls": str(talks), "samples": "2"}
    options |= {"sampling.max_tokens": "4", "out": str(tmp_path / "e.json")}
    run(load(EvaluateConfig, None, options))
    run(load(EvaluateConfig, None, options | {"baseline": str(tmp_path / "e.json")}))
    found = json.loads((tmp_path / "e.json").read_text())
    levels = [f"tool_calls, {level}" for level in ("well formed", "named", "right")]
    assert list(found["figures"]) == ["pass@1", "pass@2", *levels, "false_calls"]
    assert found["tables"][-1]["rows"][0][:3] == ["pass@1", 0, 0]
    assert capsys.readouterr().out.count("within noise") == 6
