"""Around the loop: a stopped run goes on bit for bit at every step, and whatever is damaged is noticed."""

import hashlib
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from minimind.config import Config
from minimind.data.loader import PackedRows
from minimind.errors import CheckpointError, ConfigError, RunError, TrainingError
from minimind.interfaces import Batch, Loss
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.stages.shared.rows import packed_source, packed_validation
from minimind.storage.checkpoint import load_model
from minimind.storage.run import RunReader
from minimind.text.tokenizer import Tokenizer
from minimind.training import fit as module
from minimind.training.fit import fit
from minimind.training.job import TrainingJob
from minimind.training.settings import TrainConfig
from minimind.training.trained_model import TrainedModel

TEXT = "the cat sat on the mat and the dog sat on the log while the sun went down over a small red house . "
TOKENIZER = Tokenizer.train([TEXT], 300)
TOTAL = 7


class TinyConfig(Config):
    train: TrainConfig


class Sentences:
    """Documents of words in random order, the same for the same seed."""

    def __init__(self, count: int, seed: int) -> None:
        random, words = np.random.default_rng(seed), TEXT.split()
        texts = [" ".join(random.choice(words, random.integers(2, 30))) for _ in range(count)]
        self.ids = [np.array([TOKENIZER.bos_id, *ids, TOKENIZER.eos_id]) for ids in TOKENIZER.encode_batch(texts)]
        self.lengths = np.array([len(ids) for ids in self.ids])
        self.num_bytes = sum(len(text.encode()) for text in texts)

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self.ids[document]
        return ids, (np.arange(len(ids)) > 0).astype(np.float32)


TRAIN, VALID = Sentences(60, seed=0), Sentences(8, seed=1)
SETTINGS: dict[str, Any] = {
    "steps": TOTAL,
    "batch_tokens": 96,
    "dtype": "float32",
    "compile": "off",
    "device": "cpu",
    "warmup_steps": 2,
    "log_every": 1,
    "valid_every": 1,
    "checkpoint_every": 100,
}


def make_job(folder: Path, **settings: Any) -> TrainingJob:
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    config = TrainConfig(**{**SETTINGS, **settings})
    model = Transformer(ModelConfig(vocab_size=TOKENIZER.vocab_size, head_dim=8, intermediate_size=24, **shape))
    return TrainingJob(
        name="tiny",
        folder=folder,
        config=TinyConfig(train=config),
        train=config,
        context=32,
        trained=TrainedModel(model=model, tokenizer=TOKENIZER),
        objective=NextToken(),
        source=packed_source(TRAIN, 32, config.batch_tokens),
        validation=packed_validation(VALID, 32, TOKENIZER),
        sample=lambda: [("the", "cat")],
    )


def stop_after(job: TrainingJob, step: int) -> TrainingJob:
    """The same, told to stop when it samples for the n-th time, that is, while the step after is next."""
    calls = 0

    def sample() -> list[tuple[str, str]]:
        nonlocal calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return [("the", "cat")]

    return replace(job, sample=sample)


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What a run came to: all metrics that do not depend on time, and the hashes of its last checkpoint."""
    timed = {"seconds", "tokens_per_second"}
    rows = [{k: v for k, v in row.items() if k not in timed} for row in RunReader(folder).metrics()]
    latest = folder / "checkpoints" / "latest"
    names = ("model.safetensors", "training_state/optimizers.safetensors", "config.json")
    return rows, {name: hashlib.sha256((latest / name).read_bytes()).hexdigest() for name in names}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    fit(make_job(folder))
    return folder


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


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    fit(make_job(tmp_path / "run", checkpoint_every=2, keep_checkpoints=2))
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["latest", "step-000006", "step-000007"]


def test_metrics_are_logged_at_their_cadence_and_whenever_validated(tmp_path: Path) -> None:
    fit(make_job(tmp_path / "run", log_every=3, valid_every=4))
    assert [row["step"] for row in RunReader(tmp_path / "run").metrics()] == [0, 3, 4, 6, 7]


def test_without_validation_data_a_run_still_ends(tmp_path: Path) -> None:
    fit(replace(make_job(tmp_path / "run"), validation=None))
    assert RunReader(tmp_path / "run").finished() == {"step": TOTAL}


def test_epochs_are_counted_in_steps(tmp_path: Path) -> None:
    steps = PackedRows(TRAIN, context=32, batch_tokens=96, seed=0).steps_per_epoch
    for epochs, expected in ((1.0, steps), (2.0, 2 * steps), (0.5, math.ceil(steps / 2)), (0.001, 1)):
        job = make_job(tmp_path / "run", steps=None, epochs=epochs)
        assert module._Fit(job, module.World(), None).trainer.total_steps == expected


# ---- going on


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


def test_another_tokenizer_under_the_same_name_is_refused(whole: Path) -> None:
    other, job = Tokenizer.train([TEXT[::-1]], 300), make_job(whole)
    with pytest.raises(CheckpointError, match=f"trained with tokenizer {TOKENIZER.fingerprint[:12]}, got"):
        fit(replace(job, trained=replace(job.trained, tokenizer=other)))


def test_arithmetic_that_was_measured_once_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(module, "fastest_dtype", lambda device: torch.bfloat16)
    with pytest.raises(SystemExit):
        fit(stop_after(make_job(folder, dtype="auto"), 2))
    monkeypatch.setattr(module, "fastest_dtype", lambda device: torch.float32)
    assert module._Fit(make_job(folder, dtype="auto"), module.World(), None).dtype == torch.bfloat16


# ---- damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "training_state/optimizers.safetensors", "training_state/facts.json", "manifest.json"]
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], name: str
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        fit(stop_after(make_job(folder, checkpoint_every=2), 4))
    damage(folder / "checkpoints" / "step-000005" / name)
    capsys.readouterr()
    fit(make_job(folder, checkpoint_every=5))
    captured = capsys.readouterr()
    assert "step-000005" in captured.out + captured.err and "resuming at step 4" in captured.err
    assert outcome(folder) == outcome(whole)


def test_when_no_checkpoint_is_whole_nothing_is_started_silently(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        fit(stop_after(make_job(folder), 2))
    cut(folder / "checkpoints" / "step-000003" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"none of its 1 checkpoints is whole"):
        fit(make_job(folder))


def failing(error: BaseException | None, at: int) -> NextToken:
    """An objective that raises at its n-th training batch, or where there is no error is NaN from then on."""

    class Failing(NextToken):
        seen = 0

        def __call__(self, model: nn.Module, batch: Batch) -> Loss:
            loss = super().__call__(model, batch)
            Failing.seen += torch.is_grad_enabled()
            if Failing.seen < at or not torch.is_grad_enabled():
                return loss
            if error is not None:
                raise error
            return Loss(loss.total * math.nan, loss.means)

    return Failing()


def test_the_batch_that_cannot_be_learnt_is_kept_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"step 6: .* the last batch is in .*bad-batch-rank0\.safetensors"):
        fit(replace(make_job(folder, accumulate=2), objective=failing(None, at=3)))
    kept = load_file(folder / "bad-batch-rank0.safetensors")
    source = PackedRows(TRAIN, context=32, batch_tokens=96, seed=0, accumulate=2)
    for number, batch in enumerate(source.micro_batches(5)):
        for name in ("tokens", "targets", "weights"):
            assert torch.equal(kept[f"{number}.{name}"], getattr(batch, name))
        assert tuple(kept[f"{number}.lengths"].tolist()) == batch.lengths
    assert RunReader(folder).metrics()[-1]["skipped"] == 5


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
