"""`minimind agent` learns from dialogues with tools: the policy's own tokens have weight, what tools say has none."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.stages.tiny_runs import policy_options
from tests.tiny import write_rows

from minimind.rl.traces import read_traces
from minimind.storage.checkpoint import load_model
from minimind.storage.run import RunReader


@pytest.fixture(scope="module")
def caller(command: Callable[..., int], tiny: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was taught to call the calculator and to repeat what it says."""
    folder = tmp_path_factory.mktemp("caller")
    rows = []
    for line in prompts.read_text().splitlines():
        row = json.loads(line)
        [gt] = row["gt"]
        call = [{"name": "calculate_math", "arguments": {"expression": f"{int(gt) - 1} + 1"}}]
        talk = [
            *row["conversations"][:2],
            {"role": "assistant", "content": "", "tool_calls": call},
            {"role": "tool", "content": f'{{"result": {gt}}}'},
            {"role": "assistant", "content": gt},
        ]
        rows.append({"conversations": talk})
    chats = write_rows(folder / "chats.jsonl", rows)
    options = {"run": folder / "sft", "model": tiny, "data.source": chats, "data.context": 1024}
    assert command("sft", {**options, "train.steps": 120, "train.batch_tokens": 4096, "train.valid_every": 120}) == 0
    return folder / "sft"


def test_tools_are_called_and_their_results_have_no_weight(
    command: Callable[..., int], caller: Path, prompts: Path, tmp_path: Path
) -> None:
    changes = {
        "train.steps": 2,
        "rollout.max_tokens": 96,
        "rollout.temperature": 0.5,
        "rollout.rewards": ["number", "tools=0.2"],
    }
    assert command("agent", policy_options(caller, prompts, tmp_path / "run", **changes)) == 0
    _, tokenizer = load_model(caller)
    called = [trace for trace in read_traces(tmp_path / "run" / "rollouts-rank0.jsonl") if trace.tool_results]
    assert called
    for trace in called:
        learnt = tokenizer.decode([token for token, weight in zip(trace.ids, trace.weights, strict=True) if weight])
        assert "<tool_call>" in learnt and "<tool_response>" not in learnt
        # The end of every turn of the policy is learnt: two turns, two ends.
        ends = [w for token, w in zip(trace.ids, trace.weights, strict=True) if token == tokenizer.eos_id and w]
        assert len(ends) >= 2 or trace.finish_reason == "length"
    assert RunReader(tmp_path / "run").metrics()[1]["tool_calls"] > 0
