"""Parsing rows: the good ones are values, and each kind of breakage has its own words."""

import json
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.chunks import BadRow, JsonLines, PlainText, Row, RowValues, Table, parse_object
from minimind.data.lines import Document, LineBlock

SCALARS = st.none() | st.booleans() | st.integers() | st.text()
JSON = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=3)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3), st.booleans())
def test_an_object_is_read_as_it_was_written(value: dict[str, Any], escaped: bool) -> None:
    try:
        line = json.dumps(value, ensure_ascii=escaped).encode()
    except UnicodeEncodeError:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            parse_object(line)
    else:
        assert parse_object(line) == value


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "caf\xe9"}', "not UTF-8: byte 0xe9 at byte 14"),
        (b'{"text": "half', "not JSON: Unterminated string starting at at column 10"),
        (b'{"text": "a\0b"}', "not JSON: Invalid control character at at column 12"),
        (b"\0\0\0\0", "not JSON: Expecting value at column 1"),
        (b'{"n": NaN}', "NaN is no number of JSON"),
        (b'{"n": [-Infinity]}', "-Infinity is no number of JSON"),
        (b'{"text": "\\ud83d"}', r"has half of a surrogate pair (\ud83d), which is no character"),
        (b'{"text": "x", "more": ["\\uDE00 "]}', r"has half of a surrogate pair (\ude00), which is no character"),
        (b"[" * 100_000, "not JSON that can be read: nested too deeply"),
        (b'{"a":' * 100_000, "not JSON that can be read: nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "Exceeds the limit (4300 digits) for integer string conversion"),
        (b"[1, 2]", "expected an object, got a list"),
        (b'"text"', "expected an object, got a string"),
        (b"null", "expected an object, got null"),
        (b"{} {}", "not JSON: Extra data at column 4"),
    ],
)
def test_a_line_that_is_no_object_says_why(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_object(line)
    assert reason in str(error.value)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse_object(b'{"text": "\\ud83d\\ude00"}') == {"text": "😀"}


def test_lines_keep_their_numbers_and_blank_ones_are_neither_good_nor_bad() -> None:
    block = LineBlock(5, (b'{"a": 1}\r', b"", b" \t\r", 99_000_000, b'{"a":'), is_cut=True)
    rows = list(JsonLines("f.jsonl", 0, block).rows())
    assert rows[0] == Row("f.jsonl", 5, {"a": 1})
    assert [str(row) for row in rows[1:]] == [
        "f.jsonl:8: a line of 99,000,000 bytes; at most 16,777,216 are read",
        "f.jsonl:9: not JSON: Expecting value at column 6; the file ends within this line",
    ]


def test_a_document_in_another_encoding_names_the_line() -> None:
    document = Document(10, b"first\nsecond\n\xc4\xe3")
    assert [str(row) for row in PlainText("f.txt", 0, "text", (document,)).rows()] == [
        "f.txt:12: not UTF-8: byte 0xc4 at byte 14; is it in another encoding, such as GB18030?"
    ]


def test_rows_of_a_table_are_its_values_and_a_broken_one_is_bad_alone() -> None:
    texts = pyarrow.array([b"one", b"\xff\xfe", b"three"], pyarrow.binary()).cast(pyarrow.string(), safe=False)
    broken = pyarrow.StringArray.from_buffers(3, texts.buffers()[1], texts.buffers()[2])
    batch = pyarrow.record_batch({"text": broken})
    rows = list(Table("t.parquet", 0, 11, batch).rows())
    assert rows[0] == Row("t.parquet", 11, {"text": "one"}) and rows[2] == Row("t.parquet", 13, {"text": "three"})
    assert isinstance(rows[1], BadRow) and str(rows[1]).startswith("t.parquet:12: not UTF-8: byte 0xff")


def test_values_are_rows_in_order() -> None:
    assert list(RowValues("builtin://x", 0, 1, ({"a": 1}, {"a": 2})).rows()) == [
        Row("builtin://x", 1, {"a": 1}),
        Row("builtin://x", 2, {"a": 2}),
    ]
