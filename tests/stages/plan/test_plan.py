"""`minimind plan` prints what a run will take; its numbers are those that the run then has."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minimind.cli import main
from minimind.data.options import PrepareOptions
from minimind.data.prepare import prepare
from minimind.storage.checkpoint import load_model
from minimind.storage.run import RunReader

QUICK = ["--train.dtype", "float32", "--train.device", "cpu", "--train.compile", "off", "--probe_seconds", "0"]


@pytest.fixture
def recipe(tiny: Path, tmp_path: Path) -> Path:
    """Fine-tuning on forty conversations."""
    chats = [
        {"messages": [{"role": "user", "content": f"what is {n}?"}, {"role": "assistant", "content": "three."}]}
        for n in range(40)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    prepare([tmp_path / "chats.jsonl"], load_model(tiny)[1], tmp_path / "data", PrepareOptions(valid_fraction=0.2))
    path = tmp_path / "5-sft.toml"
    run, model, data = (json.dumps(str(place)) for place in (tmp_path / "run", tiny, tmp_path / "data"))
    path.write_text(
        f"run = {run}\nmodel = {model}\n[data]\nsource = [{data}]\ncontext = 64\n"
        "[train]\nbatch_tokens = 128\naccumulate = 2\nwarmup_steps = 1\n"
    )
    return path


def test_a_plan_tells_memory_time_and_cost(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--memory_gb", "0.1", "--hours", "1e-9", "--price_per_hour", "2"]
    assert main(["plan", str(recipe), *QUICK, *words]) == 0
    out = capsys.readouterr().out
    for part in ("feed-forward", "optimizer", "training steps", "tokens/s", "cost", "not even one step", "no cut of"):
        assert part in out, part
    assert not (recipe.parent / "run").exists()


def test_the_run_has_as_many_steps_as_were_planned(
    recipe: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(recipe), *QUICK]) == 0
    out = capsys.readouterr().out
    assert main(["sft", str(recipe), *QUICK[:6]]) == 0
    steps = RunReader(recipe.parent / "run").metrics()[-1]["step"]
    assert f"in {steps} steps of 128 (64 at once)" in out
    # The run's own recipe says the same.
    assert main(["plan", str(recipe.parent / "run" / "recipe.toml"), *QUICK]) == 0
    assert f"in {steps} steps of 128 (64 at once)" in capsys.readouterr().out


def test_an_option_of_the_recipe_can_be_tried(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(recipe), *QUICK, "--train.accumulate", "1", "--sft.train.steps", "9"]) == 0
    assert "1,152 in 9 steps of 128 (128 at once)" in capsys.readouterr().out


def test_what_is_no_recipe_or_no_option_is_an_error(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "nowhere.toml"]) == 2
    assert "nowhere.toml: no such recipe" in capsys.readouterr().err
    assert main(["plan", str(recipe), "--train.acumulate", "1"]) == 2
    assert "did you mean --train.accumulate" in capsys.readouterr().err


def test_a_busy_machine_is_named(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for load, is_named in ((9.5, True), (0.0, False)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, load, load))
        assert main(["plan", str(recipe), *QUICK]) == 0
        assert ("other work (load 9.5" in capsys.readouterr().out) == is_named
