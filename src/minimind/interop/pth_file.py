"""A .pth file of tensors, read without running the program that is in it.

torch.save writes a zip archive, uncompressed: `data.pkl` is a program for a stack machine that builds the dictionary
(a pickle), and `data/0`, `data/1`, ... hold the numbers. To run a pickle is to trust it: it may call anything. A plain
dictionary of tensors needs some thirty instructions and five names, so these are followed here one by one, as data, and
the first that is another ends the reading. Sizes are compared with the archive's before a number is read.
Next: `upstream.py`, which says what the tensors mean.
"""

import pickletools
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minimind.errors import CheckpointError

__all__ = ["PthFile", "PthTensor"]

# A dictionary of a thousand tensors is a program of 150 kB.
MAX_PROGRAM_BYTES = 1 << 20
MAX_ENTRIES = 1 << 14
MAX_DIRECTORY_BYTES = 4 << 20

TYPES = {
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
}
DICTIONARY = "collections.OrderedDict"
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
NAMES = {*TYPES, DICTIONARY, TENSOR, PARAMETER}


@dataclass(frozen=True)
class PthTensor:
    """Where a tensor lies.

    entry:   of the archive
    offset:  in that entry, in bytes
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    entry: str
    offset: int

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class PthFile:
    """What a file says it holds, which `open` has compared with what it does hold, and `read` for the numbers."""

    def __init__(self, path: Path, tensors: dict[str, PthTensor]) -> None:
        self.path = path
        self.tensors = tensors

    @classmethod
    def open(cls, path: Path | str) -> "PthFile":
        """Read and check all but the numbers. Errors: CheckpointError naming the file and the field"""
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: is {'no file' if path.exists() else 'not there'}; expected a .pth file")
        try:
            _require_small_directory(path)
            with zipfile.ZipFile(path) as archive:
                return cls(path, _tensors(path, archive))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
            raise CheckpointError(f"{path}: not a whole zip archive as torch.save writes it: {error}") from None

    def read(self, name: str) -> Tensor:
        """A tensor as float32. Errors: CheckpointError, also when the archive's checksum or a number is wrong"""
        tensor = self.tensors[name]
        try:
            with zipfile.ZipFile(self.path) as archive:
                data = bytearray(archive.read(tensor.entry))
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise CheckpointError(f"{self.path}: {name}: cannot be read: {error}") from None
        count = torch.Size(tensor.shape).numel()
        numbers = torch.frombuffer(data, dtype=tensor.dtype, count=count, offset=tensor.offset)
        numbers = numbers.float().view(tensor.shape)
        if not torch.isfinite(numbers).all():
            raise CheckpointError(f"{self.path}: {name} has NaN or infinite weights; take another copy of the file")
        return numbers


def _require_small_directory(path: Path) -> None:
    """`zipfile` makes an object of each entry that the end of the file announces, so look at that end first.

    The last 22 bytes give counts; those of a large archive stand before, in 56 bytes and 20 that lead there.
    """
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 98, 0))
        tail = file.read().rjust(98, b"\0")
    record, locator, end = tail[:56], tail[56:76], tail[76:]
    if not end.startswith(b"PK\5\6") or not end.endswith(b"\0\0"):
        raise CheckpointError(
            f"{path}: not a whole zip archive; expected a file of torch.save, from torch 1.6 or later"
        )
    entries, num_bytes = struct.unpack_from("<HI", end, 10)
    if locator.startswith(b"PK\6\7") and record.startswith(b"PK\6\6"):
        entries, num_bytes = struct.unpack_from("<QQ", record, 32)
    if entries > MAX_ENTRIES or num_bytes > MAX_DIRECTORY_BYTES:
        raise CheckpointError(
            f"{path}: the archive has {entries:,} entries in a directory of {num_bytes:,} bytes; expected at most "
            f"{MAX_ENTRIES:,} and {MAX_DIRECTORY_BYTES:,}"
        )


def _tensors(path: Path, archive: zipfile.ZipFile) -> dict[str, PthTensor]:
    entries = {info.filename: info for info in archive.infolist()}
    total = sum(info.file_size for info in entries.values())
    if len(entries) < len(archive.infolist()) or total > path.stat().st_size:
        raise CheckpointError(f"{path}: the archive's entries overlap or are there twice; expected each once")
    for name, info in entries.items():
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise CheckpointError(f"{path}: {name} is compressed; expected plain entries, as torch.save writes them")
    programs = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(programs) != 1:
        raise CheckpointError(f"{path}: has {len(programs)} entries NAME/data.pkl; expected one, as torch.save writes")
    folder = programs[0].removesuffix("data.pkl")
    if entries[programs[0]].file_size > MAX_PROGRAM_BYTES:
        raise CheckpointError(f"{path}: {programs[0]} is over {MAX_PROGRAM_BYTES:,} bytes; expected tensors only")
    order = f"{folder}byteorder"
    if order in entries and (entries[order].file_size > 16 or archive.read(order) != b"little"):
        raise CheckpointError(f"{path}: {order} is not little; write the file again on a little-endian machine")
    sizes = {name.removeprefix(f"{folder}data/"): info.file_size for name, info in entries.items()}
    machine = _Machine(path, f"{folder}data/", sizes)
    found = machine.run(archive.read(programs[0]))
    return _checked(path, found, total)


def _checked(path: Path, found: Any, total: int) -> dict[str, PthTensor]:
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{path}: holds {_what(found)}; expected a dictionary of tensors")
    for name, tensor in found.items():
        if not isinstance(name, str) or len(name) > 256:
            raise CheckpointError(f"{path}: a key is {name!r:.80}; expected the name of a tensor")
        if not isinstance(tensor, PthTensor):
            raise CheckpointError(
                f"{path}: {name!r} is {_what(tensor)}; expected a dictionary of tensors and nothing else, such as the "
                "weights without the training state"
            )
    # Many names may share one entry, as tied weights do; a few bytes must not become many gigabytes.
    claimed = sum(tensor.num_bytes for tensor in found.values())
    if claimed > 2 * total:
        raise CheckpointError(
            f"{path}: tensors of {claimed:,} bytes in a file of {total:,}; expected each its own bytes"
        )
    return found


class _Machine:
    """Follows the instructions of a pickle that are needed for tensors, and knows no way to call anything.

    folder:  of the archive, in which the numbers are
    sizes:   of the entries there, in bytes
    """

    def __init__(self, path: Path, folder: str, sizes: dict[str, int]) -> None:
        self.path = path
        self.folder = folder
        self.sizes = sizes
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """What the program leaves on the stack. Errors: CheckpointError naming the instruction"""
        try:
            for instruction, value, _ in pickletools.genops(program):
                if instruction.name == "STOP":
                    return self.stack.pop()
                self._step(instruction.name, value)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"{self.path}: data.pkl is damaged: {error!s:.120}") from None
        raise CheckpointError(f"{self.path}: data.pkl is damaged: it has no end")

    def _step(self, name: str, value: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(value)
            case "GLOBAL":
                stack.append(self._name(*value.split(" ", 1)))
            case "STACK_GLOBAL":
                last = stack.pop()
                stack.append(self._name(stack.pop(), last))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[value] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[value])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(int(name[-1]))))
            case "TUPLE":
                stack.append(tuple(self._pop_mark()))
            case "SETITEM" | "SETITEMS":
                self._set_items(self._pop(2) if name == "SETITEM" else self._pop_mark())
            case "APPEND" | "APPENDS":
                items = self._pop(1) if name == "APPEND" else self._pop_mark()
                if not isinstance(stack[-1], list):
                    raise ValueError("items for what is no list")
                stack[-1].extend(items)
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                stack.append(self._made(*self._pop(2)))
            case "BUILD":
                # An OrderedDict's own attributes, such as the versions of its modules: no part of the dictionary.
                if not isinstance(stack.pop(), dict) or not isinstance(stack[-1], dict):
                    raise ValueError("attributes for what is no dictionary")
            case _:
                raise CheckpointError(
                    f"{self.path}: data.pkl has the instruction {name}, which no dictionary of tensors needs; "
                    "nothing was run, get the file from where it was made"
                )

    def _pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def _pop_mark(self) -> list[Any]:
        return self._pop(len(self.stack) - self.marks.pop())

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int) or key in target:
                raise ValueError(f"key {key!r:.80}, expected each name once")
            target[key] = value

    def _name(self, module: Any, name: Any) -> "_Name":
        if f"{module}.{name}" not in NAMES:
            raise CheckpointError(
                f"{self.path}: data.pkl names {f'{module}.{name}':.120}, which no dictionary of tensors needs; nothing "
                "was run, do not load this file with other programs"
            )
        return _Name(f"{module}.{name}")

    def _storage(self, reference: Any) -> "_Storage":
        """('storage', type, key, device, count), as torch.save refers to an entry of the archive."""
        kind, storage, key, _, count = reference
        if kind != "storage" or not isinstance(storage, _Name) or storage.name not in TYPES:
            raise ValueError("a reference to what is no storage of floating-point numbers")
        dtype = TYPES[storage.name]
        if key not in self.sizes or type(count) is not int or self.sizes[key] != count * dtype.itemsize:
            have = f"{self.sizes[key]:,} bytes" if key in self.sizes else "not there"
            raise CheckpointError(
                f"{self.path}: entry {self.folder}{key!s:.80} is {have}; expected {count!r:.40} numbers of {dtype}"
            )
        return _Storage(f"{self.folder}{key}", dtype, count)

    def _made(self, name: Any, arguments: Any) -> Any:
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of what has no name")
        if name.name == DICTIONARY and not arguments:
            return {}
        if name.name == PARAMETER and isinstance(arguments[0], PthTensor):
            return arguments[0]
        if name.name != TENSOR:
            raise ValueError(f"a call of {name.name}")
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage) or not all(type(n) is int and n > 0 for n in (offset + 1, *shape)):
            raise ValueError("a tensor without numbers")
        if len(shape) > 2 or strides != tuple(_row_major(shape)):
            raise ValueError(f"a tensor of shape {[*shape]} with strides {strides!s:.80}; expected rows in order")
        tensor = PthTensor(tuple(shape), storage.dtype, storage.entry, offset * storage.dtype.itemsize)
        if offset + torch.Size(shape).numel() > storage.count:
            raise ValueError(f"a tensor of shape {[*shape]} reaches beyond {storage.entry}")
        return tensor


@dataclass(frozen=True)
class _Name:
    """Stands for a function or class that a pickle names."""

    name: str


@dataclass(frozen=True)
class _Storage:
    entry: str
    dtype: torch.dtype
    count: int


def _row_major(shape: tuple[int, ...]) -> Iterator[int]:
    for place in range(len(shape)):
        yield torch.Size(shape[place + 1 :]).numel()


def _what(value: Any) -> str:
    return "a tensor" if isinstance(value, PthTensor) else f"a {type(value).__name__}"
