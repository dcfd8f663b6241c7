"""Which files a source means, and that their bytes arrive whole or with a word about it."""

import bz2
import gzip
import lzma
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow
import pytest

from minimind.data.files import ByteStream, DataFile, find_files, require, total_size
from minimind.errors import DataError


def read_all(path: Path) -> bytes:
    [file] = find_files([path])
    with closing(ByteStream(file)) as stream:
        parts = []
        while part := stream.read(1000):
            parts.append(part)
        return b"".join(parts)


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def test_a_folder_means_its_data_files_by_name(tmp_path: Path) -> None:
    data = ["b.jsonl", "a.txt", "c/d.md", "c/e.PARQUET", "c/f.jsonl.gz"]
    for name in [*data, "README.md", "LICENSE.txt", ".hidden.txt", ".git/x.txt", "program.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [Path(file.name).relative_to(tmp_path).as_posix() for file in find_files([tmp_path])]
    assert names == ["a.txt", "b.jsonl", "c/d.md", "c/e.PARQUET", "c/f.jsonl.gz"]


def test_a_glob_means_the_files_it_matches_and_a_named_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("b1.jsonl", "b2.jsonl", "README.md", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = find_files([tmp_path / "b*.jsonl", tmp_path / "README.md"])
    assert [Path(file.name).name for file in found] == ["b1.jsonl", "b2.jsonl", "README.md"]


@pytest.mark.parametrize(
    ("make", "source", "message"),
    [
        ("", "absent.jsonl", "absent.jsonl: no such file or folder"),
        ("", "*.jsonl", "*.jsonl: found no file; expected .jsonl, .txt"),
        ("rows.odt", "rows.odt", "rows.odt: found rows.odt; expected .jsonl, .txt"),
        ("x.parquet.gz", "x.parquet.gz", "x.parquet.gz: found x.parquet.gz; expected"),
        ("folder/x.py", "folder", "folder: found x.py; expected .jsonl"),
    ],
)
def test_a_source_without_data_says_what_is_expected(tmp_path: Path, make: str, source: str, message: str) -> None:
    if make:
        (tmp_path / make).parent.mkdir(exist_ok=True)
        (tmp_path / make).write_bytes(b"x")
    with pytest.raises(DataError) as error:
        find_files([tmp_path / source])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, zstd, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])]
)
def test_packed_files_give_the_same_bytes(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = b"".join(b"line %d\n" % number for number in range(5000))
    suffix = ".zst" if pack is zstd else "" if pack is bytes else ".gz"
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(pack(data))
    assert read_all(path) == data


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (zstd, ".zst")])
@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_a_packed_file_that_is_cut_is_an_error(
    tmp_path: Path, pack: Callable[[bytes], bytes], suffix: str, keep: float
) -> None:
    data = pack(b"".join(b"line %d\n" % number for number in range(5000)))
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(data[: max(int(len(data) * keep), 1)])
    with pytest.raises(DataError, match=f"^{path}: cannot be read: "):
        read_all(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbftext")
    assert read_all(path) == b"text"
    path.write_bytes(b"\xef\xbb\xbf")
    assert read_all(path) == b""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf16_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufefftext".encode(encoding))
    with pytest.raises(DataError, match=f"^{path}: is UTF-16; save it as UTF-8"):
        read_all(path)


def test_standard_input_and_what_is_built_in_have_no_path() -> None:
    found = find_files(["-", "builtin://texts"])
    assert found == [DataFile("<stdin>", None, ""), DataFile("builtin://texts", None, "builtin")]
    assert total_size(found) is None and total_size(found[1:]) == 0


PROGRAM = """
from minimind.data.files import ByteStream, find_files

stream = ByteStream(find_files(["-"])[0])
print("ready", flush=True)
while stream.read(1 << 20):
    pass
"""


def test_ctrl_c_is_noticed_while_a_pipe_is_silent() -> None:
    pipe = subprocess.PIPE
    programs = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(6)
    ]
    for program in programs:
        assert program.stdin and program.stdout
        program.stdin.write(b"x" * 4096)
        program.stdin.flush()
        assert program.stdout.readline() == b"ready\n"
        # The signal arrives while this is read, or just after; the pipe then gives no more.
        program.stdin.write(b"x" * 70_000)
        program.stdin.flush()
        program.send_signal(signal.SIGINT)
    try:
        codes = [program.wait(20) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    assert codes == [-signal.SIGINT] * len(programs)


def test_sizes_add_up(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"12345")
    assert total_size(find_files([tmp_path, tmp_path / "a.txt"])) == 10


def test_a_missing_library_names_the_extra_that_brings_it() -> None:
    with pytest.raises(DataError, match=r"^clouds need no_such_library: pip install 'minimind-lm\[data\]'$"):
        require("no_such_library", "clouds")


@pytest.mark.parametrize(("pack", "suffix"), [(bz2.compress, ".bz2"), (lzma.compress, ".xz")])
def test_bz2_and_xz_give_the_same_bytes_and_a_cut_one_is_an_error(
    tmp_path: Path, pack: Callable[[bytes], bytes], suffix: str
) -> None:
    data = b"".join(b"line %d\n" % number for number in range(5000))
    path = tmp_path / f"a.ndjson{suffix}"
    path.write_bytes(pack(data))
    assert read_all(path) == data
    path.write_bytes(pack(data)[:-40])
    with pytest.raises(DataError, match=f"^{path}: cannot be read: "):
        read_all(path)


def test_what_is_not_read_is_counted_by_its_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jsonl", "b.py", "c/d.py", "c/e", "README.md", ".hidden", ".git/x.txt", "dataset_info.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    unread: Counter[str] = Counter()
    assert [Path(file.name).name for file in find_files([tmp_path], unread=unread)] == ["a.jsonl"]
    one = ("README.md", "dataset_info.json", "hidden file", "hidden folder", "without an ending")
    assert unread == {".py": 2, **dict.fromkeys(one, 1)}
    assert not capsys.readouterr().err
    find_files([tmp_path])
    assert "2 .py" in capsys.readouterr().err


def test_links_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_bytes(b"x")
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "a.txt").write_bytes(b"x")
    (data / "deep" / "up").symlink_to(data)
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "again.txt").symlink_to(data / "a.txt")
    (data / "gone.txt").symlink_to(tmp_path / "absent.txt")
    unread: Counter[str] = Counter()
    names = [Path(file.name).relative_to(data).as_posix() for file in find_files([data], unread=unread)]
    assert names == ["a.txt", "linked/b.txt"]
    assert unread == {"link that leads nowhere": 1, "link to a file that is read already": 1}
