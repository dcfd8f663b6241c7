"""What a checkpoint keeps of a run comes back bit for bit, and nothing else is taken for it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import OTHER_TOKENIZER, TOKENIZER, fresh_model
from torch import nn

from minimind.errors import CheckpointError
from minimind.storage.checkpoint import load_model
from minimind.training.trained_model import TrainedModel


def make(seed: int, head: bool = False) -> TrainedModel:
    return TrainedModel(model=fresh_model(seed), tokenizer=TOKENIZER, head=nn.Linear(32, 1) if head else None)


def test_a_model_and_a_head_come_back_as_they_were(tmp_path: Path) -> None:
    saved, other = make(0, head=True), make(1, head=True)
    saved.save(tmp_path / "model", {"more.json": b"{}"}, 0)
    other.load(tmp_path / "model")
    for ours, theirs in ((saved.model, other.model), (saved.head, other.head)):
        assert ours is not None and theirs is not None
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name])
    assert (tmp_path / "model" / "more.json").read_bytes() == b"{}"


def test_the_folder_is_a_model_that_anything_loads(tmp_path: Path) -> None:
    saved = make(0, head=True)
    saved.save(tmp_path / "model", {}, 0)
    model, _ = load_model(tmp_path / "model")
    ids = torch.tensor([[1, 40, 50]])
    assert torch.equal(model(ids), saved.model(ids))


def test_a_checkpoint_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    make(0).save(tmp_path / "model", {}, 0)
    other = replace(make(1), tokenizer=OTHER_TOKENIZER)
    with pytest.raises(CheckpointError, match="trained with tokenizer"):
        other.load(tmp_path / "model")


def test_a_checkpoint_without_the_head_is_refused(tmp_path: Path) -> None:
    make(0).save(tmp_path / "model", {}, 0)
    with pytest.raises(CheckpointError, match=r"value_head\.safetensors: cannot be used"):
        make(1, head=True).load(tmp_path / "model")
