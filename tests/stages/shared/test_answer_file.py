"""A file of answers is the beginning of the whole, whatever stopped its writer; and nothing else is gone on with."""

import json
from pathlib import Path
from typing import Any

import pytest

from minimind.errors import DataError
from minimind.stages.shared.answer_file import open_answers

PROMPTS = [{"prompt": text} for text in ("a", "你好", "c")]
SETTINGS = {"model": "m", "sampling.temperature": 0.7}


def write(path: Path, answers: list[str], settings: dict[str, Any] = SETTINGS) -> int:
    """Add rows; how many there were."""
    with open_answers(path, settings, PROMPTS) as file:
        first = file.num_rows
        for prompt, text in zip(PROMPTS[first:], answers, strict=False):
            file.add({**prompt, "text": text})
        return first


def test_rows_are_written_in_order_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    assert [write(path, ["x"]) for _ in range(4)] == [0, 1, 2, 3]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == [{**prompt, "text": "x"} for prompt in PROMPTS] and "你好" in path.read_text(encoding="utf-8")
    assert sorted(place.name for place in path.parent.iterdir()) == ["out.jsonl", "out.jsonl.settings.json"]


def test_a_row_is_there_before_the_file_is_closed(tmp_path: Path) -> None:
    with open_answers(tmp_path / "out", SETTINGS, PROMPTS) as file:
        file.add({**PROMPTS[0], "text": "x"})
        assert (tmp_path / "out").read_bytes().endswith(b"}\n")


def test_a_last_line_that_is_torn_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write(path, ["x", "你"])
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for size in range(start, len(whole)):
        path.write_bytes(whole[:size])
        assert write(path, ["你"]) == 1 and path.read_bytes() == whole


def test_a_file_of_which_nothing_was_written_is_new(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write(path, [])
    assert write(path, ["x"], {"model": "other"}) == 0 and write(path, [], {"model": "other"}) == 1


def test_rows_with_an_error_are_counted_those_that_were_there_too(tmp_path: Path) -> None:
    for first in range(2):
        with open_answers(tmp_path / "out", SETTINGS, PROMPTS) as file:
            assert file.num_errors == first
            file.add({**PROMPTS[first], "error": "too long"})


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b"5", b'{"prompt": "b"}', b'{"text": "x"}', b"\x00\xff"])
def test_a_line_that_is_damaged_or_answers_another_prompt_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "out"
    write(path, ["x", "y", "z"])
    rows = path.read_bytes().splitlines()
    content = b"\n".join([rows[0], line, rows[2], b""])
    path.write_bytes(content)
    with pytest.raises(DataError, match="out:2: is damaged, or answers another prompt; cut the file before this line"):
        write(path, [])
    assert path.read_bytes() == content


def test_more_rows_than_prompts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write(path, ["x", "y", "z"])
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(DataError, match="out:4: "):
        write(path, [])


def test_each_setting_that_differs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write(path, ["x"])
    message = 'out: cannot go on: chat was null and is now true; model was "m" and is now "n"; choose another --out'
    with pytest.raises(DataError, match=message):
        write(path, [], {**SETTINGS, "model": "n", "chat": True})


@pytest.mark.parametrize("settings", [None, b"", b"{", b"[]", b"\xff"])
def test_a_file_from_elsewhere_is_left_alone(tmp_path: Path, settings: bytes | None) -> None:
    path = tmp_path / "out"
    path.write_text("precious")
    if settings is not None:
        (tmp_path / "out.settings.json").write_bytes(settings)
    with pytest.raises(DataError, match="out: was not written here"):
        write(path, ["x"])
    assert path.read_text() == "precious"


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with open_answers(path, SETTINGS, PROMPTS), pytest.raises(DataError, match="out: another process writes it"):
        write(path, ["x"])
    assert write(path, ["x"]) == 0


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written: Is a directory; choose another --out"):
        write(tmp_path, [])
