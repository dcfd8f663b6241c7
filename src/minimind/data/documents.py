"""The text of documents: HTML, PDF, DOCX and EPUB, by the libraries of the extra `documents`.

A document is read whole, so its unpacked size has a limit; its text is then cut as that of a .txt file is (`lines.py`).
"""

import posixpath
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

from minimind.data.files import ByteStream, DataFile, require
from minimind.errors import DataError

__all__ = ["MAX_DOCUMENT_BYTES", "document_text"]

MAX_DOCUMENT_BYTES = 256 << 20
_CONTAINER = "META-INF/container.xml"


def document_text(file: DataFile) -> str:
    """All text of a document, in reading order. Errors: DataError that names the file"""
    try:
        text = _READERS[file.format](file)
    except DataError:
        raise
    # Each library has errors of its own for each way in which a file can be broken; they mean the same to a user.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{file.name}: cannot be read as {file.format}: {reason}") from error
    if not text.strip():
        raise DataError(f"{file.name}: holds no text; are its pages pictures? Remove it, or give its text as .txt")
    return text


def _html(file: DataFile) -> str:
    with closing(ByteStream(file)) as stream:
        data = stream.read(MAX_DOCUMENT_BYTES + 1)
    _check_size(file, len(data))
    return _text_of_page(data.decode("utf-8"))


def _text_of_page(page: str) -> str:
    return _extra("inscriptis").get_text(_without_declaration(page))


def _without_declaration(page: str) -> str:
    """lxml refuses text that says in which encoding it was."""
    return page.partition("?>")[2] if page.lstrip().startswith("<?xml") else page


def _pdf(file: DataFile) -> str:
    reader = _extra("pypdf").PdfReader(file.path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise DataError(f"{file.name}: is locked with a password; unlock it first")
    return "\n\n".join(page.extract_text() for page in reader.pages)


def _docx(file: DataFile) -> str:
    _check_archive(file)
    document = _extra("docx").Document(str(file.path))
    return "\n\n".join(_text_of_block(block) for block in document.iter_inner_content())


def _text_of_block(block: Any) -> str:
    """A paragraph's text, or a table's cells, a line for each row."""
    if hasattr(block, "rows"):
        return "\n".join("\t".join(cell.text for cell in row.cells) for row in block.rows)
    return block.text


def _epub(file: DataFile) -> str:
    _check_archive(file)
    assert file.path is not None, "a document has a path"
    with ZipFile(file.path) as archive:
        package = _named(_xml(archive.read(_CONTAINER)), "rootfile")[0].get("full-path")
        content = _xml(archive.read(package))
        places = {item.get("id"): item.get("href") for item in _named(content, "item")}
        chapters = [places[part.get("idref")] for part in _named(content, "itemref")]
        names = [posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(name))) for name in chapters]
        return "\n\n".join(_text_of_page(archive.read(name).decode("utf-8-sig")) for name in names)


def _xml(data: bytes) -> Any:
    etree = _extra("lxml.etree")
    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))


def _named(tree: Any, name: str) -> list[Any]:
    """The elements of a name, whatever namespace they are in."""
    return tree.findall(f".//{{*}}{name}")


def _check_archive(file: DataFile) -> None:
    """Unpacked, a small archive can be larger than any memory."""
    assert file.path is not None, "a document has a path"
    with ZipFile(file.path) as archive:
        _check_size(file, sum(entry.file_size for entry in archive.infolist()))


def _check_size(file: DataFile, size: int) -> None:
    if size > MAX_DOCUMENT_BYTES:
        raise DataError(f"{file.name}: over {MAX_DOCUMENT_BYTES >> 20} MiB unpacked; cut it, or give its text as .txt")


def _extra(module: str) -> Any:
    return require(module, "documents", "documents")


_READERS: Mapping[str, Callable[[DataFile], str]] = {"html": _html, "pdf": _pdf, "docx": _docx, "epub": _epub}
