"""A run folder, whole or half written, becomes figures, sentences and samples that say what is there."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import write_rows

from minimind.report.summary import Summary, duration


def write_run(folder: Path, rows: Iterable[dict[str, Any]], *, finished: bool = True, **files: Any) -> Path:
    write_rows(folder / "metrics.jsonl", rows)
    (folder / "environment.json").write_text(json.dumps({"stage": "pretrain", "python": "3.11.9"}))
    if finished:
        (folder / "finished.json").write_text("{}")
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def rows(steps: int) -> list[dict[str, Any]]:
    trained = [{"step": s, "loss": 3.0, "tokens": 4096 * s, "seconds": s / 2} for s in range(1, steps + 1)]
    return [{"step": 0, "valid_loss": 8.8, "bits_per_byte": 3.4}, *trained, {"step": steps, "bits_per_byte": 1.5}]


def test_a_finished_run_is_told_in_one_sentence(tmp_path: Path) -> None:
    run = Summary(write_run(tmp_path, rows(200)), "mine")
    assert run.outcome == (
        "200 steps on 819.2k tokens in 1 min 40 s ended at a loss of 3 and 1.5 bits per byte of held-out text."
    )


def test_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    run = Summary(write_run(tmp_path, rows(200), finished=False), "mine")
    assert run.outcome.startswith("Not finished: 200 steps on 819.2k tokens in 1 min 40 s so far, now at a loss of 3 ")


def test_what_was_measured_before_the_first_step_is_no_result(tmp_path: Path) -> None:
    start = [{"step": 0, "valid_loss": 8.8, "bits_per_byte": 3.4}]
    run = Summary(write_run(tmp_path, start, finished=False), "mine")
    assert run.outcome == "Not finished: no step is recorded yet." and run.figures == {} and run.best == ""
    run = Summary(write_run(tmp_path, [*start, {"step": 1, "loss": 3.0}], finished=False), "mine")
    assert run.outcome == "Not finished: 1 steps so far, now at a loss of 3." and "Bits per byte" not in run.figures


@pytest.mark.parametrize(
    ("bits", "verdict"),
    [
        ([3.4, 2.0, 1.5], "went from 3.4 to 1.5: it has learnt."),
        ([3.4, 1.5, 2.0], "went from 3.4 to 2, and was least at step 10 with 1.5: from there on it got worse."),
        ([3.4, 3.4, 3.39], "went from 3.4 to 3.39: hardly anything of it was learnt."),
        ([3.4], ""),
    ],
)
def test_the_verdict_is_what_the_held_out_text_says(tmp_path: Path, bits: list[float], verdict: str) -> None:
    run = Summary(write_run(tmp_path, [{"step": 10 * n, "bits_per_byte": one} for n, one in enumerate(bits)]), "mine")
    assert run.verdict == (verdict and f"Bits per byte of held-out text {verdict}")


def test_a_torn_last_line_is_not_there_yet(tmp_path: Path) -> None:
    folder = write_run(tmp_path, rows(200))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 201, "lo')
    assert Summary(folder, "mine").steps == 200


@pytest.mark.parametrize("content", [None, "", '{"step": 1', '[]\n{"loss": 2}\n{"step": "x"}\n'])
def test_a_run_without_steps_has_recorded_nothing_yet(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert "Nothing has been recorded in" in Summary(tmp_path, "mine").outcome


def test_a_stage_without_training_has_settings_and_no_complaint(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('source = ["a.txt"]\nvocab_size = 6400\n')
    run = Summary(tmp_path, "mine")
    assert (run.outcome, run.settings) == ("", [("source", '["a.txt"]'), ("vocab_size", "6400")])


def test_values_that_were_not_finite_are_counted_and_left_out(tmp_path: Path) -> None:
    run = Summary(write_run(tmp_path, [{"step": 1, "loss": None}, {"step": 2, "loss": 2.0}]), "mine")
    assert run.metrics["loss"] == [(2.0, 2.0)]
    assert run.notes == ["Not finite (NaN or infinite), so left out of the curves: 1 of the logged values."]


def test_figures_that_nothing_could_draw_do_no_harm(tmp_path: Path) -> None:
    hostile = [{"step": 10**400, "loss": 1.0}, {"step": 1, "loss": 10**400, "kl": True, "note": "x", "reward": [1]}]
    run = Summary(write_run(tmp_path, hostile), "mine")
    assert run.metrics == {} and run.figures == {}


def test_only_settings_that_differ_from_the_defaults_are_changed(tmp_path: Path) -> None:
    config = {"train": {"steps": 100, "lr": 0.01}, "run": "runs/x", "betas": [0.9, 0.95]}
    usual = {"pretrain": {"train.steps": None, "train.lr": 0.01, "betas": [0.9, 0.95]}}
    run = Summary(write_run(tmp_path, [], config=config), "mine", defaults=lambda stage: usual[stage])
    assert run.changed == [("train.steps", "100"), ("run", "runs/x")]
    assert [name for name, _ in run.settings] == ["train.steps", "train.lr", "run", "betas"]


def test_results_are_those_that_the_figures_have_not_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path, rows(9), evaluation={"figures": {"exact_answers": 0.51234}})
    (folder / "finished.json").write_text('{"step": 9, "loss": 3.0, "best_step": 7}')
    assert Summary(folder, "mine").results == [("Best step", "7"), ("Exact answers", "0.5123")]


def test_samples_go_from_first_to_last_and_leave_the_prompt_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [])
    samples = [{"step": s, "prompt": "The sun", "text": f"The sun is {s}"} for s in range(100, 1100, 100)]
    write_rows(folder / "samples.jsonl", samples)
    (prompt,) = Summary(folder, "mine").prompts
    assert [(s.step, s.text) for s in prompt.shown] == [(s, f"is {s}") for s in (100, 400, 700, 1000)]
    assert len(prompt.folded) == 6


def test_rewards_and_accuracies_come_before_the_loss_in_judging_a_stage(tmp_path: Path) -> None:
    figures = [{"step": s, "loss": 0.01, "reward": 0.5, "skipped": 0} for s in range(1, 50)]
    run = Summary(write_run(tmp_path, figures), "mine")
    assert run.best == "reward 0.5"
    assert run.outcome == "49 steps ended at a reward of 0.5."
    assert next(iter(run.figures)) == "Reward" and "Loss" not in run.figures and run.others == []


def test_commands_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a b; rm x", [])
    (folder / "checkpoints" / "latest").mkdir(parents=True)
    (folder / "recipe.toml").write_text("")
    lines = [command for _, command in Summary(folder, "mine").commands]
    assert lines == [
        f"minimind generate '{folder}' --prompt 'The sun'",
        f"minimind pretrain '{folder}/recipe.toml'",
    ]
    (folder / "environment.json").write_text('{"stage": "x; rm x"}')
    assert len(Summary(folder, "mine").commands) == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.23, "8.23 s"), (400, "6 min 40 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")]
)
def test_times_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
