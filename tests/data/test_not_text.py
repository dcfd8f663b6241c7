"""A file that is no text is refused by what it is, whatever its name says."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pytest

from minimind.data.corpus import read_rows
from minimind.data.not_text import what_it_is
from minimind.errors import DataError

LINE = '{"text": "some words to learn from"}\n'


def zipped() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("a.txt", "words")
    return memory.getvalue()


@pytest.mark.parametrize("name", ["x.jsonl", "x.txt", "x.csv", "x.json"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (LINE.encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (LINE.encode("utf-32"), "is UTF-32; save it as UTF-8"),
        (LINE.encode("utf-16-le"), "is UTF-16 without a mark"),
        (LINE.encode("utf-16-be"), "is UTF-16 without a mark"),
        (LINE.encode("utf-32-le"), "is UTF-32 without a mark"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a pointer of Git LFS"),
        (zipped(), "is a zip archive"),
        (b"%PDF-1.7\n", "is a PDF; name it .pdf"),
        (gzip.compress(LINE.encode()), "is packed by gzip"),
        (bz2.compress(LINE.encode()), "is packed by bzip2"),
        (lzma.compress(LINE.encode()), "is packed by xz"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "is a page of HTML"),
        (b"\n  <!-- x --><HTML lang=en>", "is a page of HTML"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "is an error message in XML"),
        (b"PAR1....", "is a parquet file"),
    ],
)
def test_a_file_that_is_no_text_is_refused_by_what_it_is(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"^{tmp_path / name}: ") as error:
        list(read_rows([tmp_path / name]))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["plain", "今天天气很好" * 9, "<p>a fragment</p>", "about <html> pages", "", "PK is a name", "\ufeffmarked"]
)
def test_text_is_text(text: str) -> None:
    assert what_it_is(text.encode()) == ""


def test_chinese_in_utf16_is_told_by_what_is_ascii_in_it() -> None:
    assert "UTF-16 without a mark" in what_it_is(
        '{"text": "今天天气很好，我们去公园", "lang": "zh"}\n'.encode("utf-16-le")
    )


def test_a_nul_within_a_text_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"first\nsec\0ond\n")
    with pytest.raises(DataError, match=r"x.txt:2: holds a NUL byte, so it is no text"):
        list(read_rows([tmp_path / "x.txt"]))
