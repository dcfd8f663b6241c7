"""`minimind report` knows the defaults of the stages and where the page belongs."""

import json
from pathlib import Path

import pytest

from minimind.stages.report import ReportConfig, run
from minimind.stages.tokenizer import TokenizerConfig


def write_tokenizer_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    settings = TokenizerConfig(source=["texts"], out=folder, vocab_size=7000).resolved()
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "environment.json").write_text('{"stage": "tokenizer"}')
    return folder


def test_the_page_of_one_run_lies_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tokenizer_run(tmp_path / "run")
    run(ReportConfig(runs=[folder]))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out == f"report: {folder}/report.html (one file, open it in any browser)\n"
    # source, out and vocab_size; pattern, add_prefix_space, text_column, max_bytes and replace are the defaults.
    assert "differ from the defaults (3)" in page and "All settings (8)" in page


def test_the_page_of_several_runs_lies_here_unless_it_is_sent_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_tokenizer_run(tmp_path / name) for name in ("a", "b")]
    monkeypatch.chdir(tmp_path)
    run(ReportConfig(runs=folders))
    run(ReportConfig(runs=folders, out=tmp_path / "elsewhere" / "page.html"))
    pages = [tmp_path / "report.html", tmp_path / "elsewhere" / "page.html"]
    assert pages[0].read_bytes() == pages[1].read_bytes()
