"""A trace holds all that is needed to read a rollout, to score it again and to learn from it again."""

import json
import math
from pathlib import Path

import pytest

from minimind.data.prompts import Prompt
from minimind.errors import DataError
from minimind.rl.rollouts import Outcome, Rollout, Score, ToolResult
from minimind.rl.traces import Trace, TraceWriter, read_traces
from minimind.text.conversation import Conversation, Message, ToolCall

CALL = ToolCall("calculate_math", {"expression": "1 + 1"})
PROMPT = Prompt((Message("user", "一加一?"),), gt=("2",), where="data.jsonl:7")
MESSAGES = (Message("assistant", "", "hm", (CALL,)), Message("tool", "2"), Message("assistant", "2\u2028\r\n"))
OUTCOME = Outcome(PROMPT, MESSAGES, "stop", 2, (ToolResult(CALL, "2"),))


def rollout(place: int = 0, scored: Score | None = None) -> Rollout:
    scored = scored or Score(0.5, {"number": 1.0, "length": -0.5})
    return Rollout(place, 1, (1, 40, 2), (0.0, 1.0, 1.0), (0.0, -0.5, -0.25), OUTCOME, scored)


def test_a_rollout_reads_back_whole(tmp_path: Path) -> None:
    TraceWriter(tmp_path / "runs" / "traces.jsonl").write(3, [rollout(5)])
    [trace] = read_traces(tmp_path / "runs" / "traces.jsonl")
    assert trace == Trace.of(3, rollout(5))
    assert (trace.iteration, trace.place, trace.member, trace.where) == (3, 5, 1, "data.jsonl:7")
    read = Conversation.parse({"messages": trace.messages}, "trace").messages
    assert read[: trace.num_prompt] == PROMPT.messages and read[trace.num_prompt :] == MESSAGES
    assert trace.tool_results == [
        {"name": "calculate_math", "arguments": {"expression": "1 + 1"}, "text": "2", "failed": False}
    ]
    assert (trace.ids, trace.weights, trace.reward, trace.gt) == ([1, 40, 2], [0, 1, 1], 0.5, ["2"])


def test_a_rollout_without_a_score_says_why_and_stays_json(tmp_path: Path) -> None:
    failed = Score(math.nan, {"number": math.nan, "length": 0.0}, "reward_raised", "it broke")
    TraceWriter(tmp_path / "t.jsonl").write(0, [rollout(scored=failed)])
    text = (tmp_path / "t.jsonl").read_text(encoding="utf-8")
    assert "NaN" not in text and json.loads(text)["failure"] == "reward_raised"
    [trace] = read_traces(tmp_path / "t.jsonl")
    assert trace.reward is None and trace.parts == {"length": 0.0}


def test_every_so_many_iterations_are_written(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t.jsonl", every=3)
    for iteration in range(7):
        writer.write(iteration, [rollout(), rollout(1)])
    assert [trace.iteration for trace in read_traces(writer.path)] == [0, 0, 3, 3, 6, 6]


def test_a_run_that_goes_on_writes_nothing_twice(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t.jsonl")
    writer.rewind(4)
    for iteration in range(4):
        writer.write(iteration, [rollout(iteration)])
    with writer.path.open("a") as file:
        file.write('{"iteration": 4, "pl')
    assert len(list(read_traces(writer.path))) == 4, "a line still being written is no error"
    writer.rewind(1)
    writer.write(2, [rollout(2)])
    assert [trace.place for trace in read_traces(writer.path)] == [0, 1, 2]


def test_a_damaged_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    TraceWriter(path).write(0, [rollout()])
    with path.open("a") as file:
        file.write('{"iteration": 1}\n')
    with pytest.raises(DataError, match=r"t\.jsonl:2: is no trace of a rollout"):
        list(read_traces(path))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_traces(tmp_path / "none.jsonl"))
