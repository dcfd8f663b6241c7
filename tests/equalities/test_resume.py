"""Saved + resumed = uninterrupted: after signals, after kill -9 at random instants, and on another number of processes.

Runs are real commands in processes of their own. `tests/training/test_fit.py` stops at every single step.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import minimind
from minimind.cli import main
from minimind.data.prepare import PrepareOptions, prepare
from minimind.storage.run import RunReader
from minimind.text.tokenizer import Tokenizer

# Children of a server that has torch loaded start at once; the server itself computes nothing, so forking it is safe.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["minimind.stages.pretrain"])

STEPS = 30
OPTIONS = {
    "model.hidden_size": 16,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "model.num_key_value_heads": 1,
    "model.head_dim": 8,
    "model.intermediate_size": 24,
    "data.context": 32,
    "train.steps": STEPS,
    "train.batch_tokens": 128,
    "train.warmup_steps": 2,
    "train.dtype": "float32",
    "train.compile": "off",
    "train.device": "cpu",
    "train.log_every": 1,
    "train.valid_every": 10,
    "train.checkpoint_every": 2,
    "train.keep_checkpoints": 100,
    "sample_prompts": "the",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and prepared text."""
    folder, draw = tmp_path_factory.mktemp("prepared"), random.Random(0)
    words = ["the", "cat", "dog", "sat", "ran", "on", "mat", "log", "sun", "moon", "tree", "and", "then", "we", "saw"]
    texts = [" ".join(draw.choices(words, k=draw.randint(3, 40))) for _ in range(80)]
    tokenizer = Tokenizer.train(texts, 320)
    tokenizer.save(folder / "tokenizer")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare([folder / "text.jsonl"], tokenizer, folder / "data", PrepareOptions(valid_fraction=0.1, workers=1))
    return folder


def command(prepared: Path, run: Path, **changes: Any) -> list[str]:
    options = {"run": run, "tokenizer": prepared / "tokenizer", "data.source": prepared / "data", **OPTIONS, **changes}
    return ["pretrain", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def start(words: list[str]) -> Any:
    process = PROCESSES.Process(target=main, args=(words,))
    process.start()
    return process


def finish(words: list[str]) -> None:
    process = start(words)
    process.join(60)
    assert process.exitcode == 0


def rows(run: Path) -> list[dict[str, Any]]:
    """All metrics that do not depend on time."""
    timed = {"seconds", "tokens_per_second"}
    return [{name: value for name, value in row.items() if name not in timed} for row in RunReader(run).metrics()]


def digest(run: Path) -> dict[str, str]:
    latest = run / "checkpoints" / f"step-{STEPS:06d}"
    names = ("model.safetensors", "training_state/optimizers.safetensors")
    return {name: hashlib.sha256((latest / name).read_bytes()).hexdigest() for name in names}


def is_at(run: Path, step: int) -> bool:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") > step if path.is_file() else step < 0


def wait_for(run: Path, step: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_at(run, step):
        assert time.monotonic() < deadline, f"{run} did not reach step {step}"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(command(prepared, run))
    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_with_its_code_and_loses_no_step(
    prepared: Path, tmp_path: Path, whole: Path, number: signal.Signals, code: int
) -> None:
    """With no checkpoint but the one that the signal asked for."""
    run = tmp_path / "run"
    words = command(prepared, run, **{"train.checkpoint_every": 1000})
    process = start(words)
    wait_for(run, 7)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code
    (checkpoint,) = RunReader(run).checkpoint_folders()
    assert checkpoint.name == f"step-{rows(run)[-1]['step']:06d}" and RunReader(run).finished() is None
    finish(words)
    assert (rows(run), digest(run)) == (rows(whole), digest(whole))
    assert RunReader(run).finished() is not None


def kill_and_resume(prepared: Path, folder: Path, whole: Path, trials: int) -> list[int]:
    """Kill runs at random instants, finish each and compare it; returns the steps they had logged when killed."""
    draw, seconds = random.Random(0), RunReader(whole).metrics()[-1]["seconds"]
    reached = []
    for trial in range(trials):
        run = folder / f"run-{trial}"
        words = command(prepared, run)
        process = start(words)
        # A random step, however fast the machine is, and a random instant in it or in the next; -1 is before the first.
        wait_for(run, draw.randint(-1, STEPS - 1))
        time.sleep(draw.uniform(0, 2 * seconds / STEPS))
        process.kill()
        process.join()
        reached.append(rows(run)[-1]["step"] if is_at(run, 0) else -1)
        finish(words)
        assert (rows(run), digest(run)) == (rows(whole), digest(whole)), f"killed at step {reached[-1]}"
        shutil.rmtree(run)
    return reached


def test_killed_runs_end_with_the_same_losses_and_weights(prepared: Path, tmp_path: Path, whole: Path) -> None:
    assert any(0 < step < STEPS for step in kill_and_resume(prepared, tmp_path, whole, trials=5))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_killed_runs_end_with_the_same_losses_and_weights(
    prepared: Path, tmp_path: Path, whole: Path
) -> None:
    reached = kill_and_resume(prepared, tmp_path, whole, trials=200)
    assert len({step for step in reached if 0 < step < STEPS}) > 10, "instants all over the run"


def test_a_run_killed_again_and_again_gets_there(prepared: Path, tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    words = command(prepared, run)
    for step in (3, 4, 11, 20):
        process = start(words)
        wait_for(run, step)
        process.kill()
        process.join()
    finish(words)
    assert (rows(run), digest(run)) == (rows(whole), digest(whole))


# ---- another number of processes


def copy_up_to(source: Path, step: int, target: Path) -> None:
    """The run as it was after the checkpoint of `step`."""
    shutil.copytree(source, target, symlinks=True)
    for checkpoint in RunReader(target).checkpoint_folders():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    (target / "checkpoints" / "latest").unlink()
    (target / "checkpoints" / "latest").symlink_to(f"step-{step:06d}")


def finish_on_two(words: list[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = str(Path(str(minimind.__file__)).parents[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": source}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "minimind", *words],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert "2 processes" in errors[0] and not errors[1], "the second rank is silent"


def assert_close(run: Path, expected: Path) -> None:
    ours, theirs = rows(run), rows(expected)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, reference in zip(ours, theirs, strict=True):
        for name in reference:
            assert mine[name] == pytest.approx(reference[name], rel=1e-4 if name == "gradient_norm" else 1e-5), name


def test_one_process_may_go_on_as_two_and_two_as_one(prepared: Path, tmp_path: Path, whole: Path) -> None:
    """Micro-batches may change with the processes, too. Losses stay equal to 1e-5."""
    two, one = tmp_path / "two", tmp_path / "one"
    copy_up_to(whole, 6, two)
    finish_on_two(command(prepared, two, **{"train.accumulate": 2}))
    assert_close(two, whole)
    assert digest(two) != digest(whole), "it was computed anew, in another order"
    copy_up_to(two, 20, one)
    finish(command(prepared, one))
    assert_close(one, whole)
