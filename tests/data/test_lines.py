"""Lines and documents: nothing is lost, nothing is held that does not fit."""

import io
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from minimind.data.lines import WHOLE_FILE_BYTES, documents, line_blocks

TEXT = st.lists(st.text(st.characters(codec="utf-8"), max_size=30)).map("\n".join)


def lines_of(data: bytes, limit: int = 1 << 20) -> list[bytes | int]:
    return [line for block in line_blocks(io.BytesIO(data).read, limit) for line in block.lines]


class Endless:
    """A stream of one letter, as long as asked for, that never exists as a whole."""

    def __init__(self, size: int, end: bytes) -> None:
        self.left, self.end = size, end

    def read(self, size: int) -> bytes:
        part = min(size, self.left)
        self.left -= part
        if part:
            return b"a" * part
        end, self.end = self.end, b""
        return end


@given(st.binary() | st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b"\xff", b"\0"])).map(b"".join))
def test_lines_are_those_between_line_feeds(data: bytes) -> None:
    expected = data.split(b"\n")
    assert lines_of(data) == (expected if expected[-1] else expected[:-1])


def test_blocks_number_their_lines_from_one() -> None:
    data = b"".join(b"line %d\n" % number for number in range(1, 200_001))
    blocks = list(line_blocks(io.BytesIO(data).read))
    assert len(blocks) > 1
    for block in blocks:
        assert block.lines[0] == b"line %d" % block.first


def test_only_a_last_line_without_end_is_called_cut() -> None:
    assert [block.is_cut for block in line_blocks(io.BytesIO(b"a\nb\nc").read)] == [False, True]
    assert [block.is_cut for block in line_blocks(io.BytesIO(b"a\nb\n").read)] == [False]


@given(st.lists(st.integers(0, 12), max_size=8))
def test_a_line_over_the_limit_becomes_its_size(sizes: list[int]) -> None:
    data = b"".join(b"x" * size + b"\n" for size in sizes)
    assert lines_of(data, limit=6) == [b"x" * size if size <= 6 else size for size in sizes]


def test_a_line_of_100_megabytes_is_never_held() -> None:
    stream = Endless(100 << 20, b"\nshort\n")
    tracemalloc.start()
    lines = [line for block in line_blocks(stream.read, 4 << 20) for line in block.lines]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == [100 << 20, b"short"]
    assert peak < 16 << 20


@given(TEXT)
def test_a_small_file_is_one_document_less_the_blank_lines_around_it(text: str) -> None:
    data = text.encode().replace(b"\r\n", b"\n")
    found = [document.data for document in documents(io.BytesIO(text.encode()).read)]
    assert found == ([data.strip(b"\n")] if data.strip(b"\n") else [])


def test_a_large_file_is_cut_at_blank_lines_and_keeps_every_other_line() -> None:
    paragraphs = [f"{number} " + "word " * (number % 300) for number in range(1000)]
    data = "\n\n".join(paragraphs).encode()
    found = list(documents(io.BytesIO(data).read))
    assert b"\n\n".join(document.data for document in found) == data
    assert all(4096 <= len(document.data) <= WHOLE_FILE_BYTES for document in found[:-1])
    lines = data.split(b"\n")
    assert all(lines[document.line - 1] == document.data.split(b"\n")[0] for document in found)


@given(st.sampled_from(["a", "字", "😀", "a字"]), st.integers(40_000, 80_000))
def test_a_text_without_any_break_is_cut_between_characters(letters: str, size: int) -> None:
    text = (letters * size)[:size]
    found = list(documents(io.BytesIO(text.encode()).read))
    assert "".join(document.data.decode() for document in found) == text
    assert all(len(document.data) <= WHOLE_FILE_BYTES and document.line == 1 for document in found)


def test_windows_line_ends_become_line_feeds_across_reads() -> None:
    stream = iter([b"one\r", b"\ntwo\r\n", b"\r", b"\nthree\r"])
    found = list(documents(lambda size: next(stream, b"")))
    assert [document.data for document in found] == [b"one\ntwo\n\nthree\r"]
