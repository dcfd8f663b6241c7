"""An exported folder is whole and proved, or not there."""

import hashlib
from pathlib import Path

import pytest
import torch
from tests.interop.tiny_models import tiny_model

from minimind.errors import CheckpointError
from minimind.interop.exported import require_same_model, write_export
from minimind.text.tokenizer import Tokenizer


def test_the_files_are_listed_with_their_hashes_and_nothing_else_is_there(tmp_path: Path) -> None:
    def fill(place: Path) -> None:
        (place / "small").write_bytes(b"a")
        (place / "large").write_bytes(b"bbb")

    files = write_export(tmp_path / "out", fill, need_bytes=4)

    assert [(file.name, file.num_bytes) for file in files] == [("large", 3), ("small", 1)]
    assert files[0].sha256 == hashlib.sha256(b"bbb").hexdigest()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["large", "out", "small"]


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(CheckpointError, match="exists already"):
        write_export(tmp_path / "out", lambda place: None, need_bytes=0)


def test_what_fails_its_check_leaves_nothing(tmp_path: Path) -> None:
    def fill(place: Path) -> None:
        (place / "weights").write_bytes(b"wrong")
        raise CheckpointError("came back different")

    with pytest.raises(CheckpointError, match="came back different"):
        write_export(tmp_path / "out", fill, need_bytes=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", [0.0, 2**-8])
def test_the_same_model_is_the_same(step: float, tokenizer: Tokenizer) -> None:
    pair = tiny_model(tokenizer), tokenizer
    assert require_same_model("out", pair, pair, step=step) == 0


def test_one_bit_is_a_difference_where_nothing_was_rounded(tokenizer: Tokenizer) -> None:
    model, other = tiny_model(tokenizer), tiny_model(tokenizer)
    with torch.no_grad():
        other.norm.weight[3] = torch.nextafter(other.norm.weight[3], torch.tensor(9.0))

    with pytest.raises(CheckpointError, match=r"out: not written, norm.weight came back different"):
        require_same_model("out", (model, tokenizer), (other, tokenizer), step=0)
    assert 0 < require_same_model("out", (model, tokenizer), (other, tokenizer), step=2**-20) < 1e-5


def test_another_weight_is_not_taken_for_a_rounded_one(tokenizer: Tokenizer) -> None:
    model, other = tiny_model(tokenizer), tiny_model(tokenizer)
    with torch.no_grad():
        row = other.layers[0].self_attn.q_proj.weight[5]
        row[7] += row.abs().max() / 50

    with pytest.raises(CheckpointError, match=r"layers.0.self_attn.q_proj.weight came back different: by up to 0.0"):
        require_same_model("out", (model, tokenizer), (other, tokenizer), step=1 / 100)


@pytest.mark.parametrize("changes", [{"rope_theta": 1e4}, {"rms_norm_eps": 1e-6}])
def test_a_setting_that_changed_is_named(changes: dict[str, float], tokenizer: Tokenizer) -> None:
    model, other = tiny_model(tokenizer), tiny_model(tokenizer, **changes)

    with pytest.raises(CheckpointError, match="the shape came back different"):
        require_same_model("out", (model, tokenizer), (other, tokenizer), step=1 / 100)


def test_another_vocabulary_is_named(tokenizer: Tokenizer) -> None:
    other = Tokenizer.train(["other words " * 20], 300)

    with pytest.raises(CheckpointError, match="the tokenizer came back different"):
        require_same_model("out", (tiny_model(tokenizer), tokenizer), (tiny_model(tokenizer), other), step=1 / 100)
