"""Raw rows are counted by kind, and each broken one is named with its file and line."""

import json
from pathlib import Path

import pytest

from minimind.errors import DataError
from minimind.report.inspect_rows import inspect_rows

CHAT = {"conversations": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_kinds_roles_and_duplicates_are_counted(tmp_path: Path) -> None:
    rows = [CHAT, CHAT, {"text": "some text"}, {"good": "a", "bad": "b"}, {"chosen": [], "rejected": []}, {"x": 1}]
    found = inspect_rows([write(tmp_path / "a.jsonl", [json.dumps(row) for row in rows])])
    assert found.facts["kind"] == "conversation 2, text 1, minimal pair 1, preference pair 1, other 1"
    assert found.facts["duplicates"] == "1" and not found.faults
    roles = next(table for table in found.tables if table.title == "Messages by role")
    assert [row[:2] for row in roles.rows] == [["user", 2], ["assistant", 2]]


def test_broken_rows_are_named_with_file_and_line(tmp_path: Path) -> None:
    bad_role = {"conversations": [{"role": "clerk", "content": "hi"}]}
    path = write(tmp_path / "a.jsonl", [json.dumps(CHAT), "{broken", json.dumps(bad_role), json.dumps({"text": 3})])
    found = inspect_rows([path])
    assert found.facts["broken rows"] == "3"
    assert found.faults[0].startswith(f"{path}:2: not JSON")
    assert found.faults[1].startswith(f"{path}:3: message 1 has role 'clerk'")
    assert found.faults[2] == f"{path}:4: column 'text' holds int; expected text"


def test_only_some_of_many_broken_rows_are_shown(tmp_path: Path) -> None:
    found = inspect_rows([write(tmp_path / "a.jsonl", ["["] * 25)])
    assert len(found.faults) == 11 and found.faults[-1] == "and 15 more broken rows"


def test_plain_text_has_its_lengths(tmp_path: Path) -> None:
    found = inspect_rows([write(tmp_path / "a.txt", ["one two", "three"])])
    assert found.facts["kind"] == "text 1" and found.tables[0].rows[0][0] == "text"
    with pytest.raises(DataError, match="no such file"):
        inspect_rows([str(tmp_path / "none.txt")])


@pytest.mark.parametrize(
    ("row", "shape", "learnt"),
    [
        ({**CHAT, "prompt": "hi"}, "messages", "hello<|im_end|>"),
        ({"instruction": "hi", "output": "hello"}, "Alpaca", "hello<|im_end|>"),
        ({"text": "some text"}, "text", "some text"),
        ({"system": "s", "question": "hi", "chosen": "hello", "rejected": "no"}, "pair", "hello<|im_end|>no<|im_end|>"),
        ({"prompt": "hi"}, "prompt", ""),
    ],
)
def test_the_shape_is_named_and_a_row_is_shown_as_it_is_learnt(
    tmp_path: Path, row: dict, shape: str, learnt: str
) -> None:
    found = inspect_rows([write(tmp_path / "a.jsonl", [json.dumps(row)])])
    assert found.facts["shape"].startswith(f"{shape} (")
    assert "".join(piece.text for piece in found.sample if piece.weight) == learnt
    assert "hi" in "".join(piece.text for piece in found.sample) or shape == "text"


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"x")
    write(tmp_path / "a.jsonl", [json.dumps({**CHAT, "token_mask": [1], "source": "x"})])
    found = inspect_rows([str(tmp_path)])
    assert found.facts["files not read"] == "1 .png"
    assert found.faults == ["not read, though it could change what is learnt: 1 token_mask"]


def test_rows_of_no_known_shape_are_shown_by_the_names_of_their_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [json.dumps({"q": "hi", "reply": "hello"})])
    assert inspect_rows([path]).facts["kind"] == "other 1"
    found = inspect_rows([path], columns={"prompt": "q", "answer": "reply"})
    assert found.facts["kind"] == "conversation 1" and not found.faults
