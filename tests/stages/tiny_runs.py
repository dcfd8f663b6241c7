"""What a tiny run came to, and a copy of it that goes on from an earlier step."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minimind.storage.run import RunReader

TIMED = {"seconds", "tokens_per_second", "step_seconds", "seconds_generation", "seconds_scoring", "seconds_logprobs"}


# A module of rewards, to be imported by name.
REWARDS = '''
def digits(outcome):
    """How much of the answer is digits."""
    text = outcome.answer.content
    return sum(c.isdigit() for c in text) / max(len(text), 1)

def broken(outcome):
    raise RuntimeError("out of order")
'''


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """All metrics of a run that do not depend on time, and the hashes of its last checkpoint."""
    rows = [{k: v for k, v in row.items() if k not in TIMED} for row in RunReader(folder).metrics()]
    latest = folder / "checkpoints" / "latest"
    tensors = sorted(latest.glob("*.safetensors"))
    return rows, {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tensors}


def went_on(command: Callable[..., int], verb: str, options: dict[str, Any], step: int) -> Path:
    """Of a finished run with a checkpoint at each step, a copy that went on from `step`."""
    whole = Path(options["run"])
    again = whole.with_name(f"{whole.name}-from-{step}")
    shutil.copytree(whole, again, symlinks=True)
    for folder in RunReader(again).checkpoint_folders():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    (again / "checkpoints" / "latest").unlink()
    assert command(verb, {**options, "run": again}) == 0
    return again


def policy_options(tiny: Path, prompts: Path, run: Path, **changes: Any) -> dict[str, Any]:
    return {
        "run": run,
        "model": tiny,
        "data.source": prompts,
        "data.valid": prompts,
        "data.max_valid": 3,
        "data.valid_samples": 2,
        "rollout.prompts": 3,
        "rollout.group": 4,
        "rollout.updates": 2,
        "rollout.max_tokens": 8,
        "rollout.rewards": "tiny_rewards:digits",
        "train.steps": 6,
        "train.lr": 0.01,
        "train.embedding_lr": 0.01,
        "train.valid_every": 3,
        "train.checkpoint_every": 1,
        "train.keep_checkpoints": 9,
        **changes,
    }
