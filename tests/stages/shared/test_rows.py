"""Prepared documents as training rows and as a validation that does not move."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from minimind.data.corpus import RowKind
from minimind.data.loader import Subset
from minimind.data.options import PrepareOptions
from minimind.data.prepare import prepare
from minimind.data.shards import ShardSet
from minimind.errors import ConfigError, DataError
from minimind.interfaces import Batch
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.stages.shared.rows import DataConfig, open_documents, packed_source, packed_validation, warn_of_other_kind
from minimind.text.tokenizer import Tokenizer
from minimind.training.distributed import World
from minimind.training.job import Placement
from minimind.training.settings import TrainConfig

TEXT = "the cat sat on the mat and the dog sat on the log while the sun went down over a small red house . "
TOKENIZER = Tokenizer.train([TEXT], 300)


class Documents:
    """Random ids, as many documents as lengths."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths)
        random = np.random.default_rng(0)
        self.ids = [random.integers(36, TOKENIZER.vocab_size, n) for n in lengths]

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self.ids[document]
        return ids, (np.arange(len(ids)) > 0).astype(np.float32)


class Measured:
    """Stands for a trainer: keeps the batches that it is asked to measure."""

    def measure(self, batches: list[Batch], objective: object = None) -> dict[str, float]:
        self.batches = batches
        return {"loss": 2.0}


def placement(rank: int = 0, size: int = 1, **settings: object) -> Placement:
    world = World(rank, size)
    # As if each rank had the same sums as this one: nothing is sent anywhere.
    object.__setattr__(world, "sum", lambda values: [size * value for value in values])
    return Placement(world, torch.float32, TrainConfig(**settings))  # type: ignore[arg-type]


def test_a_validation_is_the_same_documents_whatever_the_seed_and_the_context() -> None:
    """A sweep over either would otherwise compare figures of different texts."""
    documents = Documents([50 + n % 7 for n in range(4000)])
    seen = []
    for context, seed in ((64, 0), (128, 0), (128, 5)):
        validation = packed_validation(documents, context, TOKENIZER)
        assert validation is not None
        trainer = Measured()
        figures = validation(placement(seed=seed))(trainer)  # type: ignore[arg-type]
        weights = [float(batch.weights.sum()) for batch in trainer.batches]
        ids = sorted(int(i) for batch in trainer.batches for i in batch.targets[batch.weights != 0])
        seen.append((ids, sum(weights), figures["bits_per_byte"]))
    assert seen[0] == seen[1] == seen[2]
    assert 60000 < seen[0][1] < 70000


def test_ranks_share_a_validation_without_rest() -> None:
    documents = Documents([20] * 40)
    validation = packed_validation(documents, 64, TOKENIZER)
    assert validation is not None
    weights = []
    for rank in range(3):
        trainer = Measured()
        validation(placement(rank, 3))(trainer)  # type: ignore[arg-type]
        weights.append(sum(float(batch.weights.sum()) for batch in trainer.batches))
    assert sum(weights) == 40 * 19


def test_bits_per_byte_are_nats_over_bytes_spelled() -> None:
    validation = packed_validation(Documents([30] * 10), 64, TOKENIZER)
    assert validation is not None
    trainer = Measured()
    figures = validation(placement())(trainer)  # type: ignore[arg-type]
    spelled = sum(
        len(TOKENIZER.token_bytes[int(i)]) for batch in trainer.batches for i in batch.targets[batch.weights != 0]
    )
    assert figures["valid_loss"] == 2.0
    assert figures["bits_per_byte"] == pytest.approx(2.0 * 290 / math.log(2) / spelled)


@pytest.mark.parametrize("lengths", [[], [1, 1]])
def test_without_anything_to_predict_there_is_no_validation(lengths: list[int]) -> None:
    assert packed_validation(Documents(lengths), 64, TOKENIZER) is None
    assert packed_validation(None, 64, TOKENIZER) is None


def test_training_rows_follow_the_settings_of_the_run() -> None:
    source = packed_source(Documents([30] * 50), 64, 640)(placement(rank=1, size=2, seed=3))
    assert (source.items_per_step, source.seed, source.rank, source.ranks) == (10, 3, 1, 2)
    assert source.describe() == "50 documents in 25 rows of 64 (90.6% full), 640 tokens a step"
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = Transformer(ModelConfig(vocab_size=TOKENIZER.vocab_size, head_dim=8, intermediate_size=24, **shape))
    [batch] = source.micro_batches(0)
    assert NextToken()(model, batch).total.isfinite()


# ---- sources


def write(path: Path, texts: list[str]) -> list[str]:
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return [str(path)]


@pytest.fixture
def source(tmp_path: Path) -> list[str]:
    return write(tmp_path / "text.txt", [TEXT] * 3)


def test_raw_sources_are_prepared_into_the_run_once(tmp_path: Path, source: list[str]) -> None:
    first, _ = open_documents(DataConfig(source=source), TOKENIZER, tmp_path / "run")
    Path(source[0]).unlink()
    second, _ = open_documents(DataConfig(source=source), TOKENIZER, tmp_path / "run")
    assert isinstance(first, ShardSet) and isinstance(second, ShardSet)
    assert first.folder == second.folder and tmp_path / "run" in first.folder.parents


def test_files_that_have_changed_are_not_taken_for_what_was_prepared(tmp_path: Path, source: list[str]) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    shutil.copy(source[0], texts / "a.txt")
    data = DataConfig(source=[str(texts)])
    open_documents(data, TOKENIZER, tmp_path / "run")
    open_documents(data, TOKENIZER, tmp_path / "run")
    for name, text in (("b.txt", "more"), ("a.txt", "other")):
        content = (texts / name).read_text() if (texts / name).exists() else None
        (texts / name).write_text(text)
        with pytest.raises(DataError, match=rf"{name}: has changed since .*give another --run"):
            open_documents(data, TOKENIZER, tmp_path / "run")
        (texts / name).unlink() if content is None else (texts / name).write_text(content)


def test_sources_that_were_tried_before_are_not_taken_for_others(tmp_path: Path, source: list[str]) -> None:
    """The first attempt may have failed later, at an option; then another source was named."""
    first, _ = open_documents(DataConfig(source=source), TOKENIZER, tmp_path / "run")
    other = write(tmp_path / "other.txt", ["quite another text"])
    second, _ = open_documents(DataConfig(source=other), TOKENIZER, tmp_path / "run")
    assert int(first.lengths.sum()) != int(second.lengths.sum())


def test_a_prepared_folder_is_used_where_it_is(tmp_path: Path, source: list[str]) -> None:
    prepared, _ = open_documents(DataConfig(source=source), TOKENIZER, tmp_path / "one")
    assert isinstance(prepared, ShardSet)
    again, _ = open_documents(DataConfig(source=[str(prepared.folder.parent)]), TOKENIZER, tmp_path / "two")
    assert isinstance(again, ShardSet) and again.folder == prepared.folder and not (tmp_path / "two").exists()


def test_data_of_another_tokenizer_is_refused(tmp_path: Path, source: list[str]) -> None:
    prepared, _ = open_documents(DataConfig(source=source), TOKENIZER, tmp_path / "one")
    assert isinstance(prepared, ShardSet)
    other = Tokenizer.train([TEXT[::-1]], 300)
    with pytest.raises(DataError, match=r"prepared with tokenizer"):
        open_documents(DataConfig(source=[str(prepared.folder.parent)]), other, tmp_path / "two")


def test_several_processes_do_not_prepare_the_same_sources(
    tmp_path: Path, source: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"text.txt, which 2 processes would each prepare; prepare it first"):
        open_documents(DataConfig(source=source), TOKENIZER, tmp_path / "run")


# ---- what is told of the data


@pytest.fixture(scope="module")
def few_chats(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder, tokenizer = tmp_path_factory.mktemp("chats"), Tokenizer.train(["a small text"], 300)
    row = {"messages": [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "a small text"}]}
    (folder / "chats.jsonl").write_text((json.dumps(row) + "\n") * 5)
    prepare([folder / "chats.jsonl"], tokenizer, folder / "out", PrepareOptions(valid_fraction=0, workers=1))
    return ShardSet.open(folder / "out" / "train", tokenizer)


def test_data_that_cannot_be_prepared_leave_no_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"broken')
    tokenizer = Tokenizer.train(["a small text"], 300)
    with pytest.raises(DataError, match="not JSON"):
        open_documents(DataConfig(source=[str(tmp_path / "bad.jsonl")]), tokenizer, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("expected", "told"), [("text", "conversations, of which only the answers"), ("conversation", "")]
)
def test_data_for_another_stage_are_told(
    few_chats: ShardSet, capsys: pytest.CaptureFixture[str], expected: RowKind, told: str
) -> None:
    warn_of_other_kind(few_chats, expected)
    said = capsys.readouterr().err
    assert told in said and bool(told) == bool(said)


def test_held_out_documents_that_are_too_few_are_told(few_chats: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Tokenizer.train(["a small text"], 300)
    for count, is_told in ((2, True), (3, False)):
        assert packed_validation(Subset(few_chats, np.arange(count)), 64, tokenizer) is not None
        assert ("held out: 2 of the documents, too few" in capsys.readouterr().err) == is_told
