"""The average is the weighted mean of the weights, and only of models that belong together."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.cli import main
from minimind.model import Transformer
from minimind.stages.average import shares_of
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.storage.verify import verify_folder
from minimind.text.tokenizer import Tokenizer


@pytest.fixture
def three(tiny: Path, tmp_path: Path) -> list[Path]:
    """Three models of one shape, their weights drawn apart."""
    model, tokenizer = load_model(tiny)
    folders = [tmp_path / name for name in "abc"]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        save_checkpoint(folder, model, tokenizer)
    return folders


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in load_model(folder)[0].state_dict().values()])


def test_the_mean_is_written_as_a_model_folder(three: list[Path], tmp_path: Path) -> None:
    assert main(["average", *map(str, three), "--out", str(tmp_path / "mean")]) == 0
    expected = torch.stack([weights(folder) for folder in three]).double().mean(0)
    torch.testing.assert_close(weights(tmp_path / "mean").double(), expected, rtol=0, atol=1e-6)
    assert verify_folder(tmp_path / "mean")
    words = ["--weights", "exponential", "--decay", "0.5", "--out", str(tmp_path / "late")]
    assert main(["average", *map(str, three), *words]) == 0
    expected = sum(share * weights(folder) for share, folder in zip((1 / 7, 2 / 7, 4 / 7), three, strict=True))
    torch.testing.assert_close(weights(tmp_path / "late"), expected, rtol=0, atol=1e-6)


def test_equal_models_average_to_themselves_bit_for_bit(three: list[Path], tmp_path: Path) -> None:
    assert main(["average", *[str(three[0])] * 4, "--out", str(tmp_path / "same")]) == 0
    assert torch.equal(weights(tmp_path / "same"), weights(three[0]))


def test_the_checkpoints_of_a_run_are_averaged(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("one two three four five six seven eight nine ten. " * 20)
    Tokenizer.train(["one two three four"], 295).save(tmp_path / "tokenizer")
    options: dict[str, Any] = {
        **{"run": tmp_path / "run", "data.source": tmp_path / "a.txt", "tokenizer": tmp_path / "tokenizer"},
        **{"data.context": 32, "train.batch_tokens": 32, "train.steps": 3, "train.checkpoint_every": 1},
        **{"train.keep_checkpoints": 3, "model.hidden_size": 16, "model.num_hidden_layers": 1},
        **{"model.num_attention_heads": 2, "model.num_key_value_heads": 1, "model.head_dim": 8},
        "model.intermediate_size": 16,
    }
    assert command("pretrain", options) == 0
    assert main(["average", str(tmp_path / "run"), "--last", "2", "--out", str(tmp_path / "mean")]) == 0
    folders = [tmp_path / "run" / "checkpoints" / f"step-00000{step}" for step in (2, 3)]
    torch.testing.assert_close(
        weights(tmp_path / "mean"), (weights(folders[0]) + weights(folders[1])) / 2, rtol=0, atol=1e-7
    )
    assert "50.00%" in capsys.readouterr().out


def test_other_shapes_and_tokenizers_are_refused_with_both_names(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = load_model(three[0])
    wider = Transformer(dataclasses.replace(model.config, intermediate_size=80))
    save_checkpoint(tmp_path / "wide", wider, tokenizer)
    save_checkpoint(tmp_path / "words", model, Tokenizer.train(["another text"], 295))
    for other, problem in (("wide", "intermediate_size 64 and"), ("words", "has tokenizer")):
        assert main(["average", str(three[0]), str(tmp_path / other), "--out", str(tmp_path / "x")]) == 2
        error = capsys.readouterr().err
        assert str(three[0]) in error and str(tmp_path / other) in error and problem in error
    assert not (tmp_path / "x").exists()


def test_one_checkpoint_is_nothing_to_average(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["average", str(tiny), "--out", str(tmp_path / "x")]) == 2
    assert "has 0 checkpoints to average, expected 2 or more" in capsys.readouterr().err
    assert main(["average", str(tiny), str(tiny), "--out", str(tiny)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_shares_sum_to_one() -> None:
    assert shares_of(4, 1.0) == [0.25] * 4
    assert sum(shares_of(5, 0.3)) == pytest.approx(1) and shares_of(3, 0.5)[-1] == pytest.approx(4 / 7)
