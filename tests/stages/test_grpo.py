"""`minimind grpo` makes what is rewarded likelier, with each of its losses."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.stages.tiny_runs import policy_options

from minimind.storage.run import RunReader


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "cispo"])
def test_a_trivial_task_is_learnt(
    command: Callable[..., int], tiny: Path, prompts: Path, rewards: str, tmp_path: Path, loss: str
) -> None:
    changes = {"train.steps": 25, "rollout.updates": 1, "train.valid_every": 30, "rollout.group": 8, "grpo.loss": loss}
    assert command("grpo", policy_options(tiny, prompts, tmp_path / "run", **changes)) == 0
    rows = RunReader(tmp_path / "run").metrics()
    before, after = (sum(row["reward"] for row in part) / 5 for part in (rows[1:6], rows[-5:]))
    assert after > before + 0.2
