"""Documents give their text in reading order; one that is broken, locked or empty is refused by name."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import pypdf
import pytest

from minimind.data import documents
from minimind.data.corpus import read_rows
from minimind.errors import DataError

BODY = "<body><p>First 今天.</p><p>Second.</p></body>"
PAGE = f"<!DOCTYPE html><html><head><title>t</title><script>no()</script></head>{BODY}</html>"
CONTAINER = """<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="in/content.opf"/></rootfiles></container>"""
CONTENT = """<package xmlns="http://www.idpf.org/2007/opf">
<manifest><item id="b" href="b%20c.xhtml"/><item id="a" href="a.xhtml"/></manifest>
<spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""


def html(path: Path) -> None:
    path.write_text(PAGE, encoding="utf-8")


def word(path: Path) -> None:
    document = docx.Document()
    document.add_paragraph("First 今天.")
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "cell", "other"
    document.add_paragraph("Second.")
    document.save(str(path))


def book(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("in/content.opf", CONTENT)
        for name, text in (("b c", "Second."), ("a", "First 今天.")):
            archive.writestr(
                f"in/{name}.xhtml", f'<?xml version="1.0" encoding="utf-8"?><html><body>{text}</body></html>'
            )


def pdf(path: Path) -> None:
    text = b"BT /F1 12 Tf 20 200 Td (First page.) Tj 0 -20 Td (Second.) Tj ET"
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(text), text),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%strailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    path.write_bytes(data + end % (table, len(data)))


@pytest.mark.parametrize(("name", "make"), [("x.html", html), ("x.docx", word), ("x.epub", book), ("x.pdf", pdf)])
def test_a_document_gives_its_text_in_reading_order(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / name)
    [row] = read_rows([tmp_path])
    text = row.value["text"]
    assert text.index("First") < text.index("Second.") and "no()" not in text
    assert "cell\tother" in text or name != "x.docx"


def test_a_page_may_be_packed(tmp_path: Path) -> None:
    (tmp_path / "x.html.gz").write_bytes(gzip.compress(PAGE.encode()))
    [row] = read_rows([tmp_path])
    assert "First 今天." in row.value["text"]


@pytest.mark.parametrize("name", ["x.pdf", "x.docx", "x.epub"])
def test_a_document_that_is_broken_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match=rf"^{tmp_path / name}: cannot be read as {name[2:]}: ") as error:
        list(read_rows([tmp_path]))
    assert "\n" not in str(error.value)


def test_a_document_without_text_or_with_a_lock_is_named(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.write(tmp_path / "x.pdf")
    with pytest.raises(DataError, match=r"x.pdf: holds no text; are its pages pictures\?"):
        list(read_rows([tmp_path / "x.pdf"]))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "y.pdf")
    with pytest.raises(DataError, match=r"y.pdf: is locked with a password"):
        list(read_rows([tmp_path / "y.pdf"]))


def test_an_archive_larger_than_it_looks_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "x.epub", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", "x" * (2 << 20))
    with pytest.raises(DataError, match=r"x.epub: over 1 MiB unpacked"):
        list(read_rows([tmp_path]))
