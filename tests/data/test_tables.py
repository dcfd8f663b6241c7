"""Tables give rows with named columns; a record that is broken is bad alone, with its line."""

from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from minimind.data.chunks import BadRow, Row
from minimind.data.corpus import read_rows
from minimind.errors import DataError
from minimind.text.messages import Conversation

CALL = {"type": "function", "function": {"name": "f", "arguments": {"city": "Rome"}}}
OTHER = {"type": "function", "function": {"name": "g", "arguments": {"n": 1}}}
CALLING = [{"messages": [{"role": "assistant", "tool_calls": [call]}]} for call in (CALL, OTHER)]


def read(path: Path, data: str | bytes) -> tuple[list[Row], list[BadRow]]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    bad: list[BadRow] = []
    return list(read_rows([path], max_bad_rows=99, observe=bad.append)), bad


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_the_first_line_names_the_columns_whatever_stands_between_them(tmp_path: Path, separator: str) -> None:
    rows, bad = read(tmp_path / "x.csv", "question,answer\r\nhi,yes\r\n".replace(",", separator))
    assert [row.value for row in rows] == [{"question": "hi", "answer": "yes"}] and not bad


def test_a_field_in_quotes_may_hold_lines_and_separators(tmp_path: Path) -> None:
    rows, _ = read(tmp_path / "x.csv", '\ufefftext,n\n"one,\n""two""",1\n\nthree,2\n')
    assert [(row.line, row.value["text"]) for row in rows] == [(2, 'one,\n"two"'), (5, "three")]


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"a,b\n1,2\n1,2,3\n", 3, "has 3 fields where the first line names 2 columns"),
        (b"a,b\n1\n", 2, "has 1 fields"),
        (b'a,b\n1,2\n1,"open\n', 3, "is a quote left open?"),
        (b'a,b\n1,"x"y\n', 2, "not a record"),
        (b"a,b\n1,caf\xe9\n", 2, "not UTF-8"),
        (b"a,b\n1,2\0\n", 2, "holds a NUL byte"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, data: bytes, line: int, reason: str) -> None:
    _, bad = read(tmp_path / "x.csv", data)
    assert [row.line for row in bad] == [line] and reason in bad[0].reason


def test_a_table_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.csv:1: names the column 'a' twice"):
        read(tmp_path / "x.csv", "a,a\n1,2\n")


def test_a_table_without_records_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.tsv: has no rows"):
        read(tmp_path / "x.tsv", "a\tb\n")


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_what_arrow_filled_in_is_no_value_of_anybodys(tmp_path: Path, kind: str) -> None:
    table, path = pyarrow.Table.from_pylist(CALLING), tmp_path / f"x.{'parquet' if kind == 'parquet' else 'arrow'}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        new = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    assert table.to_pylist() != CALLING
    assert [row.value for row in read_rows([path])] == CALLING


def test_a_null_that_somebody_wrote_in_json_stays(tmp_path: Path) -> None:
    line = '{"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": null}}]}]}'
    rows, _ = read(tmp_path / "x.jsonl", line)
    assert Conversation.parse(rows[0].value, "x:1").messages[0].tool_calls[0].arguments == {"x": None}


def test_large_tables_come_in_parts_with_numbered_rows(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"text {n}" for n in range(1200)]})
    pyarrow.feather.write_feather(table, str(tmp_path / "x.feather"))
    rows, _ = read(tmp_path / "y.csv", "text\n" + "".join(f"text {n}\n" for n in range(1200)))
    others = list(read_rows([tmp_path / "x.feather"]))
    assert [row.value for row in rows] == [row.value for row in others] and others[-1].line == 1200


def test_a_table_that_is_cut_is_an_error(tmp_path: Path) -> None:
    pyarrow.feather.write_feather(pyarrow.table({"text": ["x" * 100] * 100}), str(tmp_path / "x.feather"))
    data = (tmp_path / "x.feather").read_bytes()
    with pytest.raises(DataError, match=r"x.feather: cannot be read as arrow: "):
        read(tmp_path / "x.feather", data[:-50])
