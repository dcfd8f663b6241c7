"""A GGUF file, read with distrust: named values, and tensors that are turned into float32 one at a time.

    "GGUF" version(u32) num_tensors(u64) num_values(u64)
    values:   name, type(u32), value                               a name or text is length(u64) + UTF-8
    tensors:  name, num_dims(u32), dims(u64 each, innermost first), kind(u32), offset(u64)
    padding to general.alignment, then the tensors' bytes; offsets count from here

Every count, length, size and offset is compared with the file before anything of that size is made, so a hostile file
costs no more than its header. The `gguf` package turns quantised blocks into numbers; its reader is not used, because
it believes what a file says. Format: the GGUF specification of the ggml project, versions 2 and 3.
Next: `gguf_weights.py`.
"""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from minimind.errors import CheckpointError, install

__all__ = ["KINDS", "GgufFile", "GgufTensor", "ValueKind"]


class ValueKind(NamedTuple):
    """How numbers are stored: blocks of `block_size` numbers in `block_bytes` bytes."""

    name: str
    block_size: int
    block_bytes: int


KINDS = {
    0: ValueKind("F32", 1, 4),
    1: ValueKind("F16", 1, 2),
    2: ValueKind("Q4_0", 32, 18),
    3: ValueKind("Q4_1", 32, 20),
    6: ValueKind("Q5_0", 32, 22),
    7: ValueKind("Q5_1", 32, 24),
    8: ValueKind("Q8_0", 32, 34),
    12: ValueKind("Q4_K", 256, 144),
    13: ValueKind("Q5_K", 256, 176),
    14: ValueKind("Q6_K", 256, 210),
    30: ValueKind("BF16", 1, 2),
}

# Bounds far above any real file of the architectures that are read: Qwen3's header has 6 MB and 450,000 items.
MAX_HEADER_BYTES = 64 << 20
MAX_VALUES = 4096
MAX_ITEMS = 1 << 20
MAX_TENSORS = 1 << 14
MAX_NAME_BYTES = 256
MAX_ALIGNMENT = 1 << 16

# struct's letter for each type of value; text and lists are types of their own.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies.

    shape:   outermost dimension first, as torch has it
    offset:  from the start of the file, in bytes
    """

    name: str
    shape: tuple[int, ...]
    kind: ValueKind
    offset: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) // self.kind.block_size * self.kind.block_bytes


class GgufFile:
    """The header of a file, which `open` has checked, and `read` for the tensors.

    values:   by name: int, float, bool, str, or a list of one of these
    tensors:  by name
    """

    def __init__(self, path: Path, values: dict[str, Any], tensors: dict[str, GgufTensor]) -> None:
        self.path = path
        self.values = values
        self.tensors = tensors

    @classmethod
    def open(cls, path: Path | str) -> "GgufFile":
        """Read and check the header. Errors: CheckpointError naming the file and the field"""
        path = Path(path)
        try:
            # A pipe or a device has no end that could be checked.
            if not path.is_file():
                raise CheckpointError(f"{path}: is {'no file' if path.exists() else 'not there'}; expected a GGUF file")
            with path.open("rb") as file:
                header = _Header(path, file.read(MAX_HEADER_BYTES), path.stat().st_size)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
        return cls(path, *_parse(header))

    def read(self, name: str) -> Tensor:
        """A tensor's numbers as float32. Errors: CheckpointError, also when one is not finite"""
        tensor = self.tensors[name]
        data = np.empty(tensor.num_bytes, dtype=np.uint8)
        try:
            with self.path.open("rb") as file:
                file.seek(tensor.offset)
                num_read = file.readinto(data.data)
        except OSError as error:
            raise CheckpointError(f"{self.path}: {name}: cannot be read: {error.strerror}") from None
        if num_read != len(data):
            raise CheckpointError(f"{self.path}: {name}: the file became shorter while it was read; try again")
        numbers = torch.from_numpy(_dequantised(data, tensor)).view(tensor.shape)
        if not torch.isfinite(numbers).all():
            raise CheckpointError(f"{self.path}: {name} has NaN or infinite weights; take another copy of the file")
        return numbers


def _dequantised(data: np.ndarray, tensor: GgufTensor) -> np.ndarray:
    """Bytes -> float32 [rows, numbers of a row]."""
    if tensor.kind.name == "F32":
        return data.view("<f4").astype(np.float32, copy=False)
    try:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError:
        raise CheckpointError(f"reading a GGUF file needs gguf: {install('gguf')}") from None
    rows = data.reshape(-1, tensor.shape[-1] // tensor.kind.block_size * tensor.kind.block_bytes)
    # A scale that is no number gives weights that are none, which `read` reports by name.
    with np.errstate(all="ignore"):
        return dequantize(rows, GGMLQuantizationType[tensor.kind.name])


def _parse(header: "_Header") -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    magic, version = header.take(4), header.number("I", "version")
    if magic != b"GGUF":
        raise header.error("the first four bytes", f"are {magic!r}; expected b'GGUF'")
    if version not in (2, 3):
        raise header.error("version", f"is {version}; expected 2 or 3, in little-endian order")
    num_tensors = header.count("the number of tensors", MAX_TENSORS)
    num_values = header.count("the number of values", MAX_VALUES)
    values: dict[str, Any] = {}
    for index in range(num_values):
        name = header.text(f"the name of value {index}", MAX_NAME_BYTES)
        if name in values:
            raise header.error(f"value {name!r}", "is there twice; expected it once")
        values[name] = header.value(name)
    found = [_tensor(header, index) for index in range(num_tensors)]
    return values, _placed(header, found, _alignment(header, values))


def _alignment(header: "_Header", values: dict[str, Any]) -> int:
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise header.error("general.alignment", f"is {alignment!r:.40}; expected a power of two from 8 on")
    return alignment


def _tensor(header: "_Header", index: int) -> GgufTensor:
    """One entry; its offset still counts from the start of the tensors' bytes."""
    name = header.text(f"the name of tensor {index}", MAX_NAME_BYTES)
    num_dims = header.number("I", f"{name!r}: the number of dimensions")
    if not 1 <= num_dims <= 4:
        raise header.error(f"{name!r}", f"has {num_dims} dimensions; expected 1 to 4")
    shape = tuple(header.number("Q", f"{name!r}: dimensions") for _ in range(num_dims))[::-1]
    kind = KINDS.get(number := header.number("I", f"{name!r}: type"))
    if kind is None:
        known = ", ".join(kind.name for kind in KINDS.values())
        raise header.error(f"{name!r}", f"has type {number}; expected one of {known}")
    if 0 in shape or shape[-1] % kind.block_size:
        raise header.error(f"{name!r}", f"has shape {list(shape)}; expected rows of whole {kind.name} blocks")
    return GgufTensor(name, shape, kind, header.number("Q", f"{name!r}: offset"))


def _placed(header: "_Header", found: Iterable[GgufTensor], alignment: int) -> dict[str, GgufTensor]:
    """The tensors by name with offsets from the start of the file, none overlapping another or leaving the file."""
    start = -(-header.place // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    end, last = start, ""
    for tensor in sorted(found, key=lambda tensor: tensor.offset):
        name, offset = tensor.name, start + tensor.offset
        if name in tensors:
            raise header.error(f"{name!r}", "is there twice; expected it once")
        if tensor.offset % alignment:
            raise header.error(f"{name!r}", f"has offset {tensor.offset:,}; expected a multiple of {alignment}")
        if offset < end:
            raise header.error(f"{name!r}", f"begins at byte {offset:,}, inside {last!r}, which ends at {end:,}")
        end, last = offset + tensor.num_bytes, name
        if end > header.size:
            raise header.error(f"{name!r}", f"ends at byte {end:,}; the file has only {header.size:,}")
        tensors[name] = GgufTensor(name, tensor.shape, tensor.kind, offset)
    return tensors


class _Header:
    """Reads from the front of a file, and never past its end.

    place:  the bytes read so far
    size:   the bytes of the whole file
    """

    def __init__(self, path: Path, data: bytes, size: int) -> None:
        self.path = path
        self.data = data
        self.size = size
        self.place = 0
        self._items_left = MAX_ITEMS

    def error(self, field: str, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {field} {problem}")

    def take(self, count: int, field: str = "the first four bytes") -> bytes:
        if count > len(self.data) - self.place:
            limit = "the file" if len(self.data) == self.size else "the longest header that is read"
            raise self.error(field, f"goes beyond {limit}, which ends at byte {len(self.data):,}")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, letter: str, field: str) -> Any:
        code = f"<{letter}"
        return struct.unpack(code, self.take(struct.calcsize(code), field))[0]

    def count(self, field: str, largest: int) -> int:
        count = self.number("Q", field)
        if count > largest:
            raise self.error(field, f"is {count:,}; expected at most {largest:,}")
        return count

    def text(self, field: str, largest: int = MAX_HEADER_BYTES) -> str:
        try:
            return self.take(self.count(f"{field}: its length", largest), field).decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(field, "is not UTF-8") from None

    def value(self, name: str) -> Any:
        kind = self.number("I", f"{name!r}: type")
        if kind in SCALARS:
            return self.number(SCALARS[kind], repr(name))
        if kind == TEXT:
            return self.text(repr(name))
        if kind != LIST:
            raise self.error(f"{name!r}", f"has type {kind}, which is not of the format")
        return self._list(name)

    def _list(self, name: str) -> list[Any]:
        kind = self.number("I", f"{name!r}: type of its items")
        count = self.count(f"{name!r}: the number of its items", self._items_left)
        self._items_left -= count
        if kind == TEXT:
            return self._texts(name, count)
        if kind not in SCALARS:
            raise self.error(f"{name!r}", f"is a list of type {kind}; expected numbers or texts")
        code = f"<{count}{SCALARS[kind]}"
        return [*struct.unpack(code, self.take(struct.calcsize(code), repr(name)))]

    def _texts(self, name: str, count: int) -> list[str]:
        """A vocabulary has hundreds of thousands of texts, so this loop calls nothing of ours."""
        texts, data, place = [], self.data, self.place
        try:
            for _ in range(count):
                start = place + LENGTH.size
                place = start + LENGTH.unpack_from(data, place)[0]
                if place > len(data):
                    self.take(place - self.place, f"{name!r}: item {len(texts)}")
                texts.append(data[start:place].decode("utf-8"))
        except struct.error:
            raise self.error(f"{name!r}", f"has only {len(texts):,} of {count:,} items") from None
        except UnicodeDecodeError:
            raise self.error(f"{name!r}", f"item {len(texts)} is not UTF-8") from None
        self.place = place
        return texts
