"""`minimind ppo` makes what is rewarded likelier, and its critic comes to expect the reward."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from tests.stages.tiny_runs import policy_options

from minimind.storage.run import RunReader


def test_policy_and_critic_learn(
    command: Callable[..., int], tiny: Path, prompts: Path, rewards: str, tmp_path: Path
) -> None:
    changes = {"train.steps": 40, "rollout.prompts": 9, "rollout.group": 4, "train.valid_every": 40}
    assert command("ppo", policy_options(tiny, prompts, tmp_path / "run", **changes)) == 0
    rows = RunReader(tmp_path / "run").metrics()
    before, after = (sum(row["reward"] for row in part) / 5 for part in (rows[1:6], rows[-5:]))
    assert after > before + 0.2
    # What the critic misses is less than what it would miss if it expected nothing.
    assert rows[-1]["value_error"] < rows[-1]["returns_squared"]
    latest = tmp_path / "run" / "checkpoints" / "latest"
    assert load_file(latest / "training_state" / "value_head.safetensors")["weight"].abs().max() > 0
    # vLLM and SGLang take every file of weights that lies beside config.json for the model's.
    assert [path.name for path in latest.glob("*.safetensors")] == ["model.safetensors"]


def test_the_kl_limit_ends_a_set_of_answers_early(
    command: Callable[..., int], tiny: Path, prompts: Path, rewards: str, tmp_path: Path
) -> None:
    changes = {"train.steps": 8, "rollout.updates": 4, "ppo.kl_limit": 1e-9}
    assert command("ppo", policy_options(tiny, prompts, tmp_path / "run", **changes)) == 0
    fresh = [row["step"] for row in RunReader(tmp_path / "run").metrics()[1:] if row["ratio"] == 1.0]
    # The first update on a set moves nothing yet, the second sees the policy past the limit.
    assert fresh == [1, 3, 5, 7]
