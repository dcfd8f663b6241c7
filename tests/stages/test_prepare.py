"""`minimind prepare`: the summary accounts for every row, and mistakes are one line."""

import json
from pathlib import Path

import pytest

from minimind.cli import main, parse
from minimind.data.options import DedupConfig
from minimind.data.shards import ShardSet
from minimind.stages.prepare import PrepareConfig, run
from minimind.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(["the cat sat on a mat and looked at the sun " * 9], 310).save(folder)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "x.jsonl"
    texts = [f"the cat sat on mat {number}" for number in range(40)] + ["the cat sat on mat 1", ""]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "broken\n")
    return path


def test_the_summary_accounts_for_every_row(
    source: Path, tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        PrepareConfig(
            source=[str(source)],
            tokenizer=tokenizer_folder,
            out=tmp_path / "out",
            valid_fraction=0.3,
            max_bad_rows=1,
            dedup=DedupConfig(),
        )
    )
    out = capsys.readouterr().out
    shards = [ShardSet.open(tmp_path / "out" / name, Tokenizer.load(tokenizer_folder)) for name in ("train", "valid")]
    assert sum(map(len, shards)) == 40
    shown = [line.split()[1:3] for line in out.splitlines() if line.startswith(("train ", "valid "))]
    assert shown == [[str(len(part)), f"{part.num_tokens:,}"] for part in shards]
    assert "read 42 documents from 1 files in" in out
    assert "dropped 1 documents" in out and ": exact duplicate\n" in out and "(2 tokens): empty\n" in out
    assert f"skipped 1 bad rows: {tmp_path}/out/bad_rows.log\n" in out
    assert out.endswith(
        f"{tmp_path}/out: {shards[0].num_tokens:,} tokens to train on, {shards[1].num_tokens:,} to validate on\n"
    )


def test_a_small_corpus_and_leaks_are_warned_about(
    source: Path, tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "valid.jsonl").write_text('{"text": "the cat sat on mat 7"}\n')
    words = ["--tokenizer", str(tokenizer_folder), "--source", str(source), "--max_bad_rows", "1"]
    assert main(["prepare", *words, "--out", str(tmp_path / "a"), "--valid", str(tmp_path / "valid.jsonl")]) == 0
    assert (
        "warning: 1 validation texts are in the training data too; --dedup.exact drops them" in capsys.readouterr().err
    )
    assert main(["prepare", *words, "--out", str(tmp_path / "b"), "--valid_fraction", "0.0001"]) == 0
    assert (
        "warning: 0.0001 of so few documents is none to validate on; raise --valid_fraction" in capsys.readouterr().err
    )


def test_a_bad_row_is_one_line_and_exit_code_2(
    source: Path, tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--tokenizer", str(tokenizer_folder), "--source", str(source), "--out", str(tmp_path / "out")]
    assert main(["prepare", *words]) == 2
    assert capsys.readouterr().err == (
        f"error: {source}:43: not JSON: Expecting value at column 1 (bad row 1, max_bad_rows allows 0; raise it to "
        "skip such rows)\n"
    )
    assert not (tmp_path / "out").exists()


def test_options_come_from_a_recipe_and_sections_switch_on(tmp_path: Path) -> None:
    recipe = tmp_path / "prepare.toml"
    recipe.write_text('source = ["a", "b"]\ntokenizer = "t"\nout = "o"\nvalid_fraction = 0.02\n[dedup]\nnear = true\n')
    config = parse("prepare", [str(recipe), "--clean.max_broken", "0.2"])
    assert isinstance(config, PrepareConfig) and config.source == ["a", "b"] and config.valid_fraction == 0.02
    assert config.dedup == DedupConfig(near=True) and config.clean is not None and config.clean.max_broken == 0.2


def test_other_data_are_replaced_only_when_told(
    source: Path, tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was trained from them could not go on."""
    out = tmp_path / "out"
    words = ["prepare", "--tokenizer", str(tokenizer_folder), "--out", str(out), "--max_bad_rows", "1"]
    given = [*words, "--source", str(source)]
    assert main(given) == 0
    before = (out / "train" / "index.json").read_bytes()
    assert main(given) == 0, "the same again loses nothing"

    assert main([*given, "--valid_fraction", "0.5"]) == 2
    assert "holds data whose part train differs from what these sources and options give" in capsys.readouterr().err
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "the sun"}\n')
    assert main([*words, "--source", str(other)]) == 2
    assert f"holds data prepared from {source}; a run that was trained" in capsys.readouterr().err
    assert (out / "train" / "index.json").read_bytes() == before

    assert main([*words, "--source", str(other), "--valid_fraction", "0", "--replace"]) == 0
    assert (out / "train" / "index.json").read_bytes() != before
