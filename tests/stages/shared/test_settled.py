"""What is left open about training follows from the data once, is said, and stays as long as the run goes on."""

import json
from pathlib import Path

import pytest

from minimind.data.options import PrepareOptions
from minimind.data.prepare import prepare
from minimind.data.shards import ShardSet
from minimind.stages.shared.settled import settled, size_of
from minimind.text.tokenizer import Tokenizer
from minimind.training.settings import TrainConfig


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder, tokenizer = tmp_path_factory.mktemp("data"), Tokenizer.train(["a small text"], 300)
    row = {"messages": [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "a small text"}]}
    (folder / "chats.jsonl").write_text((json.dumps(row) + "\n") * 20)
    prepare([folder / "chats.jsonl"], tokenizer, folder / "out", PrepareOptions(valid_fraction=0, workers=1))
    return ShardSet.open(folder / "out" / "train", tokenizer)


def test_the_size_of_data_is_what_is_learnt_from(documents: ShardSet) -> None:
    size = size_of(documents, documents, 64)
    assert (size.tokens, size.learnt, size.kind) == (documents.num_tokens, documents.num_weighted, "conversation")


def test_what_was_chosen_is_said_in_a_line(
    documents: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = settled(TrainConfig(epochs=2), tmp_path, documents, documents, 64)
    assert train.epochs == 2 and train.batch_tokens == 1024 and train.warmup_steps == 0
    assert capsys.readouterr().err.startswith("train.batch_tokens 1024, train.warmup_steps 0 for ")


def test_a_run_that_has_begun_goes_on_as_it_began(documents: ShardSet, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-000001").mkdir(parents=True)
    began = {"epochs": 7.0, "batch_tokens": 640, "warmup_steps": 3}
    (tmp_path / "config.json").write_text(json.dumps({"train": began}))
    train = settled(TrainConfig(warmup_steps=5), tmp_path, documents, documents, 64)
    assert (train.epochs, train.batch_tokens, train.warmup_steps) == (7.0, 640, 5)
