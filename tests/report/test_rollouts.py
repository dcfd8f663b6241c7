"""Rollouts become a small table: one answer to each of a few prompts, at both ends of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from minimind.errors import DataError
from minimind.report.rollouts import MAX_PROMPTS, rollout_table
from minimind.report.summary import Summary
from minimind.rl.traces import Trace


def line(iteration: int, place: int, member: int = 0, **changes: Any) -> str:
    question = {"role": "user", "content": f"question {place}"}
    answer = {"role": "assistant", "content": f"answer {iteration}.{place}.{member}"}
    values = dict(
        iteration=iteration, place=place, member=member, where="x.jsonl:1", messages=[question, answer], num_prompt=1,
        gt=[], tool_results=[], finish_reason="stop", reward=0.5, parts={}, failure="", ids=[1], weights=[1.0],
    )  # fmt: skip
    return json.dumps(vars(Trace(**values | changes))) + "\n"  # type: ignore[arg-type]


def test_a_run_without_rollouts_has_no_table(tmp_path: Path) -> None:
    assert rollout_table(tmp_path) is None
    (tmp_path / "rollouts-rank0.jsonl").write_text(line(0, 0)[:20])
    assert rollout_table(tmp_path) is None


def test_one_answer_a_prompt_of_the_first_and_the_last_set_over_all_processes(tmp_path: Path) -> None:
    for rank in (0, 1):
        lines = [line(i, 8 * i + p, m) for i in range(4) for p in range(8) for m in range(rank, 4, 2)]
        (tmp_path / f"rollouts-rank{rank}.jsonl").write_text("".join(lines))
    table = rollout_table(tmp_path)
    assert table is not None and table.columns == ["set", "question", "answer", "reward"]
    expected = [(i, 8 * i + p) for i in (0, 3) for p in range(MAX_PROMPTS)]
    assert table.rows == [[str(i), f"question {p}", f"answer {i}.{p}.0", "0.5"] for i, p in expected]
    assert table.numeric == {0, 3}
    assert Summary(tmp_path, "x").tables == [table]


def test_calls_what_is_right_and_why_a_reward_is_missing_are_told(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {}}]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "长" * 1000},
    ]
    calls = [{"name": "calculate_math", "arguments": {"expression": "1 + 1"}, "text": "2", "failed": False}]
    (tmp_path / "rollouts-rank0.jsonl").write_text(
        line(0, 0, messages=messages, tool_results=calls, gt=["2"], reward=None, failure="timeout")
        + line(0, 1, messages=messages[:2])
    )
    table = rollout_table(tmp_path)
    assert table is not None and table.columns == ["set", "question", "tools", "answer", "expected", "reward"]
    assert table.rows == [
        ["0", "1 + 1?", 'calculate_math(expression="1 + 1") = 2', "长" * 300 + "…", "2", "dropped: timeout"],
        ["0", "1 + 1?", "", "(calls only)", "", "0.5"],
    ]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "rollouts-rank0.jsonl").write_text(line(0, 0) + '{"iteration": 1}\n')
    with pytest.raises(DataError, match=r"rollouts-rank0.jsonl:2: is no trace of a rollout"):
        rollout_table(tmp_path)
