"""A job of seven quick steps for the tests of this folder, and what its runs leave behind."""

import hashlib
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from minimind.config import Config
from minimind.interfaces import Batch, Loss
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.stages.shared.rows import packed_source, packed_validation
from minimind.storage.run import RunReader
from minimind.text.tokenizer import Tokenizer
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


def spoilt(*batches: int) -> NextToken:
    """An objective that is NaN at these of its training batches, counted from 1."""

    class Spoilt(NextToken):
        seen = 0

        def __call__(self, model: nn.Module, batch: Batch) -> Loss:
            loss = super().__call__(model, batch)
            Spoilt.seen += torch.is_grad_enabled()
            is_bad = torch.is_grad_enabled() and Spoilt.seen in batches
            return Loss(loss.total * math.nan, loss.means) if is_bad else loss

    return Spoilt()
