"""A .pth file of tensors, read by torch once it is certain that there is nothing else in it.

torch.save writes a zip archive, uncompressed: `data.pkl` is a program for a stack machine that builds the dictionary
(a pickle), and `data/0`, `data/1`, ... hold the numbers. `torch.load(weights_only=True)` follows the program and calls
only what builds tensors and their kin; some of that costs whatever the file says, such as `bytearray(10**12)`, and no
size is compared with the archive's. So the directory and the names in the program are looked at before, and what was
built after. The numbers stay in the file until one is read. Next: `upstream.py`, which says what the tensors mean.
"""

import pickletools
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minimind.errors import CheckpointError

__all__ = ["PthFile"]

# A dictionary of a thousand tensors is a program of 150 kB.
MAX_PROGRAM_BYTES = 1 << 18
MAX_ENTRIES = 1 << 14
MAX_DIRECTORY_BYTES = 4 << 20

TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# What a dictionary of such tensors needs.
NAMES = {
    *(f"torch {kind}Storage" for kind in ("Half", "BFloat16", "Float", "Double")),
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}


class PthFile:
    """What a file holds, which `open` has compared with its directory, and `read` for the numbers.

    tensors:  by name, mapped from the file
    """

    def __init__(self, path: Path, tensors: dict[str, Tensor]) -> None:
        self.path = path
        self.tensors = tensors
        self._is_intact = False

    @classmethod
    def open(cls, path: Path | str) -> "PthFile":
        """Read and check all but the numbers. Errors: CheckpointError naming the file and the field"""
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: is {'no file' if path.exists() else 'not there'}; expected a .pth file")
        try:
            _require_small_directory(path)
            with zipfile.ZipFile(path) as archive:
                entries = _checked_entries(path, archive)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
            raise CheckpointError(f"{path}: not a whole zip archive as torch.save writes it: {error}") from None
        return cls(path, _checked_tensors(path, _loaded(path), entries))

    def read(self, name: str) -> Tensor:
        """A tensor's numbers as float32. Errors: CheckpointError, also when a checksum or a number is wrong"""
        self._require_intact()
        # A copy: a view of the mapped file would change, or crash, with the file.
        numbers = self.tensors[name].to(torch.float32, copy=True)
        if not torch.isfinite(numbers).all():
            raise CheckpointError(f"{self.path}: {name} has NaN or infinite weights; take another copy of the file")
        return numbers

    def _require_intact(self) -> None:
        """Compare the checksum of every entry, once; torch compares none."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                damaged = None if self._is_intact else archive.testzip()
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error}") from None
        if damaged is not None:
            raise CheckpointError(f"{self.path}: {damaged} has another checksum; take another copy of the file")
        self._is_intact = True


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


def _checked_entries(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The entries with numbers in the order of the file, once directory and program are what torch.save writes."""
    entries = {info.filename: info for info in archive.infolist()}
    total = sum(info.file_size for info in entries.values())
    # torch takes names in capitals for the same.
    if len({name.lower() for name in entries}) < len(archive.infolist()) or total > path.stat().st_size:
        raise CheckpointError(f"{path}: the archive's entries overlap or are there twice; expected each once")
    for name, info in entries.items():
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise CheckpointError(f"{path}: {name} is compressed; expected plain entries, as torch.save writes them")
    programs = [name for name in entries if name.endswith("data.pkl")]
    if len(programs) != 1 or programs[0].count("/") != 1:
        raise CheckpointError(f"{path}: has {len(programs)} entries NAME/data.pkl; expected one, as torch.save writes")
    folder = programs[0].removesuffix("data.pkl")
    if entries[programs[0]].file_size > MAX_PROGRAM_BYTES:
        raise CheckpointError(f"{path}: {programs[0]} is over {MAX_PROGRAM_BYTES:,} bytes; expected tensors only")
    order = f"{folder}byteorder"
    if order in entries and (entries[order].file_size > 16 or archive.read(order) != b"little"):
        raise CheckpointError(f"{path}: {order} is not little; write the file again on a little-endian machine")
    _require_plain_program(path, archive.read(programs[0]))
    found = [info for name, info in entries.items() if name.startswith(f"{folder}data/")]
    return sorted(found, key=lambda info: info.header_offset)


def _require_plain_program(path: Path, program: bytes) -> None:
    """Every function and class that the program names is needed for a tensor. Nothing is run here."""
    try:
        for instruction, value, _ in pickletools.genops(program):
            if instruction.name == "PROTO" and value != 2:
                raise CheckpointError(f"{path}: data.pkl has protocol {value}; expected 2, as torch.save writes it")
            if instruction.name in ("GLOBAL", "INST") and value not in NAMES:
                name = str(value).replace(" ", ".")
                raise CheckpointError(
                    f"{path}: data.pkl names {name:.120}, which no dictionary of tensors needs; "
                    "nothing was run, do not load this file with other programs"
                )
    except ValueError as error:
        raise CheckpointError(f"{path}: data.pkl is damaged: {error!s:.120}") from None


def _loaded(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    # A damaged program makes torch's reader raise whatever its instructions happen to raise.
    except Exception as error:
        reason = " ".join(str(error).partition("WeightsUnpickler error: ")[2].split()) or str(error)
        raise CheckpointError(f"{path}: data.pkl builds no tensors: {reason.partition(' Check ')[0]:.120}") from None


def _checked_tensors(path: Path, found: Any, entries: list[zipfile.ZipInfo]) -> dict[str, Tensor]:
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{path}: holds {_what(found)}; expected a dictionary of tensors")
    for name, tensor in found.items():
        if not isinstance(name, str) or len(name) > 256:
            raise CheckpointError(f"{path}: a key is {name!r:.80}; expected the name of a tensor")
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: {name!r} is {_what(tensor)}; expected a dictionary of tensors and nothing else, such as the "
                "weights without the training state"
            )
        if tensor.dtype not in TYPES or not 1 <= tensor.ndim <= 2 or not tensor.numel() or not tensor.is_contiguous():
            raise CheckpointError(
                f"{path}: {name!r} is a {tensor.dtype} of shape {[*tensor.shape]} and strides {tensor.stride()}; "
                "expected rows of floating-point numbers in order"
            )
    # torch begins each storage where its entry begins and believes its size; in order of place they must agree.
    storages = {s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in found.values())}
    sizes = [storages[place] for place in sorted(storages)]
    if sizes != [info.file_size for info in entries]:
        wrong = [info.filename for info, size in zip(entries, sizes, strict=False) if info.file_size != size]
        raise CheckpointError(
            f"{path}: {len(sizes)} tensors' numbers for {len(entries)} entries, and sizes that differ from "
            f"{wrong[0] if wrong else 'the last'} on; expected one for each, of the same size"
        )
    # Many names may share one entry, as tied weights do; a few bytes must not become many gigabytes.
    claimed, total = sum(tensor.nbytes for tensor in found.values()), sum(sizes)
    if claimed > 2 * total:
        raise CheckpointError(
            f"{path}: tensors of {claimed:,} bytes in a file of {total:,}; expected each its own bytes"
        )
    return {name: tensor.detach() for name, tensor in found.items()}


def _what(value: Any) -> str:
    return "a tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
