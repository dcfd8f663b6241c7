"""What lies at a path is told by its files, and what lies nowhere is an error that says what was expected."""

from pathlib import Path

import numpy as np
import pytest

from minimind.errors import DataError
from minimind.report.inspection import beginning, kind_at, length_table


def test_the_files_of_a_folder_tell_what_it_is(tmp_path: Path) -> None:
    for folder, file in (("m", "config.json"), ("p", "train/index.json"), ("s", "index.json"), ("t", "tokenizer.json")):
        path = tmp_path / folder / file
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jsonl").write_text("{}\n")
    kinds = {name: kind_at(str(tmp_path / name)) for name in "mpstd"}
    assert kinds == {"m": "model", "p": "prepared", "s": "prepared", "t": "tokenizer", "d": "rows"}
    assert kind_at("builtin://questions") == kind_at(str(tmp_path / "d" / "a.jsonl")) == "rows"
    assert kind_at(str(tmp_path / "t" / "tokenizer.json")) == "tokenizer"


def test_nothing_there_and_bare_weights_are_errors_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: not there; expected a model folder, a run"):
        kind_at("nowhere")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError, match="minimind import"):
        kind_at(str(tmp_path / "model.gguf"))


def test_percentiles_go_from_the_least_to_the_most_and_empty_sets_are_left_out() -> None:
    table = length_table("lengths", {"all": np.arange(1, 102), "none": np.zeros(0)})
    assert table.rows == [["all", 1, 6, 26, 51, 76, 96, 100, 101, 51.0]]
    assert len(table.columns) == len(table.rows[0])


def test_a_beginning_is_one_short_line() -> None:
    assert beginning("a\n\tb") == "a b"
    assert beginning("word " * 100, 20) == "word word word wor …"
