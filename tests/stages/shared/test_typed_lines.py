"""What is piped in is UTF-8 whatever the locale, a mark is dropped, and what is no text is refused by name."""

import io

import pytest

from minimind.errors import DataError
from minimind.stages.shared.typed_lines import typed_lines


def piped(data: bytes, encoding: str = "ascii") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding=encoding)


@pytest.mark.parametrize("locale", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_are_utf8_whatever_the_locale_and_a_mark_is_no_part_of_them(locale: str, mark: bytes) -> None:
    assert list(typed_lines(piped(mark + "你好\nwho?\n".encode(), locale))) == ["你好\n", "who?\n"]


def test_lines_of_text_in_memory_are_as_they_are() -> None:
    assert list(typed_lines(io.StringIO("a\nb"))) == ["a\n", "b"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_is_refused_by_name(encoding: str) -> None:
    with pytest.raises(DataError, match=r"^standard input: is UTF-(16|32)"):
        list(typed_lines(piped("Who are you?\n".encode(encoding))))


def test_a_broken_character_is_an_error_or_replaced() -> None:
    with pytest.raises(DataError, match=r"^x:2: not UTF-8"):
        list(typed_lines(piped(b"a\n\xff\n"), "x"))
    assert list(typed_lines(piped(b"a\xff\n"), is_strict=False)) == ["a\ufffd\n"]
