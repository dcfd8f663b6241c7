"""Reading rows: every line is a good row, a bad one with its reason, or blank, whatever the file is made of."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.corpus import BadRow, Row, detect_kind, kind_of, read_chunks, read_rows
from minimind.data.files import find_files
from minimind.errors import DataError

GOOD = [b'{"text": "one"}', b'{"text": "\xe4\xba\x8c"}\r', b' {"text": "3", "n": 1}', b'{"text": ""}']
BAD = [
    *(b'{"text": "caf\xe9"}', b'{"text": "cut', b"\0\0\0", b'{"n": NaN}', b'{"text": "\\ud83d"}', b"[" * 9999, b"[1]"),
    *(b"null", b"7", b"{'text': 1}", b'{"text": "a"} x', b"\xff\xff"),
]
BLANK = [b"", b" ", b"\t\r"]


def all_rows(path: Path) -> tuple[list[Row], list[BadRow]]:
    bad: list[BadRow] = []
    return list(read_rows([path], max_bad_rows=1000, observe=bad.append)), bad


@given(st.lists(st.sampled_from(GOOD + BAD + BLANK), min_size=1), st.booleans())
def test_good_rows_come_in_order_and_good_bad_and_blank_add_up(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], has_end: bool
) -> None:
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    path.write_bytes(b"\n".join(lines) + (b"\n" if has_end else b" "))
    rows, bad = all_rows(path)
    numbers = {kind: [n for n, line in enumerate(lines, 1) if line in kind] for kind in map(tuple, (GOOD, BAD, BLANK))}
    assert [row.line for row in rows] == numbers[tuple(GOOD)]
    assert [row.line for row in bad] == numbers[tuple(BAD)]
    assert [row.value for row in rows] == [json.loads(line) for line in lines if line in GOOD]
    chunks = list(read_chunks(find_files([path])))
    assert sum(chunk.num_lines for chunk in chunks) == len(rows) + len(bad) + len(numbers[tuple(BLANK)])
    assert all(str(row).startswith(f"{path}:{row.line}: ") and "\n" not in str(row) for row in bad)


def test_the_first_bad_row_over_the_limit_stops_with_place_reason_and_option(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\nbroken\n\n{"text": "b"}\nbroken too\n{"text": "c"}\n')
    with pytest.raises(DataError) as error:
        list(read_rows([path]))
    reason = "not JSON: Expecting value at column 1"
    option = "max_bad_rows allows 0; raise it to skip such rows"
    assert str(error.value) == f"{path}:2: {reason} (bad row 1, {option})"
    with pytest.raises(DataError, match=rf"^{path}:5: {reason} \(bad row 2, max_bad_rows allows 1; "):
        list(read_rows([path], max_bad_rows=1))
    assert [row.value["text"] for row in read_rows([path], max_bad_rows=2)] == ["a", "b", "c"]


def test_a_byte_order_mark_is_dropped_at_the_beginning_of_a_file_and_reported_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n\xef\xbb\xbf{"text": "b"}\n')
    rows, bad = all_rows(tmp_path / "x.jsonl")
    assert [row.value["text"] for row in rows] == ["a"]
    assert [row.line for row in bad] == [2]


def test_a_line_over_16_megabytes_is_skipped_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "' + b"b" * (17 << 20) + b'"}\n{"text": "c"}\n')
    rows, bad = all_rows(path)
    assert [row.value["text"] for row in rows] == ["a", "c"]
    assert [str(row) for row in bad] == [f"{path}:2: a line of 17,825,804 bytes; at most 16,777,216 are read"]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    values = [{"text": f"text {number}", "more": {"n": number}} for number in range(1200)]
    data = "".join(json.dumps(value) + "\n" for value in values).encode()
    (tmp_path / "1.jsonl").write_bytes(data)
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "3.jsonl.zst").write_bytes(pyarrow.compress(data, codec="zstd", asbytes=True))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), tmp_path / "4.parquet")
    rows = list(read_rows([tmp_path]))
    for index in range(4):
        part = rows[1200 * index : 1200 * (index + 1)]
        assert [row.value["text"] for row in part] == [value["text"] for value in values]
        assert [row.line for row in part] == list(range(1, 1201))


def test_a_table_of_conversations_is_read_with_all_its_columns(tmp_path: Path) -> None:
    value = {"messages": [{"role": "user", "content": "hi"}], "tools": "[]", "text": "rendered"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([value]), tmp_path / "x.parquet")
    assert [row.value for row in read_rows([tmp_path / "x.parquet"])] == [value]


def test_a_table_that_is_cut_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "x" * 100}] * 100), path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=f"^{path}: cannot be read as parquet: "):
        list(read_rows([path]))


def test_plain_text_gives_its_documents_under_the_name_of_the_text_column(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text("\n\n# Title\n\nText.\n")
    assert list(read_rows([tmp_path], text_column="body")) == [
        Row(str(tmp_path / "x.md"), 3, {"body": "# Title\n\nText."}),
    ]


@pytest.mark.parametrize("name", ["x.jsonl", "x.txt", "x.md", "x.jsonl.gz"])
def test_an_empty_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    with pytest.raises(DataError, match=f"^{tmp_path / name}: has no rows; remove it or give another file$"):
        list(read_rows([tmp_path]))


@pytest.mark.parametrize(
    ("data", "value"), [(b' \n{"text": "a"}\n', {"text": "a"}), (b"words {and} words\n", {"text": "words {and} words"})]
)
def test_standard_input_is_lines_of_json_or_plain_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, value: dict[str, str]
) -> None:
    (tmp_path / "piped").write_bytes(data)
    with (tmp_path / "piped").open() as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        [row] = read_rows(["-"])
    assert (row.path, row.value) == ("<stdin>", value)


def test_what_is_built_in_has_rows() -> None:
    rows = list(read_rows(["builtin://conversations"]))
    assert rows[0].path == "builtin://conversations" and kind_of(rows[0].value) == "conversation"
    assert [row.line for row in rows] == list(range(1, len(rows) + 1))


def test_the_columns_say_what_a_row_holds() -> None:
    turns = [{"role": "user", "content": "hi"}]
    assert kind_of({"text": "a"}) == kind_of({"body": 1}, "body") == "text"
    assert kind_of({"messages": turns}) == kind_of({"conversations": turns, "text": "rendered"}) == "conversation"
    assert kind_of({"instruction": "a", "output": "b"}) == "conversation"
    assert kind_of({"text": "a", "messages": None}) == "text"
    with pytest.raises(ValueError, match=r"^has preference pairs"):
        kind_of({"chosen": turns, "rejected": turns})
    with pytest.raises(
        ValueError, match=r"^has no column 'text' and no conversation, but 'content', 'id'; name the col"
    ):
        kind_of({"content": "a", "id": 1})


def test_finding_the_kind_loses_no_chunk(write_rows: Callable[..., Path]) -> None:
    paths = [
        write_rows("1.jsonl", [{"id": 1}, [2]]),
        write_rows("2.jsonl", [{"messages": []}]),
        write_rows("3.jsonl", [{}]),
    ]
    for allowed, kind in ((0, "text"), (1, "text"), (2, "conversation")):
        found, chunks = detect_kind(read_chunks(find_files(paths)), "text", allowed)
        assert found == kind and len(list(chunks)) == 3


def test_positions_rise_to_the_size_of_all_files(tmp_path: Path, shared: Path) -> None:
    source = shared / "data" / "pretrain_valid.jsonl"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(source.read_bytes()))
    positions = [chunk.position for chunk in read_chunks(find_files([tmp_path, source]))]
    assert positions == sorted(positions)
    assert positions[-1] == source.stat().st_size + (tmp_path / "a.jsonl.gz").stat().st_size
