"""What a file really is whose first bytes are no text, whatever its name says."""

import re

__all__ = ["what_it_is"]

_LFS = b"version https://git-lfs.github.com/spec/"
# First bytes, what they are the beginning of, and what to do about it.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xfe\0\0", "is UTF-32", "save it as UTF-8, such as with iconv -f utf-32 -t utf-8"),
    (b"\0\0\xfe\xff", "is UTF-32", "save it as UTF-8, such as with iconv -f utf-32 -t utf-8"),
    (b"\xff\xfe", "is UTF-16", "save it as UTF-8, such as with iconv -f utf-16 -t utf-8"),
    (b"\xfe\xff", "is UTF-16", "save it as UTF-8, such as with iconv -f utf-16 -t utf-8"),
    (_LFS, "is a pointer of Git LFS, not the file it stands for", "fetch that with git lfs pull"),
    (
        b"PK\x03\x04",
        "is a zip archive, or a document that is one",
        "unpack it, or name it .docx or .epub if it is that",
    ),
    (b"PK\x05\x06", "is an empty zip archive", "give the files themselves"),
    (b"%PDF-", "is a PDF", "name it .pdf"),
    (b"\x1f\x8b", "is packed by gzip", "let its name end in .gz"),
    (b"BZh", "is packed by bzip2", "let its name end in .bz2"),
    (b"\xfd7zXZ\0", "is packed by xz", "let its name end in .xz"),
    (b"\x28\xb5\x2f\xfd", "is packed by zstd", "let its name end in .zst"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it"),
    (b"Rar!\x1a\x07", "is a rar archive", "unpack it"),
    (b"PAR1", "is a parquet file", "name it .parquet"),
    (b"ARROW1", "is an Arrow file", "name it .arrow"),
    (b"SQLite format 3\0", "is an SQLite database", "export the table as .csv"),
    (b"\x89PNG\r\n", "is a picture", "give texts"),
    (b"\xff\xd8\xff", "is a picture", "give texts"),
    (b"GIF8", "is a picture", "give texts"),
    (b"{\\rtf", "is Rich Text", "save it as plain text or .docx"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Office document", "save it as .docx, .csv or plain text"),
    (b"GGUF", "is a model in GGUF", "give texts"),
    (b"\x7fELF", "is a program", "give texts"),
)
_PAGE = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL)
_XML_ERROR = re.compile(rb"\s*<\?xml[^>]*>\s*<Error>", re.IGNORECASE)
_TAR = slice(257, 262)


def what_it_is(start: bytes, *, is_page: bool = False) -> str:
    """What is wrong with a text that begins with these bytes, and what to do; "" for what may be text.

    is_page:  a page of HTML is what was expected
    """
    for beginning, name, advice in _BEGINNINGS:
        if start.startswith(beginning):
            return f"{name}; {advice}"
    if start[_TAR] == b"ustar":
        return "is a tar archive; unpack it"
    if not is_page and _PAGE.match(start):
        return "is a page of HTML, as a download that failed leaves one; remove it, or name it .html to read its text"
    if _XML_ERROR.match(start):
        return "is an error message in XML, as a download that failed leaves one; remove it"
    return _about_nuls(start)


def _about_nuls(start: bytes) -> str:
    """Text of two or four bytes a character, which has NULs at every other place. Others are found with their line."""
    for encoding, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        # Half of the characters are enough: Chinese among them has no NULs.
        least = len(start) // width // 2 * (width - 1)
        if start.count(b"\0") >= max(least, 1) and _is_spelled_in(encoding, start[: len(start) // width * width]):
            name = encoding.upper().rpartition("-")[0]
            return f"is {name} without a mark; save it as UTF-8, such as with iconv -f {encoding} -t utf-8"
    return ""


def _is_spelled_in(encoding: str, data: bytes) -> bool:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        text = data[: error.start].decode(encoding) if error.start > len(data) - 4 else ""
    shown = sum(map(str.isprintable, text))
    return shown >= max(4, len(text) / 2) and "\0" not in text and shown + sum(map(str.isspace, text)) > 0.9 * len(text)
