"""What was prepared is told as it was counted, with a reason for all that was dropped."""

from pathlib import Path

from tests.tiny import TOKENIZER, write_rows

from minimind.data.options import DedupConfig, PrepareOptions
from minimind.data.prepare import prepare
from minimind.report.data import data_table


def test_each_source_has_a_row_of_what_became_of_it(tmp_path: Path) -> None:
    texts = [f"{number} hello world, hello there" for number in range(40)]
    source = write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in [*texts, texts[0], texts[1]]])
    options = PrepareOptions(valid_fraction=0.2, workers=1, dedup=DedupConfig())
    prepare([source], TOKENIZER, tmp_path / "data", options)
    table = data_table({"data": {"source": [str(tmp_path / "data"), str(tmp_path / "gone")]}})
    assert table is not None
    ((name, read, learnt, held, dropped, bad, _, share),) = table.rows
    assert (name, read, bad) == (str(tmp_path / "data"), "42", "0") and share.endswith("%")
    assert dropped.startswith("2 ") and "duplicate" in dropped
    assert int(learnt) + int(held) == 40


def test_without_prepared_data_there_is_no_table() -> None:
    for settings in ({}, {"data": {}}, {"data": {"source": None}}, {"data": {"source": [3, "gone"]}}, {"data": "x"}):
        assert data_table(settings) is None
