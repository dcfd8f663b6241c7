"""A run folder is one run's: it remembers its settings, survives a kill anywhere, and says what happened."""

import json
import math
import os
from pathlib import Path

import pytest

from minimind.config import Config, load, option
from minimind.errors import RunError
from minimind.storage.run import Run, RunReader, find_runs, set_aside


class Train(Config):
    steps: int = 10
    log_every: int = option(5, "Steps between rows.", kind="free")


class PretrainConfig(Config):
    train: Train = Train()
    data: Path = option(Path("shards"), "What is read.", kind="data")


def checkpoint(run: Run, step: int) -> None:
    run.checkpoint_folder(step).mkdir(parents=True)
    run.point_latest(step)


def test_a_new_run_explains_itself(tmp_path: Path) -> None:
    with Run.create(tmp_path / "a", PretrainConfig()) as run:
        assert not run.resumed
    reader = RunReader.open(tmp_path / "a")
    assert reader.config() == {"train": {"steps": 10, "log_every": 5}, "data": "shards"}
    assert load(PretrainConfig, tmp_path / "a" / "recipe.toml") == PretrainConfig()
    environment = reader.environment()
    assert environment["stage"] == "pretrain"
    assert {"python", "versions", "cpu", "cores", "command"} <= environment.keys()


def test_rows_come_back_as_they_were_logged(tmp_path: Path) -> None:
    with Run.create(tmp_path, PretrainConfig()) as run:
        run.log(1, {"loss": 2.5, "tokens": 64})
        run.log(2, {"loss": math.nan})
        run.log_sample(2, "早上", "好\n")
    reader = RunReader(tmp_path)
    assert reader.metrics() == [{"step": 1, "loss": 2.5, "tokens": 64}, {"step": 2, "loss": None}]
    assert reader.samples() == [{"step": 2, "prompt": "早上", "text": "好\n"}]


def test_a_row_can_be_read_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    with Run.create(tmp_path, PretrainConfig()) as run:
        run.log(1, {"loss": 2.5})
        assert RunReader(tmp_path).metrics() == [{"step": 1, "loss": 2.5}]


def test_a_torn_last_line_is_passed_over_and_then_cut_off(tmp_path: Path) -> None:
    with Run.create(tmp_path, PretrainConfig()) as run:
        run.log(1, {"loss": 2.5})
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole + whole[:length])
        assert len(RunReader(tmp_path).metrics()) == 1
        with Run.create(tmp_path, PretrainConfig()) as run:
            run.log(2, {"loss": 2.0})
        assert [row["step"] for row in RunReader(tmp_path).metrics()] == [1, 2]


def test_rewinding_drops_the_rows_after_the_checkpoint(tmp_path: Path) -> None:
    with Run.create(tmp_path, PretrainConfig()) as run:
        for step in range(5):
            run.log(step, {"loss": 1.0})
            run.log_sample(step, "a", "b")
    with Run.create(tmp_path, PretrainConfig()) as run:
        assert run.resumed
        run.rewind(2)
        assert [row["step"] for row in run.metrics()] == [0, 1, 2]
        assert [row["step"] for row in run.samples()] == [0, 1, 2]
        run.rewind(None)
        assert run.metrics() == run.samples() == []


def begin(folder: Path) -> None:
    """A run that has made an update."""
    with Run.create(folder, PretrainConfig()) as run:
        run.log(0, {"valid_loss": 3.0})
        run.log(1, {"loss": 2.5})


def test_settings_that_change_the_numbers_are_refused_on_resume_with_the_diff(tmp_path: Path) -> None:
    begin(tmp_path)
    changed = PretrainConfig(train=Train(steps=20, log_every=1), data=Path("others"))
    with pytest.raises(RunError, match=r"train\.steps: 10 -> 20, data: 'shards' -> 'others'; set them back"):
        Run.create(tmp_path, changed)
    assert RunReader(tmp_path).config()["train"]["steps"] == 10


def test_settings_of_a_run_that_has_learnt_nothing_yet_may_change(tmp_path: Path) -> None:
    with Run.create(tmp_path, PretrainConfig()) as run:
        run.log(0, {"valid_loss": 3.0})
    Run.create(tmp_path, PretrainConfig(train=Train(steps=20))).close()
    assert RunReader(tmp_path).config()["train"]["steps"] == 20
    (tmp_path / "checkpoints" / "step-000001").mkdir(parents=True)
    with pytest.raises(RunError, match="other settings"):
        Run.create(tmp_path, PretrainConfig())


def test_free_settings_may_change_on_resume(tmp_path: Path) -> None:
    begin(tmp_path)
    with Run.create(tmp_path, PretrainConfig(train=Train(log_every=1))) as run:
        assert run.resumed
    assert RunReader(tmp_path).config()["train"]["log_every"] == 1


def test_without_resume_a_run_is_not_written_over(tmp_path: Path) -> None:
    Run.create(tmp_path, PretrainConfig(), resume=False).close()
    with pytest.raises(RunError, match="holds a run already"):
        Run.create(tmp_path, PretrainConfig(), resume=False)


def test_a_refused_start_leaves_the_folder_free(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(RunError):
        Run.create(tmp_path, PretrainConfig(train=Train(steps=20)))
    Run.create(tmp_path, PretrainConfig()).close()


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with (
        Run.create(tmp_path, PretrainConfig()),
        pytest.raises(RunError, match=f"process {os.getpid()} writes to this run"),
    ):
        Run.create(tmp_path, PretrainConfig())


def test_latest_is_the_checkpoint_it_was_pointed_at(tmp_path: Path) -> None:
    with Run.create(tmp_path, PretrainConfig()) as run:
        assert run.latest() is None
        checkpoint(run, 100)
        run.checkpoint_folder(200).mkdir()
        assert run.latest() == tmp_path / "checkpoints" / "step-000100"
        run.point_latest(200)
        assert run.latest() == tmp_path / "checkpoints" / "step-000200"


def test_a_lost_link_falls_back_on_the_newest_checkpoint(tmp_path: Path) -> None:
    with Run.create(tmp_path, PretrainConfig()) as run:
        for step in (100, 999_999, 1_000_000):
            checkpoint(run, step)
        assert [int(path.name[5:]) for path in run.checkpoint_folders()] == [100, 999_999, 1_000_000]
        run.checkpoint_folder(1_000_000).rename(tmp_path / "elsewhere")
        assert run.latest() == run.checkpoint_folder(999_999)


def test_pruning_keeps_the_newest_and_the_latest(tmp_path: Path) -> None:
    with Run.create(tmp_path, PretrainConfig()) as run:
        for step in (1, 2, 3, 4):
            checkpoint(run, step)
        run.point_latest(1)
        (tmp_path / "checkpoints" / "step-000005.tmp.ab12").mkdir()
        run.prune(2)
        assert sorted(os.listdir(tmp_path / "checkpoints")) == ["latest", "step-000001", "step-000003", "step-000004"]


def test_a_finished_run_tells_its_summary(tmp_path: Path) -> None:
    with Run.create(tmp_path, PretrainConfig()) as run:
        assert run.finished() is None
        run.finish({"loss": 1.5, "best": math.inf})
    assert RunReader(tmp_path).finished() == {"loss": 1.5, "best": None}


def test_a_run_set_aside_is_whole_and_leaves_room_but_not_under_its_writer(tmp_path: Path) -> None:
    for number in (1, 2):
        with Run.create(tmp_path / "sft", PretrainConfig()) as run:
            run.log(number, {"loss": 2.5})
            with pytest.raises(RunError, match="writes to this run"):
                set_aside(tmp_path / "sft")
        assert set_aside(tmp_path / "sft") == tmp_path / "old" / f"sft-{number}"
        assert not (tmp_path / "sft").exists()
        assert RunReader(tmp_path / "old" / f"sft-{number}").metrics() == [{"step": number, "loss": 2.5}]


def test_runs_are_found_but_models_are_not_runs(tmp_path: Path) -> None:
    with Run.create(tmp_path / "b" / "sft", PretrainConfig()) as run:
        run.checkpoint_folder(1).mkdir(parents=True)
        (run.checkpoint_folder(1) / "config.json").write_text("{}")
    Run.create(tmp_path / "a", PretrainConfig()).close()
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b" / "sft"]


def test_a_folder_without_a_run_is_answered_with_the_nearest_run(tmp_path: Path) -> None:
    Run.create(tmp_path / "quick" / "pretrain", PretrainConfig()).close()
    with pytest.raises(RunError, match=f"did you mean {tmp_path}/quick/pretrain"):
        RunReader.open(tmp_path / "quick" / "pretrian")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json: not JSON"):
        Run.create(tmp_path, PretrainConfig())
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\nx\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl: a line is not JSON"):
        RunReader(tmp_path).metrics()
