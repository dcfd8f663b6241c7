"""Two processes = one, for every stage after fine-tuning: the same pairs, rows and rollouts give the same steps.

`test_ranks.py` proves it for the trainer; here whole commands run, as `torchrun` would start them.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.stages.tiny_runs import REWARDS, policy_options
from tests.tiny import random_model, write_rows

import minimind
from minimind.cli import main
from minimind.data.prepare import PrepareOptions, prepare
from minimind.storage.checkpoint import save_checkpoint
from minimind.storage.run import RunReader
from minimind.text.tokenizer import Tokenizer

QUICK = {"train.dtype": "float32", "train.device": "cpu", "train.compile": "off", "train.warmup_steps": 1}
# What one process and two compute in another order, and what no order may change.
FIGURES = ("loss", "gradient_norm", "accuracy", "margin", "kl", "reward", "pass_rate", "answer_tokens", "ratio")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its teacher, and something to learn for each stage."""
    folder = tmp_path_factory.mktemp("processes")
    tokenizer = Tokenizer.train(["what is one plus two? the answer is three. 1 2 3 4 5 6 7 8 9 0 " * 9], 316)
    for seed, name in enumerate(("model", "teacher")):
        save_checkpoint(folder / name, random_model(seed, vocab_size=316), tokenizer)
    asked = [[{"role": "user", "content": f"what is {number} plus one?"}] for number in range(9)]
    said = [[{"role": "assistant", "content": text}] for text in ("the answer is three", "one plus one")]
    write_rows(folder / "pairs.jsonl", [{"chosen": a + said[0], "rejected": a + said[1]} for a in asked])
    write_rows(folder / "prompts.jsonl", [{"messages": a, "gt": [str(n + 1)]} for n, a in enumerate(asked)])
    texts = write_rows(
        folder / "texts.jsonl", [{"text": f"what is {n} plus {n}? the answer is {2 * n}."} for n in range(60)]
    )
    prepare([texts], tokenizer, folder / "texts", PrepareOptions(valid_fraction=0.1, workers=1))
    (folder / "tiny_rewards.py").write_text(REWARDS)
    return folder


def options(folder: Path, verb: str, run: Path) -> dict[str, Any]:
    common = {**QUICK, "run": run, "train.steps": 3, "train.valid_every": 3, "train.log_every": 1}
    if verb == "dpo":
        pairs = {"data.source": folder / "pairs.jsonl", "data.batch_pairs": 5, "train.accumulate": 2}
        return {**common, **pairs, "model": folder / "model", "data.context": 256, "data.valid_fraction": 0.3}
    if verb == "distill":
        return {
            **common,
            "teacher.model": folder / "teacher",
            "base": folder / "model",
            "data.source": folder / "texts",
            "data.context": 32,
            "train.batch_tokens": 160,
        }
    del common["run"]
    chosen = policy_options(folder / "model", folder / "prompts.jsonl", run, **common, **{"data.context": 256})
    return {**chosen, "rollout.group": 1, "rollout.prompts": 9} if verb == "ppo" else chosen


def words(chosen: dict[str, Any]) -> list[str]:
    return [word for name, value in chosen.items() for word in (f"--{name}", str(value))]


def start_two(verb: str, chosen: dict[str, Any], folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = str(Path(str(minimind.__file__)).parents[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    shared["PYTHONPATH"] = os.pathsep.join([source, str(folder)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "minimind", verb, *words(chosen)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)


@pytest.mark.parametrize("verb", ["dpo", "distill", "grpo", "ppo"])
def test_two_processes_take_the_steps_of_one(
    verb: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    assert main([verb, *words(options(folder, verb, tmp_path / "one"))]) == 0
    start_two(verb, options(folder, verb, tmp_path / "two"), folder)
    one, two = (RunReader(tmp_path / name).metrics() for name in ("one", "two"))
    assert len(one) == len(two) == 4
    for row, other in zip(one, two, strict=True):
        assert row.keys() == other.keys()
        for name in {*FIGURES, *(name for name in row if name.startswith("valid_"))} & row.keys():
            assert other[name] == pytest.approx(row[name], rel=1e-4, abs=1e-6), (row["step"], name)
    assert json.loads((tmp_path / "two" / "finished.json").read_text())
