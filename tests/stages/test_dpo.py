"""`minimind dpo`: the chosen answers become likelier, the reference is kept and not held, a stopped run goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.stages.tiny_runs import outcome, went_on
from tests.tiny import write_rows

from minimind.storage.run import RunReader

Command = Callable[..., int]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions of which the short answer is always preferred."""
    rows = []
    for number in range(24):
        asked = [{"role": "user", "content": f"what is {number}?"}]
        good, bad = ("the answer is three", "one plus one plus one plus one")
        rows.append(
            {
                side: [*asked, {"role": "assistant", "content": said}]
                for side, said in (("chosen", good), ("rejected", bad))
            }
        )
    return write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)


def options(tiny: Path, pairs: Path, run: Path, **changes: Any) -> dict[str, Any]:
    return {
        "run": run,
        "model": tiny,
        "data.source": pairs,
        "data.valid_fraction": 0.2,
        "data.batch_pairs": 6,
        "train.steps": 6,
        "train.lr": 0.003,
        "train.embedding_lr": 0.003,
        "train.valid_every": 3,
        "train.log_every": 1,
        "train.checkpoint_every": 1,
        "train.keep_checkpoints": 9,
        **changes,
    }


@pytest.fixture(scope="module", params=["whole", "lora"])
def run(request: pytest.FixtureRequest, command: Command, tiny: Path, pairs: Path, tmp_path_factory: Any) -> dict:
    lora = {"lora.rank": 4, "train.lr": 0.02} if request.param == "lora" else {}
    chosen = options(tiny, pairs, tmp_path_factory.mktemp("dpo") / "run", **lora)
    assert command("dpo", chosen) == 0
    return chosen


def test_preferences_are_learnt_from_log_two_on(run: dict) -> None:
    rows = RunReader(run["run"]).metrics()
    assert rows[1]["loss"] == pytest.approx(0.693147, abs=1e-5) and rows[1]["margin"] == pytest.approx(0, abs=1e-5)
    assert rows[-1]["valid_loss"] < 0.6 and rows[-1]["valid_accuracy"] == 1.0


@pytest.mark.parametrize("step", [1, 4])
def test_a_stopped_run_goes_on_to_the_same_bits(run: dict, command: Command, step: int) -> None:
    assert outcome(went_on(command, "dpo", run, step)) == outcome(run["run"])


def test_the_reference_is_computed_once_and_kept(run: dict, command: Command, capsys: Any) -> None:
    again = {**run, "run": run["run"].with_name("again")}
    command("dpo", again)
    assert capsys.readouterr().err.count("reference log-probabilities of") == 2
    command("dpo", again)
    assert "reference log-probabilities" not in capsys.readouterr().err


def test_what_cannot_teach_is_left_out_and_told(
    command: Command, tiny: Path, tmp_path: Path, pairs: Path, capsys: Any
) -> None:
    asked = [{"role": "user", "content": "who?"}]
    same = [*asked, {"role": "assistant", "content": "me"}]
    long = [*asked, {"role": "assistant", "content": "me " * 500}]
    rows = [{"chosen": same, "rejected": same}, {"chosen": same, "rejected": long}]
    extra = write_rows(tmp_path / "extra.jsonl", rows)
    changes = {"data.source": [pairs, extra], "data.context": 128, "train.steps": 1}
    assert command("dpo", options(tiny, pairs, tmp_path / "run", **changes)) == 0
    assert "equal_answers 1, too_long 1" in capsys.readouterr().err


def test_pairs_with_different_prompts_are_refused_with_their_line(
    command: Command, tiny: Path, tmp_path: Path, pairs: Path, capsys: Any
) -> None:
    sides = {
        side: [{"role": "user", "content": f"{side}?"}, {"role": "assistant", "content": "me"}]
        for side in ("chosen", "rejected")
    }
    path = write_rows(tmp_path / "bad.jsonl", [sides])
    assert command("dpo", options(tiny, pairs, tmp_path / "run", **{"data.source": path})) == 2
    assert f"{path}:1: " in capsys.readouterr().err


def test_an_adapter_at_the_rate_of_a_whole_model_is_warned_of(
    command: Command, tiny: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, changes, expected in (
        ("slow", {"lora.rank": 4, "train.lr": 5e-5}, 1),
        ("fast", {"lora.rank": 4, "train.lr": 1e-3}, 0),
        ("whole", {"train.lr": 5e-5}, 0),
    ):
        assert command("dpo", options(tiny, pairs, tmp_path / name, **{"train.steps": 1}, **changes)) == 0
        assert capsys.readouterr().err.count("an adapter learns little at a train.lr of 5e-05") == expected
