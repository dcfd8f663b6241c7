"""`minimind export` writes each format, says how to use it, and never leaves half of one."""

from pathlib import Path

import pytest
import torch
from tests.interop.test_peft_export import adapted
from tests.interop.tiny_models import tiny_model

from minimind.cli import main
from minimind.storage.adapters import fingerprint
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.text.tokenizer import Tokenizer

Words = list[str]


def export(model: Path, out: Path, *words: str) -> int:
    return main(["export", str(model), "--out", str(out), *words])


@pytest.mark.parametrize(
    ("words", "files", "says"),
    [
        ([], ["README.md", "model.safetensors", "tokenizer.json"], "equal to the bit, and the same text"),
        (["--dtype", "bf16"], ["README.md", "model.safetensors"], "rounded to bf16: logits differ by"),
        (["--format", "gguf"], ["out-F32.gguf", "Modelfile"], "equal to the bit, and the same text"),
        (["--format", "gguf", "--dtype", "q8_0"], ["out-Q8_0.gguf", "Modelfile"], "rounded to q8_0"),
        (["--format", "onnx"], ["README.md", "config.json", "onnx"], "logits differ by"),
        (["--format", "minimind", "--dtype", "f16"], ["out_32.pth", "tokenizer.json"], "rounded to f16"),
    ],
)
def test_a_model_is_written_in_each_format(
    words: Words, files: Words, says: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tiny, tmp_path / "out", *words) == 0

    printed = capsys.readouterr().out
    assert set(files) <= {path.name for path in (tmp_path / "out").iterdir()}
    assert says in printed and "sha256" in printed and str(tmp_path / "out") in printed
    assert all(name in printed for name in files)


def test_the_hf_folder_is_the_model(tiny: Path, tmp_path: Path) -> None:
    export(tiny, tmp_path / "out")

    models = [load_model(folder)[0] for folder in (tiny, tmp_path / "out")]
    assert fingerprint(models[0]) == fingerprint(models[1])


def test_an_adapter_is_merged_or_written_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.train(["some words to learn " * 30], 300)
    save_checkpoint(tmp_path / "runs" / "base", tiny_model(tokenizer, head_dim=16), tokenizer)
    adapted(tokenizer, tmp_path / "adapter", targets=("q_proj", "o_proj"))
    monkeypatch.chdir(tmp_path)

    for words in (["hf"], ["peft", "--base", "me/base"], ["minimind-lora", "--dtype", "f16"]):
        assert export(Path("adapter"), Path(words[0]), "--format", *words) == 0

    merged, base = load_model("hf")[0], load_model("runs/base")[0]
    names = [name for name in base.state_dict() if not torch.equal(merged.state_dict()[name], base.state_dict()[name])]
    assert {name.split(".")[3] for name in names} == {"q_proj", "o_proj"}
    assert "where model is me/base" in capsys.readouterr().out
    assert Path("minimind-lora/minimind-lora_64.pth").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--dtype", "q8_0"], "--format hf has no --dtype q8_0; expected one of f32, f16, bf16"),
        (["--format", "minimind", "--dtype", "q4_0"], "--format minimind has no --dtype q4_0"),
        (["--format", "onnx", "--dtype", "f16"], "--format onnx has no --dtype f16; expected one of f32"),
        (["--base", "me/base"], "--base is for --format peft"),
        (["--format", "peft"], "holds a model and no adapter"),
        (["--format", "minimind-lora"], "holds a model and no adapter"),
    ],
)
def test_a_wrong_wish_is_told_in_a_line(
    words: Words, says: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tiny, tmp_path / "out", *words) == 2

    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_left_alone(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()

    assert export(tiny, tmp_path / "out") == 2

    assert "exists already; choose another --out" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
