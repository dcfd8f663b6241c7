"""`minimind inspect` tells by itself what lies at a path, prints it, and refuses what does not belong together."""

import inspect
import json
from pathlib import Path

import pytest

from minimind.cli import main
from minimind.text.tokenizer import Tokenizer


def test_the_module_does_not_stand_in_for_the_standard_librarys() -> None:
    assert hasattr(inspect, "cleandoc") and "minimind" not in str(inspect.__file__)


def test_a_model_is_shown(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny)]) == 0
    out = capsys.readouterr().out
    assert "Parameters by part" in out and "verified: every file" in out and "feed-forward" in out


def test_data_files_and_a_tokenizer_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "[red]hello[/red]"}) + "\n{oops\n")
    assert main(["inspect", str(tmp_path / "a.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "text 1" in out and "[red]hello[/red]" in out and "a.jsonl:2: not JSON" in out
    Tokenizer.train(["hello world"], 295).save(tmp_path / "tokenizer")
    (tmp_path / "b.txt").write_text("你好")
    assert main(["inspect", str(tmp_path / "tokenizer"), "--text", str(tmp_path / "b.txt")]) == 0
    assert "Longest tokens" in (out := capsys.readouterr().out) and "zh" in out


def test_prepared_data_show_what_is_learnt(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = {"messages": [{"role": "user", "content": "what is one?"}, {"role": "assistant", "content": "three."}]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(chat) + "\n")
    words = ["--source", str(tmp_path / "chats.jsonl"), "--tokenizer", str(tiny), "--out", str(tmp_path / "data")]
    assert main(["prepare", *words, "--valid_fraction", "0"]) == 0
    assert main(["inspect", str(tmp_path / "data")]) == 0
    # Without a terminal there are no colours, so brackets mark it.
    assert "[[three.<|im_end|>]]" in capsys.readouterr().out


def test_nothing_there_is_a_clear_error(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nowhere"]) == 2
    assert "nowhere: not there; expected a model folder" in capsys.readouterr().err
    assert main(["inspect", str(tiny), "--text", "a.txt"]) == 2
    assert "is no tokenizer; --text" in capsys.readouterr().err
