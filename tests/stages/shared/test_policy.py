"""GRPO, PPO and agents on a tiny model: each learns a trivial task, and goes on from any step to the same bits."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.stages.tiny_runs import outcome, policy_options, went_on
from tests.tiny import write_rows

from minimind.rl.traces import read_traces
from minimind.storage.checkpoint import load_model
from minimind.storage.run import RunReader

Command = Callable[..., int]

# A reward that fails while a file says so: in training at the second set, or at the second validation.
FAILING = """
import os

calls = 0

def reward(outcome):
    global calls
    calls += 1
    with open(os.environ["FAILING"]) as file:
        place = file.read()
    # 36 answers are scored at each validation, which is at 0 and 2, and 12 at each step.
    if calls > {"training": 48, "validation": 60}.get(place, 10**9):
        raise RuntimeError("out of order")
    return float(calls % 3)
"""

STAGES = {
    "grpo": ("grpo", {}),
    "cispo with a reference": ("grpo", {"grpo.loss": "cispo", "grpo.kl_coefficient": 0.01}),
    "dr_grpo on an adapter": ("grpo", {"grpo.loss": "dr_grpo", "lora.rank": 4}),
    "ppo": ("ppo", {"rollout.group": 1, "rollout.prompts": 9}),
    "agent": ("agent", {"grpo.loss": "dapo"}),
}


@pytest.fixture(scope="module", params=STAGES)
def run(
    request: pytest.FixtureRequest, command: Command, tiny: Path, prompts: Path, rewards: str, tmp_path_factory: Any
) -> tuple:
    verb, changes = STAGES[request.param]
    chosen = policy_options(tiny, prompts, tmp_path_factory.mktemp("policy") / "run", **changes)
    assert command(verb, chosen) == 0
    return verb, chosen


def test_the_first_update_on_each_set_has_ratio_one(run: tuple) -> None:
    rows = RunReader(run[1]["run"]).metrics()
    for row in rows[1::2]:
        assert row["ratio"] == 1.0 and row["clip_fraction"] == 0.0
    assert any(row["ratio"] != 1.0 for row in rows[2::2])


def test_what_was_sampled_is_what_is_learnt(run: tuple) -> None:
    rows = RunReader(run[1]["run"]).metrics()
    assert max(row["sampling_gap"] for row in rows[1:]) < 1e-5
    assert {"reward", "pass_rate", "valid_pass_at_1", "valid_pass_at_2"} <= rows[-1].keys()


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_stopped_run_goes_on_to_the_same_bits(run: tuple, command: Command, step: int) -> None:
    verb, chosen = run
    assert outcome(went_on(command, verb, chosen, step)) == outcome(chosen["run"])


def test_traces_replay_what_was_sampled(run: tuple) -> None:
    _, chosen = run
    _, tokenizer = load_model(chosen["model"])
    traces = list(read_traces(chosen["run"] / "rollouts-rank0.jsonl"))
    assert len(traces) == 3 * 12 if run[0] != "ppo" else 3 * 9
    for trace in traces:
        sampled = [token for token, weight in zip(trace.ids, trace.weights, strict=True) if weight]
        said = [message for message in trace.messages[trace.num_prompt :] if message["role"] == "assistant"]
        assert sampled and said[-1]["content"] in tokenizer.decode(sampled)


@pytest.mark.parametrize(
    ("verb", "changes", "message"),
    [
        ("grpo", {"rollout.rewards": "numbr"}, "numbr"),
        ("grpo", {"rollout.rewards": "tiny_rewards:nothing"}, "nothing"),
        ("agent", {"tools": "rocket"}, "tools has 'rocket'; expected some of calculate_math"),
        ("grpo", {"rollout.rewards": "tiny_rewards:broken", "rollout.prompts": 9}, "out of order"),
        ("agent", {"rollout.group": 1}, "rollout.group is 1; expected 2 or more"),
        ("grpo", {"data.context": 16}, "no prompt leaves room for an answer in a context of 16"),
    ],
)
def test_a_mistake_is_one_clear_line(
    command: Command,
    tiny: Path,
    prompts: Path,
    rewards: str,
    tmp_path: Path,
    capsys: Any,
    verb: str,
    changes: dict,
    message: str,
) -> None:
    assert command(verb, policy_options(tiny, prompts, tmp_path / "run", **changes)) != 0
    assert message in capsys.readouterr().err


def test_a_prompt_without_what_is_right_is_named(command: Command, tiny: Path, tmp_path: Path, capsys: Any) -> None:
    path = write_rows(tmp_path / "p.jsonl", [{"messages": [{"role": "user", "content": "who?"}]}])
    chosen = policy_options(tiny, path, tmp_path / "run", **{"rollout.rewards": "number"})
    assert command("grpo", chosen) == 2
    assert f"{path}:1: has no gt" in capsys.readouterr().err


def test_a_prompt_without_what_is_right_will_do_where_no_reward_asks(
    command: Command, tiny: Path, rewards: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "p.jsonl", [{"messages": [{"role": "user", "content": "who?"}]}])
    changes = {"rollout.prompts": 1, "rollout.updates": 1, "train.steps": 1}
    assert command("grpo", policy_options(tiny, path, tmp_path / "run", **changes)) == 0


def test_other_prompts_under_the_same_name_are_refused(
    command: Command, tiny: Path, prompts: Path, rewards: str, tmp_path: Path, capsys: Any
) -> None:
    own = tmp_path / "prompts.jsonl"
    own.write_bytes(prompts.read_bytes())
    chosen = policy_options(tiny, own, tmp_path / "run", **{"train.steps": 1, "rollout.updates": 1})
    assert command("grpo", chosen) == 0
    assert command("grpo", chosen) == 0, "nothing has changed yet"
    own.write_text("\n".join(own.read_text(encoding="utf-8").splitlines()[:-1]) + "\n", encoding="utf-8")
    assert command("grpo", chosen) == 2
    assert f"{tmp_path / 'run'}: data.source is no longer what this run began with" in capsys.readouterr().err


def test_the_last_pass_rates_are_kept_whatever_the_cadence(
    command: Command, tiny: Path, prompts: Path, rewards: str, tmp_path: Path
) -> None:
    changes = {"train.steps": 4, "train.log_every": 100, "train.valid_every": 2, "train.checkpoint_every": 100}
    assert command("grpo", policy_options(tiny, prompts, tmp_path / "run", **changes)) == 0
    run = RunReader(tmp_path / "run")
    assert [row["step"] for row in run.metrics()] == [0, 2, 4]
    finished = run.finished()
    assert finished is not None and finished == run.metrics()[-1] and "valid_pass_at_2" in finished


def test_prompts_that_fill_the_context_are_left_out_and_answers_stay_within_it(
    command: Command, tiny: Path, rewards: str, tmp_path: Path, capsys: Any
) -> None:
    rows = [{"messages": [{"role": "user", "content": text}]} for text in ("who?", "who? " * 90, "what?")]
    path = write_rows(tmp_path / "p.jsonl", rows)
    changes = {"data.context": 80, "rollout.max_tokens": 100, "rollout.prompts": 2, "train.steps": 2}
    assert command("grpo", policy_options(tiny, path, tmp_path / "run", **changes)) == 0
    assert "left out of data.source: 1 prompts that fill the context of 80" in capsys.readouterr().err
    lengths = [len(trace.ids) for trace in read_traces(tmp_path / "run" / "rollouts-rank0.jsonl")]
    assert lengths and max(lengths) == 80


@pytest.mark.parametrize("fails_in", ["training", "validation"])
def test_what_was_learnt_before_a_reward_failed_is_not_lost(
    command: Command, tiny: Path, prompts: Path, rewards: str, tmp_path: Path, capsys: Any, fails_in: str
) -> None:
    """The same command goes on when the reward is mended, and every figure is there."""
    changes = {"train.steps": 3, "train.valid_every": 2, "train.checkpoint_every": 100, "rollout.updates": 1}
    changes |= {"data.valid_samples": 12, "rollout.rewards": "failing:reward"}
    chosen = policy_options(tiny, prompts, tmp_path / "run", **changes)
    (tmp_path / "failing.py").write_text(FAILING)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.delitem(sys.modules, "failing", raising=False)
        (tmp_path / "fail").write_text(fails_in)
        patch.setenv("FAILING", str(tmp_path / "fail"))
        assert command("grpo", chosen) == 2
        run = RunReader(tmp_path / "run")
        assert [folder.name for folder in run.checkpoint_folders()] == [
            "step-000001" if fails_in == "training" else "step-000002"
        ]
        (tmp_path / "fail").write_text("")
        assert command("grpo", chosen) == 0
    rows = {row["step"]: row for row in run.metrics()}
    assert rows.keys() == {0, 1, 2, 3} and all("valid_pass_at_1" in rows[step] for step in (0, 2, 3))
    assert "valid_reward" in rows[3]
