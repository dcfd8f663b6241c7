"""A GGUF header is believed in nothing: what does not fit the file is refused by name, before it costs anything."""

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from minimind.errors import CheckpointError, UserError
from minimind.interop.gguf_file import KINDS, GgufFile
from minimind.interop.gguf_weights import load_gguf

Write = Callable[..., Path]
DATA = bytes(range(64)) * 2


def text(words: str | bytes) -> bytes:
    raw = words.encode() if isinstance(words, str) else words
    return struct.pack("<Q", len(raw)) + raw


def number(value: int) -> bytes:
    return struct.pack("<II", 4, value)


def items(kind: int, count: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IIQ", 9, kind, count) + payload


def tensor(name: str, dims: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def made(
    *,
    values: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: bytes = DATA,
) -> bytes:
    values = [text("a") + number(1)] if values is None else values
    tensors = [tensor("t", [4, 2]), tensor("u", [8], offset=32)] if tensors is None else tensors
    header = magic + struct.pack("<IQQ", version, *(counts or (len(tensors), len(values)))) + b"".join(values + tensors)
    return header + b"\0" * (-len(header) % 32) + data


# What is wrong -> the file, and words of the message.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "the first four bytes"),
    "another format": (made(magic=b"PK\x03\x04"), "b'PK"),
    "version 1": (made(version=1), "version is 1; expected 2 or 3"),
    "the other byte order": (made(version=3 << 24), "version is 50331648"),
    "a count of tensors": (made(counts=(2**63, 0)), "the number of tensors is 9,223,372,036,854,775,808"),
    "a count of values": (made(counts=(0, 2**64 - 1)), "the number of values is 18,446,744,073,709,551,615"),
    "more values than there are": (made(counts=(0, 4000)), "the name of value "),
    "a long name": (made(values=[struct.pack("<Q", 2**60)]), "the name of value 0: its length"),
    "a name that is no text": (made(values=[text(b"\xff") + number(1)]), "the name of value 0 is not UTF-8"),
    "a value twice": (made(values=[text("a") + number(1)] * 2), "value 'a' is there twice"),
    "an unknown type": (made(values=[text("a") + struct.pack("<I", 99)]), "'a' has type 99"),
    "a long text": (made(values=[text("a") + struct.pack("<IQ", 8, 2**62)]), "'a': its length is"),
    "a text that leaves the file": (
        made(values=[text("a") + struct.pack("<IQ", 8, 2**20)]),
        "'a' goes beyond the file",
    ),
    "a list of 2**60 texts": (made(values=[text("a") + items(8, 2**60)]), "'a': the number of its items"),
    "a list of a million texts": (made(values=[text("a") + items(8, 2**20)]), "'a'"),
    "a long text in a list": (made(values=[text("a") + items(8, 1, struct.pack("<Q", 2**63))]), "'a': item 0"),
    "no text in a list": (made(values=[text("a") + items(8, 1, text(b"\xff"))]), "'a' item 0 is not UTF-8"),
    "a list that leaves the file": (made(values=[text("a") + items(10, 2**19)]), "'a' goes beyond the file"),
    "a list of lists": (made(values=[text("a") + items(9, 2**20)]), "'a' is a list of type 9"),
    "lists without end": (
        made(values=[text(f"{i}") + items(0, 2**19, b"\0" * 2**19) for i in range(3)]),
        "'2': the number of its items is 524,288; expected at most 0",
    ),
    "a tensor twice": (made(tensors=[tensor("t", [8]), tensor("t", [8], offset=32)]), "'t' is there twice"),
    "no dimension": (made(tensors=[tensor("t", [])]), "'t' has 0 dimensions"),
    "2**32-1 dimensions": (made(tensors=[text("t") + struct.pack("<I", 2**32 - 1)]), "'t' has 4294967295 dimensions"),
    "a dimension of 0": (made(tensors=[tensor("t", [0, 8])]), "'t' has shape [8, 0]"),
    "huge dimensions": (made(tensors=[tensor("t", [2**64 - 1] * 4)]), "'t' ends at byte"),
    "an unknown kind": (made(tensors=[tensor("t", [8], kind=99)]), "'t' has type 99; expected one of F32"),
    "half a block": (made(tensors=[tensor("t", [48], kind=2)]), "'t' has shape [48]; expected rows of whole Q4_0"),
    "an offset behind the file": (made(tensors=[tensor("t", [8], offset=2**63)]), "'t' ends at byte"),
    "a tensor behind the file": (made(tensors=[tensor("t", [64])]), "'t' ends at byte"),
    "a crooked offset": (made(tensors=[tensor("t", [8], offset=33)]), "'t' has offset 33; expected a multiple of 32"),
    "overlap": (made(tensors=[tensor("t", [16]), tensor("u", [8], offset=32)]), "'u' begins at byte 160, inside 't'"),
    "the same place twice": (made(tensors=[tensor("t", [8]), tensor("u", [8])]), "inside 't'"),
    "alignment 0": (made(values=[text("general.alignment") + number(0)]), "general.alignment is 0"),
    "alignment 3": (made(values=[text("general.alignment") + number(24)]), "general.alignment is 24"),
    "alignment 2**31": (made(values=[text("general.alignment") + number(2**31)]), "general.alignment is 2147483648"),
    "an alignment that is text": (
        made(values=[text("general.alignment") + struct.pack("<I", 8) + text("32")]),
        "general.alignment is '32'",
    ),
    "a million equal tokens": (
        made(values=[text("a") + items(8, 2**20 - 1, text("x") * (2**20 - 1)), text("b") + struct.pack("<I", 77)]),
        "'b' has type 77",
    ),
}


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(made(data=np.arange(16, dtype="<f4").tobytes()))

    file = GgufFile.open(path)

    assert file.values == {"a": 1}
    assert {name: tensor.shape for name, tensor in file.tensors.items()} == {"t": (2, 4), "u": (8,)}
    assert file.read("t").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert file.read("u").tolist() == [*range(8, 16)]


def test_every_type_of_value_is_read(tmp_path: Path) -> None:
    letters = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    scalars = [text(f"{kind}") + struct.pack(f"<I{letter}", kind, 1) for kind, letter in letters.items()]
    lists = [
        text(f"list of {kind}") + items(kind, 3, struct.pack(f"<3{letter}", 1, 0, 1))
        for kind, letter in letters.items()
    ]
    words = [text("w") + struct.pack("<I", 8) + text("你好"), text("ws") + items(8, 2, text("") + text("é"))]
    path = tmp_path / "values.gguf"
    path.write_bytes(made(values=[*scalars, *lists, *words], version=2))

    values = GgufFile.open(path).values

    assert all(values[f"{kind}"] == 1 and values[f"list of {kind}"] == [1, 0, 1] for kind in letters)
    assert (values["w"], values["ws"]) == ("你好", ["", "é"])


def test_alignment_is_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "aligned.gguf"
    header = made(values=[text("general.alignment") + number(256)], tensors=[tensor("t", [8])], data=b"")
    path.write_bytes(header.ljust(256, b"\0") + np.arange(8, dtype="<f4").tobytes())

    assert GgufFile.open(path).read("t").tolist() == [*range(8)]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_by_file_and_field(name: str, tmp_path: Path) -> None:
    content, words = HOSTILE[name]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)

    with pytest.raises(CheckpointError) as error:
        GgufFile.open(path)

    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(CheckpointError, match=f"{path}: is "):
            GgufFile.open(path)


ZOO = """
import json, resource, sys, time
from pathlib import Path
from minimind.errors import UserError
from minimind.interop.gguf_weights import load_gguf

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before, slowest = memory(), 0.0
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        load_gguf(path)
    except UserError:
        slowest = max(slowest, time.process_time() - start)
    else:
        raise SystemExit(f"{path} was read")
print(json.dumps([slowest, (memory() - before) / 1024]))
"""


def test_no_hostile_file_costs_two_seconds_or_512_megabytes(tmp_path: Path, write_gguf: Write) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    for name, (content, _) in HOSTILE.items():
        (zoo / name).write_bytes(content)
    with (zoo / "a hole of a terabyte").open("wb") as file:
        file.write(made(tensors=[tensor("token_embd.weight", [2**16, 2**22])], data=b""))
        file.truncate(2**40 + 2**20)
    huge = {"llama.block_count": 512, "llama.feed_forward_length": 2**24, "llama.attention.key_length": 4096}
    from gguf import GGUFValueType

    write_gguf(values={name: (GGUFValueType.UINT32, value) for name, value in huge.items()}).rename(zoo / "huge values")

    done = subprocess.run([sys.executable, "-c", ZOO, str(zoo)], capture_output=True, text=True, timeout=110)

    assert done.returncode == 0, done.stdout + done.stderr
    seconds, megabytes = map(float, done.stdout.strip("[]\n").split(","))
    assert seconds < 2 and megabytes < 512


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, write_gguf: Write) -> None:
    whole = write_gguf().read_bytes()
    path = tmp_path / "cut.gguf"
    for length in [*range(0, 400), *random.Random(0).sample(range(len(whole)), 60), len(whole) - 33]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            GgufFile.open(path)


def test_a_flipped_byte_gives_a_model_or_an_error_of_ours(tmp_path: Path, write_gguf: Write) -> None:
    whole = write_gguf().read_bytes()
    generator = random.Random(0)
    path = tmp_path / "flipped.gguf"
    num_refused = 0
    for _ in range(250):
        content = bytearray(whole)
        content[generator.randrange(9000)] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        try:
            load_gguf(path)
        except UserError as error:
            num_refused += 1
            assert str(path) in str(error)
    assert num_refused > 100


def test_blocks_have_the_sizes_that_ggml_gives_them() -> None:
    constants = pytest.importorskip("gguf.constants")
    for number, kind in KINDS.items():
        known = constants.GGMLQuantizationType(number)
        assert (known.name, constants.GGML_QUANT_SIZES[known]) == (kind.name, (kind.block_size, kind.block_bytes))


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_comes_back_as_the_package_reads_it(kind, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    number = next(number for number, known in KINDS.items() if known is kind)
    path = tmp_path / "kind.gguf"
    rows, width = 3, 256
    num_bytes = rows * width // kind.block_size * kind.block_bytes
    # Bytes below 0x40 make small positive scales in every layout, and so no weight that is not finite.
    data = np.random.default_rng(0).integers(0, 0x40, num_bytes, dtype=np.uint8)
    path.write_bytes(made(tensors=[tensor("t", [width, rows], kind=number)], data=data.tobytes()))

    read = GgufFile.open(path).read("t")

    theirs = next(one for one in gguf.GGUFReader(path).tensors if one.name == "t")
    expected = gguf.quants.dequantize(theirs.data, theirs.tensor_type)
    assert read.dtype == torch.float32 and read.shape == (rows, width)
    assert read.unique().numel() > 10
    assert torch.equal(read, torch.from_numpy(np.array(expected)).view(rows, width))


@pytest.mark.parametrize("number", [0, 1, 8])
def test_weights_that_are_no_numbers_are_refused(number: int, tmp_path: Path) -> None:
    kind = KINDS[number]
    path = tmp_path / "nan.gguf"
    data = b"\xff" * (64 // kind.block_size * kind.block_bytes)
    path.write_bytes(made(tensors=[tensor("t", [64], kind=number)], data=data))

    with pytest.raises(CheckpointError, match="t has NaN or infinite weights"):
        GgufFile.open(path).read("t")


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(made(data=np.arange(16, dtype="<f4").tobytes()))
    file = GgufFile.open(path)
    os.truncate(path, path.stat().st_size - 1)

    with pytest.raises(CheckpointError, match="u: the file became shorter"):
        file.read("u")
