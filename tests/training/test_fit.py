"""The loop keeps its cadences, stops cleanly when told to, and a stopped run goes on bit for bit at every step."""

import math
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.tiny_jobs import TOKENIZER, TOTAL, VALID, failing, make_job, outcome, spoilt, stop_after
from torch import nn

from minimind.errors import ConfigError, RunError, TrainingError
from minimind.interfaces import Batch, Loss
from minimind.objectives.next_token import NextToken
from minimind.storage.checkpoint import load_model
from minimind.storage.run import RunReader
from minimind.training.fit import MAX_SKIPPED, fit
from minimind.training.job import Placement, Validation
from minimind.training.trainer import Trainer, Update


def steps_of(folder: Path) -> list[int]:
    return [row["step"] for row in RunReader(folder).metrics()]


def saved(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in RunReader(folder).checkpoint_folders()]


# ---- what a run leaves behind


def test_a_run_learns_and_tells_about_it(whole: Path) -> None:
    run = RunReader(whole)
    rows = run.metrics()
    assert [row["step"] for row in rows] == list(range(TOTAL + 1))
    assert rows[-1]["loss"] < rows[1]["loss"] and rows[-1]["valid_loss"] < rows[0]["valid_loss"]
    assert rows[0]["valid_loss"] == pytest.approx(math.log(TOKENIZER.vocab_size), abs=0.1)
    assert run.samples() == [{"step": step, "prompt": "the", "text": "cat"} for step in range(1, TOTAL + 1)]
    assert run.finished() == rows[-1]
    assert load_model(whole)[1].fingerprint == TOKENIZER.fingerprint


def test_bits_per_byte_are_all_nats_over_all_bytes_of_the_text(whole: Path) -> None:
    """EOS is predicted too but spells nothing, so its nats count and it adds no byte."""
    model, _ = load_model(whole)
    nats = 0.0
    for document in range(len(VALID.ids)):
        ids = torch.from_numpy(VALID.ids[document])
        # A document longer than a row is continued without what came before it.
        for start in range(0, len(ids) - 1, 32):
            piece = ids[start : start + 33]
            log_probabilities = model(piece[None, :-1])[0].log_softmax(-1).detach()
            nats -= log_probabilities.gather(1, piece[1:, None]).sum().item()
    last = RunReader(whole).metrics()[-1]
    assert last["bits_per_byte"] == pytest.approx(nats / math.log(2) / VALID.num_bytes, rel=1e-5)
    assert last["valid_loss"] == pytest.approx(nats / sum(VALID.lengths - 1), rel=1e-5)


def test_metrics_are_logged_at_their_cadence_and_whenever_validated(tmp_path: Path) -> None:
    fit(make_job(tmp_path / "run", log_every=3, valid_every=4))
    assert [row["step"] for row in RunReader(tmp_path / "run").metrics()] == [0, 3, 4, 6, 7]


def test_without_validation_data_a_run_still_ends(tmp_path: Path) -> None:
    fit(replace(make_job(tmp_path / "run"), validation=None))
    assert RunReader(tmp_path / "run").finished() == {"step": TOTAL}


@pytest.mark.parametrize("step", range(1, TOTAL - 1))
def test_a_run_stopped_at_any_step_goes_on_as_if_nothing_had_happened(tmp_path: Path, whole: Path, step: int) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        fit(stop_after(make_job(folder), step))
    assert stop.value.code == 143
    assert [path.name for path in RunReader(folder).checkpoint_folders()] == [f"step-{step + 1:06d}"]
    fit(make_job(folder))
    assert outcome(folder) == outcome(whole)
    assert RunReader(folder).samples() == RunReader(whole).samples()


def test_what_was_logged_after_the_checkpoint_is_logged_once(tmp_path: Path, whole: Path) -> None:
    """A run that died at step 6, with its last checkpoint at 4."""
    folder = tmp_path / "run"
    with pytest.raises(KeyError):
        fit(replace(make_job(folder, checkpoint_every=4), objective=failing(KeyError("gone"), at=6)))
    assert RunReader(folder).metrics()[-1]["step"] == 5
    fit(make_job(folder, checkpoint_every=4))
    assert outcome(folder) == outcome(whole)


def test_a_run_that_died_before_its_first_checkpoint_starts_anew(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyError):
        fit(replace(make_job(folder), objective=failing(KeyError("gone"), at=3)))
    fit(make_job(folder))
    assert outcome(folder) == outcome(whole)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, whole: Path) -> None:
    before = outcome(whole)
    fit(make_job(whole))
    assert outcome(whole) == before


def test_skipped_steps_are_counted_on_over_a_stop(tmp_path: Path) -> None:
    """Two before the stop and three after it are five in a row."""
    folder = tmp_path / "run"
    bad = failing(None, at=2)
    with pytest.raises(SystemExit):
        fit(replace(stop_after(make_job(folder), 2), objective=bad))
    with pytest.raises(TrainingError, match=r"step 6: .* 5 times in a row"):
        fit(replace(make_job(folder), objective=failing(None, at=1)))


def test_more_micro_batches_and_other_cadences_may_be_chosen_on_the_way(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        fit(stop_after(make_job(folder), 3))
    fit(make_job(folder, accumulate=3, recompute=True, checkpoint_every=2))
    ours, expected = RunReader(folder).metrics(), RunReader(whole).metrics()
    assert [row["valid_loss"] for row in ours] == pytest.approx([row["valid_loss"] for row in expected], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"lr": 0.5}, "train.lr: 0.01 -> 0.5"),
        ({"batch_tokens": 64, "seed": 3}, "train.seed: 0 -> 3, train.batch_tokens: 96 -> 64"),
    ],
)
def test_other_mathematics_is_refused_with_the_difference(
    tmp_path: Path, whole: Path, changes: dict[str, Any], difference: str
) -> None:
    with pytest.raises(RunError, match=difference):
        fit(make_job(whole, **changes))


def test_out_of_memory_names_what_fits(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path / "run", accumulate=2), objective=failing(torch.OutOfMemoryError(), at=1))
    with pytest.raises(TrainingError, match=r"out of memory on cpu; the same loss fits with --train.accumulate 4"):
        fit(job)


def test_a_context_that_the_model_cannot_reach_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"data.context is 40000, more than the model's max_position_embeddings 32768"
    ):
        fit(replace(make_job(tmp_path / "run"), context=40000))
    assert not (tmp_path / "run").exists()


# ---- what is due


def test_everything_happens_at_its_cadence_and_at_the_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(make_job(run, log_every=2, valid_every=3, checkpoint_every=5, keep_checkpoints=9))
    rows = RunReader(run).metrics()
    assert [row["step"] for row in rows] == [0, 2, 3, 4, 6, 7]
    assert [row["step"] for row in rows if "valid_loss" in row] == [0, 3, 6, 7]
    assert [row["step"] for row in RunReader(run).samples()] == [3, 6, 7]
    assert saved(run) == [5, 7]


def failing_validation(at: int) -> Callable[[Placement], Validation]:
    """One whose n-th measurement fails."""
    calls = 0

    def validate(trainer: Trainer) -> Mapping[str, float]:
        nonlocal calls
        calls += 1
        if calls == at:
            raise TrainingError("the reward is gone")
        return {"valid_loss": 1.0}

    return lambda placement: validate


CADENCES = {"valid_every": 4, "checkpoint_every": 3, "keep_checkpoints": 9}


@pytest.mark.parametrize("place", ["step", "validation"])
def test_what_was_learnt_before_an_error_is_saved(tmp_path: Path, place: str) -> None:
    job = make_job(tmp_path / "run", **CADENCES)
    # Step 3 is a checkpoint, 4 the first to be validated after the start, 6 the one that cannot be computed.
    broken = {
        "step": {"objective": failing(TrainingError("the reward is gone"), at=6)},
        "validation": {"validation": failing_validation(at=2)},
    }
    with pytest.raises(TrainingError, match="the reward is gone"):
        fit(replace(job, **broken[place]))
    assert saved(tmp_path / "run") == ([3, 5] if place == "step" else [3, 4])


def test_a_validation_that_failed_is_made_up_for(tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", **CADENCES)
    with pytest.raises(TrainingError):
        fit(replace(job, validation=failing_validation(at=2)))
    assert steps_of(tmp_path / "run")[-1] == 3
    fit(replace(make_job(tmp_path / "run", **CADENCES), validation=failing_validation(at=9)))
    rows = {row["step"]: row for row in RunReader(tmp_path / "run").metrics()}
    assert [step for step, row in rows.items() if "valid_loss" in row] == [0, 4, 7]


def test_after_five_bad_steps_in_a_row_the_run_ends_with_its_batch_kept(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path / "run", steps=20), objective=spoilt(2, 4, 5, 6, 7, 8))
    with pytest.raises(TrainingError, match=r"step 8: .* not finite 5 times in a row.*bad-batch.*learning rate"):
        fit(job)
    skipped = [row["skipped"] for row in RunReader(tmp_path / "run").metrics()[1:]]
    assert skipped == [0, 1, 0, 1, 2, 3, 4, 5] and MAX_SKIPPED == 5
    assert (tmp_path / "run" / "bad-batch-rank0.safetensors").is_file()


# ---- signals


def sending(number: signal.Signals, at: int) -> NextToken:
    """An objective that sends this process a signal while step `at` is being computed."""

    class Sending(NextToken):
        seen = 0

        def __call__(self, model: nn.Module, batch: Batch) -> Loss:
            Sending.seen += torch.is_grad_enabled()
            if Sending.seen == at and torch.is_grad_enabled():
                os.kill(os.getpid(), number)
            return super().__call__(model, batch)

    return Sending()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_with_a_checkpoint_at_the_exact_step(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with pytest.raises(SystemExit) as stop:
        fit(replace(make_job(tmp_path / "run"), objective=sending(number, at=2)))
    assert stop.value.code == code
    assert saved(tmp_path / "run") == [steps_of(tmp_path / "run")[-1]]
    assert saved(tmp_path / "run") in ([2], [3]), "at once, or after the step that was told to the other ranks"
    assert RunReader(tmp_path / "run").finished() is None


def test_a_signal_during_the_last_step_lets_the_run_finish(tmp_path: Path) -> None:
    fit(replace(make_job(tmp_path / "run"), objective=sending(signal.SIGTERM, at=TOTAL)))
    assert saved(tmp_path / "run") == [TOTAL] and RunReader(tmp_path / "run").finished() is not None


def test_a_checkpoint_is_due_by_the_clock_too_and_changes_nothing(tmp_path: Path, whole: Path) -> None:
    fit(make_job(tmp_path / "run", checkpoint_minutes=1e-9, keep_checkpoints=9))
    assert [path.name for path in RunReader(tmp_path / "run").checkpoint_folders()] == [
        f"step-{step:06d}" for step in range(1, TOTAL + 1)
    ]
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_warm_up_longer_than_the_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(make_job(tmp_path / "long", steps=2, warmup_steps=2))
    assert "warning: the warm-up of 2 steps is longer than the run" in capsys.readouterr().err
    fit(make_job(tmp_path / "short", steps=2, warmup_steps=1))
    assert "warning" not in capsys.readouterr().err


def test_a_loss_that_runs_away_is_told_once_and_the_end_says_where_the_model_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(make_job(tmp_path / "run", muon_lr=1e4, lr=1e4, embedding_lr=1e4, warmup_steps=0, clip=1e9))
    told = capsys.readouterr().err
    assert told.count("more than a hundred times the") == 1
    assert f"the model is in {tmp_path / 'run'}; talk with it: minimind chat {tmp_path / 'run'}; look at" in told


def test_a_start_that_fails_leaves_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fit(replace(make_job(tmp_path / "run"), objective=failing(KeyError("gone"), at=1)))
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_into_memory_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minimind.training.room.available_bytes", lambda device: 100_000)
    with pytest.raises(TrainingError, match="GB more memory and"):
        fit(make_job(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_stop_at_another_rank_is_a_stop_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`update` tells of a stop that any rank asked for; this one received no signal itself."""
    update = Trainer.update

    def told(self: Trainer, stop: bool = False, save: bool = False) -> Update:
        return update(self, stop=self.step == 2)

    monkeypatch.setattr(Trainer, "update", told)
    with pytest.raises(SystemExit) as stop:
        fit(make_job(tmp_path / "run"))
    assert (stop.value.code, saved(tmp_path / "run")) == (143, [3])


def test_handlers_are_as_before_after_the_loop_even_when_it_fails(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError):
        fit(replace(make_job(tmp_path / "run"), objective=spoilt(*range(9))))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
