"""Which files a source means, and their bytes.

A source is a file, a folder, a glob, `-` for standard input, `hf://owner/name[@revision][/path-or-glob]`, or
`builtin://name`. Its files are read in the order of their names. Whatever goes wrong while reading is a DataError that
names the file.
"""

import bz2
import glob
import gzip
import importlib
import lzma
import os
import select
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from minimind.data.counts import in_words
from minimind.data.hub import HUB_PREFIX, Hub, HuggingFaceHub, find_on_hub
from minimind.data.not_text import what_it_is
from minimind.errors import DataError, install
from minimind.terminal.notes import note

__all__ = ["ByteStream", "DataFile", "find_files", "require", "total_size"]

FORMATS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines", ".json"), "json"),
    **dict.fromkeys((".txt", ".text", ".md", ".markdown"), "text"),
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    **dict.fromkeys((".arrow", ".feather"), "arrow"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".pdf": "pdf",
    ".docx": "docx",
    ".epub": "epub",
}
# Formats that are packed themselves, and whose readers want a whole file.
WHOLE = ("parquet", "arrow", "pdf", "docx", "epub")
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
ACCEPTED = (
    ".jsonl, .txt, .md, .json, .ndjson, .csv, .tsv, .html (each also .gz, .zst, .bz2 or .xz), .parquet, .arrow, "
    ".feather, .pdf, .docx or .epub"
)
STDIN = "<stdin>"
# What the `datasets` library and this package write about the files beside it.
DESCRIPTIONS = (
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
    *("manifest.json", "index.json"),
)
BUILTIN_PREFIX = "builtin://"


@dataclass(frozen=True)
class DataFile:
    """A file to read.

    name:    what errors and reports call it
    path:    where it is; None for standard input and what is built in
    format:  one of `FORMATS`, builtin, or "" when only the content can tell (standard input)
    """

    name: str
    path: Path | None
    format: str

    @property
    def compression(self) -> str:
        suffix = self.path.suffix.lower() if self.path else ""
        return suffix if suffix in COMPRESSIONS else ""

    @property
    def is_packed(self) -> bool:
        """Does it hold far more than its size says?"""
        return bool(self.compression) or self.format in WHOLE

    @property
    def size(self) -> int | None:
        """Bytes on the disk; None when they are not known before the end (standard input)."""
        if self.path is None:
            return 0 if self.format == "builtin" else None
        with _named(self.name):
            return self.path.stat().st_size


class ByteStream:
    """The unpacked bytes of a file, without its byte order mark."""

    def __init__(self, file: DataFile) -> None:
        self.name = file.name
        with _named(self.name):
            self._raw: Any = _StandardInput() if file.path is None else file.path.open("rb")
        try:
            self._unpacked, self._start = self._begin(file)
        except BaseException:
            self.close()
            raise

    def _begin(self, file: DataFile) -> tuple[Any, bytes]:
        with _named(self.name):
            unpacked = _unpack(self._raw, file.compression)
            start = unpacked.read(4096)
        if problem := what_it_is(start, is_page=file.format == "html"):
            raise DataError(f"{self.name}: {problem}")
        return unpacked, start.removeprefix(b"\xef\xbb\xbf")

    def peek(self) -> bytes:
        """The first bytes, before anything else is read."""
        return self._start

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size` of them; b"" at the end and only there."""
        start, self._start = self._start[:size], self._start[size:]
        with _named(self.name):
            return start + self._unpacked.read(size - len(start))

    @property
    def position(self) -> int:
        """Bytes taken from the disk so far."""
        return self._raw.tell()

    def close(self) -> None:
        self._raw.close()


class _StandardInput:
    """What is piped in, as far as it is needed.

    `sys.stdin.buffer` asks the system again and again until it has all it wants. A signal that arrives between two
    answers is noticed after the next one, and a silent pipe gives none: Ctrl-C would be lost. So this looks up each
    second.
    """

    def __init__(self) -> None:
        self._descriptor, self._has_ended = sys.stdin.fileno(), False

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size and not self._has_ended:
            while not select.select([self._descriptor], [], [], 1.0)[0]:
                pass
            part = os.read(self._descriptor, size)
            parts.append(part)
            size -= len(part)
            self._has_ended = not part
        return b"".join(parts)

    def tell(self) -> int:
        return 0

    def close(self) -> None:
        """It is not ours."""


def find_files(
    sources: Iterable[str | Path], hub: Hub | None = None, *, unread: Counter[str] | None = None
) -> list[DataFile]:
    """The files of all sources: sources as given, the files of each by name.

    hub:     where `hf://` sources come from; Hugging Face unless given
    unread:  counts what lies in a folder and is not read, by its ending; it is printed where nobody counts
    """
    counted: Counter[str] = Counter() if unread is None else unread
    found = [file for source in sources for file in _expand(str(source), hub, counted)]
    if unread is None and counted:
        note(f"not read: {in_words(counted)}")
    return found


def total_size(files: Sequence[DataFile]) -> int | None:
    """Bytes on the disk of all files; None when one is a pipe."""
    sizes = [file.size for file in files]
    return None if None in sizes else sum(size or 0 for size in sizes)


def require(module: str, purpose: str, extra: str = "data") -> Any:
    """Import an optional library, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(f"{purpose} need {module}: {install(extra)}") from None


def _expand(source: str, hub: Hub | None, unread: Counter[str]) -> Iterator[DataFile]:
    if source == "-":
        yield DataFile(STDIN, None, "")
        return
    if source.startswith(BUILTIN_PREFIX):
        yield DataFile(source, None, "builtin")
        return
    if source.startswith(HUB_PREFIX):
        found = find_on_hub(source, hub or HuggingFaceHub(), is_data=_is_data)
        yield from (DataFile(name, path, _format_of(name)) for name, path in found)
        return
    path = Path(source).expanduser()
    if path.is_dir():
        names = _inside(path, unread)
    elif path.exists():
        names = [str(path)]
    elif glob.has_magic(source):
        names = sorted(name for name in glob.glob(str(path), recursive=True) if os.path.isfile(name))
    else:
        raise DataError(f"{source}: no such file or folder")
    readable = [name for name in names if _format_of(name)]
    if not readable:
        found = f"found {Path(names[0]).name}" if names else "found no file"
        raise DataError(f"{source}: {found}; expected {ACCEPTED}")
    unread.update(_ending(name) for name in names if not _format_of(name))
    yield from (DataFile(name, Path(name), _format_of(name)) for name in readable)


def _inside(folder: Path, unread: Counter[str]) -> list[str]:
    """Every file below a folder by name, links followed. What is hidden or describes the others is not read."""
    names: list[str] = []
    # Links can lead back up, or to what is here already: each real folder and file is entered once.
    seen = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        unread.update("hidden folder" for name in folders if name.startswith("."))
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and _is_new(parent, name, seen)]
        for name in sorted(files):
            path = os.path.join(parent, name)
            if _describes(name):
                unread["hidden file" if name.startswith(".") else name] += 1
            elif not os.path.isfile(path):
                unread["link that leads nowhere" if os.path.islink(path) else "special file"] += 1
            elif not _is_new(parent, name, seen):
                unread["link to a file that is read already"] += 1
            else:
                names.append(path)
    return sorted(names)


def _is_new(parent: str, name: str, seen: set[str]) -> bool:
    real = os.path.realpath(os.path.join(parent, name))
    is_new = real not in seen
    seen.add(real)
    return is_new


def _describes(name: str) -> bool:
    return name.startswith(".") or name.upper().startswith(("README", "LICENSE")) or name in DESCRIPTIONS


def _is_data(name: str) -> bool:
    return bool(_format_of(name)) and PurePosixPath(name).name not in DESCRIPTIONS


def _ending(name: str) -> str:
    return Path(name).suffix.lower() or "without an ending"


def _format_of(name: str) -> str:
    """The format that a file's name stands for, or ""."""
    path = Path(name.lower())
    is_packed = path.suffix in COMPRESSIONS
    format_ = FORMATS.get(Path(path.stem).suffix if is_packed else path.suffix, "")
    return "" if is_packed and format_ in WHOLE else format_


def _unpack(raw: Any, compression: str) -> Any:
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if compression == ".bz2":
        return bz2.BZ2File(raw)
    if compression == ".xz":
        return lzma.LZMAFile(raw)
    if compression == ".zst":
        # Arrow's reader, because zstandard's own takes the end of a cut file for the end of the data.
        arrow = require("pyarrow", ".zst files")
        return arrow.CompressedInputStream(arrow.PythonFile(raw, "r"), "zstd")
    return raw


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn what the system and the decompressors raise into a DataError that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
