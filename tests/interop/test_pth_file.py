"""A .pth file of tensors is read as torch wrote it, and nothing in it is ever run."""

import io
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.errors import CheckpointError
from minimind.interop.pth_file import PthFile

WEIGHTS = {"a.weight": torch.arange(12.0).view(3, 4), "b.weight": torch.ones(5) / 3}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_come_back_as_they_were_saved(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in WEIGHTS.items()}
    torch.save(weights, tmp_path / "x.pth")

    file = PthFile.open(tmp_path / "x.pth")

    assert file.tensors.keys() == weights.keys()
    assert all(torch.equal(file.read(name), tensor.float()) for name, tensor in weights.items())


def test_parameters_ordered_dictionaries_and_shared_weights_are_understood(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    values: Any = OrderedDict(module.named_parameters())
    values["tied"] = values["0.weight"]
    for content in (values, module.state_dict()):
        torch.save(content, tmp_path / "x.pth")
        file = PthFile.open(tmp_path / "x.pth")
        assert [*file.tensors] == [*content]
        assert all(torch.equal(file.read(name), tensor) for name, tensor in content.items())


def test_a_part_of_a_larger_tensor_is_that_part(tmp_path: Path) -> None:
    large = torch.arange(40.0).view(10, 4)
    torch.save({"rows": large[3:5]}, tmp_path / "x.pth")

    assert torch.equal(PthFile.open(tmp_path / "x.pth").read("rows"), large[3:5])


class Calls:
    """Pickled, it asks the reader to call a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def archive(program: bytes, entries: dict[str, bytes] | None = None, **settings: Any) -> bytes:
    """A file as torch.save writes it, around a program."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **settings) as file:
        file.writestr("x/data.pkl", program)
        for name, content in {"x/byteorder": b"little", "x/version": b"3\n", **(entries or {})}.items():
            file.writestr(name, content)
    return buffer.getvalue()


def saved(content: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


def tensor_program(
    shape: str = "K\x02K\x02\x86", strides: str = "K\x02K\x01\x86", count: int = 4, key: str = "0"
) -> bytes:
    """{"w": a tensor}, with any of its numbers."""
    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        + b"ctorch\nFloatStorage\nX"
        + struct.pack("<I", len(key))
        + key.encode()
        + b"X\x03\x00\x00\x00cpuJ"
        + struct.pack("<i", count)
        + b"tQK\x00"
        + shape.encode("latin-1")
        + strides.encode("latin-1")
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


FOUR = {"x/data/0": bytes(16)}
SOUND = archive(tensor_program(), FOUR)
PLANTED = "raise SystemExit('the file has run')"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "os.system": (archive(pickle.dumps(Calls(__import__("os").system, "touch planted"), 2)), "names posix.system"),
    "eval": (archive(pickle.dumps({"w": Calls(eval, "1+1")}, 2)), "names __builtin__.eval"),
    "exec, protocol 4": (archive(pickle.dumps({"w": Calls(exec, PLANTED)}, 4)), "has protocol 4; expected 2"),
    "old pickle": (pickle.dumps(Calls(exec, PLANTED)), "not a whole zip archive"),
    "old torch.save": (saved(WEIGHTS, _use_new_zipfile_serialization=False), "not a whole zip archive"),
    "a whole module": (saved(torch.nn.Linear(2, 2)), "names torch.nn.modules.linear.Linear"),
    "torch.hub": (archive(b"\x80\x02ctorch.hub\nload\n(X\x01\x00\x00\x00atR."), "names torch.hub.load"),
    "getattr": (archive(b"\x80\x02c__builtin__\ngetattr\n."), "names __builtin__.getattr"),
    "INST": (archive(b"(X\x02\x00\x00\x00lsios\nsystem\n."), "names os.system"),
    "NEWOBJ": (archive(b"\x80\x02ctorch\nFloatStorage\n)\x81."), "data.pkl builds no tensors"),
    "EXT1": (archive(b"\x80\x02\x82\x01."), "Unsupported operand 130"),
    "PERSID": (archive(b"Pstorage\n."), "Unsupported operand 80"),
    "empty": (b"", "not a whole zip archive"),
    "text": (b"hello " * 100, "not a whole zip archive"),
    "cut": (SOUND[: len(SOUND) // 2], "not a whole zip archive"),
    "no program": (archive(b"").replace(b"data.pkl", b"data.plk"), "has 0 entries NAME/data.pkl"),
    "no end": (archive(b"\x80\x02}"), "data.pkl is damaged"),
    "stack underflow": (archive(b"\x80\x02\x85."), "list index out of range"),
    "unknown memo": (archive(b"\x80\x02h\x07."), "data.pkl builds no tensors"),
    "garbage": (archive(b"\xff" * 99), "data.pkl is damaged"),
    "compressed": (archive(tensor_program(), FOUR, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "bomb": (archive(b"\x80\x02" + b"0" * 9_000_000, compression=zipfile.ZIP_DEFLATED), "entries overlap"),
    "long program": (archive(b"\x80\x02" + b"N" * (1 << 18) + b"."), "is over 262,144 bytes"),
    "a program of the longest": (archive(b"\x80\x02" + b"N" * ((1 << 18) - 3) + b"."), "holds a NoneType"),
    "big-endian": (archive(tensor_program(), FOUR | {"x/byteorder": b"big"}), "byteorder is not little"),
    "storage too short": (archive(tensor_program(count=1 << 30), FOUR), "sizes that differ from x/data/0 on"),
    "storage elsewhere": (archive(tensor_program(key="../../etc/passwd"), FOUR), "etc/passwd: file not found"),
    "shape too large": (
        archive(tensor_program("J\xff\xff\xff\x7fK\x02\x86"), FOUR),
        "resize storage that is not resizable",
    ),
    "negative shape": (archive(tensor_program("J\xff\xff\xff\xffK\x02\x86"), FOUR), "integer multiplication overflow"),
    "stride 0": (archive(tensor_program(strides="K\x00K\x00\x86"), FOUR), "and strides (0, 0)"),
    "an unused entry": (archive(tensor_program(), FOUR | {"x/data/1": bytes(8)}), "1 tensors' numbers for 2 entries"),
    "another program in capitals": (archive(tensor_program(), FOUR | {"x/DATA.PKL": b"\x80\x02N."}), "are there twice"),
    "a terabyte of bytes": (archive(b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\1\x85R."), "bytearray"),
    "a terabyte of numbers": (archive(b"\x80\x02ctorch\nFloatTensor\n\x8a\x06\0\0\0\0\0\1\x85R."), "FloatTensor"),
    "not a dictionary": (archive(b"\x80\x02]."), "holds a list; expected a dictionary of tensors"),
    "empty dictionary": (archive(b"\x80\x02}."), "expected a dictionary of tensors"),
    "training state": (saved({"model": {"w": torch.ones(2)}, "step": 3}), "'model' is a dict; expected"),
    "whole numbers": (saved({"w": torch.ones(2, dtype=torch.int64)}), "names torch.LongStorage"),
    "one storage, many names": (saved({f"w{i}": WEIGHTS["a.weight"] for i in range(900)}), "tensors of 43,200 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_at_once_with_its_name(name: str, tmp_path: Path) -> None:
    content, words = HOSTILE[name]
    path = tmp_path / "x.pth"
    path.write_bytes(content)

    start = time.process_time()
    with pytest.raises(CheckpointError) as error:
        PthFile.open(path)

    assert time.process_time() - start < 2
    assert str(path) in str(error.value) and words in str(error.value) and len(str(error.value)) < 500


def test_the_sound_file_that_they_are_variants_of_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(SOUND)
    assert torch.equal(PthFile.open(tmp_path / "x.pth").read("w"), torch.zeros(2, 2))


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "NaN or infinite"), (float("inf"), "NaN or infinite")])
def test_weights_that_are_no_numbers_are_refused_by_name(value: float, words: str, tmp_path: Path) -> None:
    torch.save({"w": torch.tensor([1.0, value])}, tmp_path / "x.pth")

    with pytest.raises(CheckpointError, match=f"w has {words}"):
        PthFile.open(tmp_path / "x.pth").read("w")


def test_every_flipped_byte_of_the_numbers_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(WEIGHTS, path)
    content = path.read_bytes()
    place = content.index(WEIGHTS["a.weight"].numpy().tobytes())
    for index in range(place, place + 48):
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        with pytest.raises(CheckpointError, match="x/data/0 has another checksum"):
            PthFile.open(path).read("a.weight")


def test_a_million_announced_entries_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 60_000_000, 0, 0)
    (tmp_path / "x.pth").write_bytes(bytes(1000) + end)

    with pytest.raises(CheckpointError, match="has 65,535 entries"):
        PthFile.open(tmp_path / "x.pth")


AUDIT = """
import sys
from pathlib import Path
from minimind.errors import CheckpointError
from minimind.interop.pth_file import PthFile

seen = []
FORBIDDEN = ("exec", "compile", "import", "os.", "subprocess.", "socket.", "pickle.", "shutil.", "ctypes.")
armed = False

def hook(event, arguments):
    if armed and event.startswith(FORBIDDEN):
        seen.append(event)
    if armed and event == "open" and Path(str(arguments[0])).suffix != ".pth":
        seen.append(f"open {arguments[0]}")

sys.addaudithook(hook)
files = sorted(Path(sys.argv[1]).glob("*.pth"))
# Once for what is imported when it is first needed.
for turn in (False, True):
    armed = turn
    for path in files:
        try:
            PthFile.open(path)
        except CheckpointError:
            continue
        raise AssertionError(path)
armed = False
print(len(files), seen)
"""


def test_nothing_is_run_imported_or_opened_by_a_hostile_file(tmp_path: Path) -> None:
    for number, (content, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.pth").write_bytes(content)

    words = [sys.executable, "-c", AUDIT, str(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(HOSTILE)} []\n", "")
    assert {path.suffix for path in tmp_path.iterdir()} == {".pth"}
