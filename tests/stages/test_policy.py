"""GRPO, PPO and agents on a tiny model: each learns a trivial task, and goes on from any step to the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.stages.tiny_runs import outcome, policy_options, went_on, write_rows

from minimind.checkpoint import load_model
from minimind.rl.traces import read_traces
from minimind.run import RunReader

Command = Callable[..., int]

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
