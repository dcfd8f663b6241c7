"""Documents as token ids on the disk, read through memory maps: what training reads.

`shard_index.py` describes the files, `shard_writer.py` makes them, `loader.py` packs the documents into batches.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from minimind.data.corpus import RowKind
from minimind.data.shard_index import INDEX, Index, file_name, read_index
from minimind.errors import DataError
from minimind.text.tokenizer import Tokenizer

__all__ = ["ShardSet", "open_prepared"]

# Hashing this much takes about a second, so it is always done; more only on request.
VERIFY_BYTES = 512 << 20


class ShardSet:
    """The documents of a folder, by number; `shards[i]` gives views into the files.

    lengths:       [N] int64, the ids of each document, BOS and EOS included
    num_tokens:    their sum
    num_weighted:  ids whose prediction counts
    num_bytes:     UTF-8 bytes that those spell: bits per byte are the nats of all predictions / (ln 2 * num_bytes)
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder, self.index = folder, index
        self.kind: RowKind = index.kind
        self.num_tokens, self.num_weighted, self.num_bytes = index.num_tokens, index.num_weighted, index.num_bytes
        self._ids = self._maps("ids", index.id_dtype)
        self._offsets = self._maps("offsets", np.dtype("<i8"))
        self._weights = self._maps("weights", np.dtype("u1")) if index.kind == "conversation" else []
        self._first = [0, *np.cumsum([shard.documents for shard in index.shards], dtype=np.int64).tolist()]
        self.lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(offsets) for offsets in self._offsets)])
        self._check_offsets()
        # Text has one pattern of weights: a view of its beginning serves every document.
        self._text_weights = np.ones(int(self.lengths.max(initial=1)), dtype=np.float32)
        self._text_weights[0] = 0
        self._text_weights.flags.writeable = False

    @classmethod
    def open(cls, folder: Path | str, tokenizer: Tokenizer, *, verify: bool | None = None) -> "ShardSet":
        """Open a folder that was prepared with this very tokenizer.

        verify:  hash all files; None does so up to half a gigabyte. Sizes are always checked.
        Errors:  DataError naming the folder or file and what is wrong with it.
        """
        folder = Path(folder)
        index = read_index(folder)
        if index.tokenizer != tokenizer.fingerprint:
            raise DataError(
                f"{folder}: prepared with tokenizer {index.tokenizer[:12]} ({index.vocab_size:,} tokens), got "
                f"{tokenizer.fingerprint[:12]} ({tokenizer.vocab_size:,} tokens); prepare the data again with this "
                "tokenizer, or use the one it was prepared with"
            )
        total = _check_sizes(folder, index)
        shards = cls(folder, index)
        if verify or (verify is None and total <= VERIFY_BYTES):
            shards.verify()
        return shards

    @property
    def fingerprint(self) -> str:
        """Of what the documents hold: equal data have the same, wherever they came from and lie."""
        hashes = [sorted(shard.sha256.items()) for shard in self.index.shards]
        return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()

    def __len__(self) -> int:
        return self._first[-1]

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids [n], a read-only view of uint16 or uint32, and the float32 weights [n] of predicting each of them."""
        document = int(document)
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} of {len(self)}")
        shard = bisect_right(self._first, document) - 1
        place = document - self._first[shard]
        start, end = self._offsets[shard][place : place + 2].tolist()
        ids = self._ids[shard][start:end]
        if self.kind == "text":
            return ids, self._text_weights[: end - start]
        return ids, self._weights[shard][start:end].astype(np.float32)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return map(self.__getitem__, range(len(self)))

    def verify(self) -> None:
        """Hash every file, and check that no id or weight is outside its range."""
        for number, shard in enumerate(self.index.shards):
            for name, expected in shard.sha256.items():
                path = self.folder / file_name(number, name)
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                        raise DataError(f"{path}: damaged: its hash is not that of {INDEX}; prepare the data again")
            self._check_range("ids", number, self._ids, self.index.vocab_size)
            self._check_range("weights", number, self._weights, 2)

    def _maps(self, name: str, dtype: np.dtype) -> list[np.ndarray]:
        # As plain arrays: slicing np.memmap itself would make a slow subclass of each document.
        paths = [self.folder / file_name(number, name) for number in range(len(self.index.shards))]
        return [np.memmap(path, dtype=dtype, mode="r").view(np.ndarray) for path in paths]

    def _check_offsets(self) -> None:
        for number, (shard, offsets) in enumerate(zip(self.index.shards, self._offsets, strict=True)):
            if offsets[0] != 0 or offsets[-1] != shard.tokens or (np.diff(offsets) < 1).any():
                path = self.folder / file_name(number, "offsets")
                raise DataError(f"{path}: damaged: does not rise from 0 to {shard.tokens}; prepare the data again")

    def _check_range(self, name: str, number: int, arrays: list[np.ndarray], end: int) -> None:
        if arrays and (largest := int(arrays[number].max())) >= end:
            path = self.folder / file_name(number, name)
            raise DataError(f"{path}: has the value {largest}, expected less than {end}; prepare the data again")


def open_prepared(sources: Sequence[str | Path], tokenizer: Tokenizer) -> tuple[ShardSet, ShardSet | None] | None:
    """The training part, and the validation part if there is one; None if the sources are not one prepared folder.

    Errors: as `ShardSet.open`
    """
    train, valid = Path(sources[0]) / "train", Path(sources[0]) / "valid"
    if len(sources) > 1 or not (train / INDEX).is_file():
        return None
    return ShardSet.open(train, tokenizer), ShardSet.open(valid, tokenizer) if valid.is_dir() else None


def _check_sizes(folder: Path, index: Index) -> int:
    """The bytes of all files, once each is as large as the index says."""
    total = 0
    for number, shard in enumerate(index.shards):
        for name, size in index.sizes(shard).items():
            path = folder / file_name(number, name)
            try:
                found = path.stat().st_size
            except OSError as error:
                raise DataError(f"{path}: {error.strerror}; prepare the data again") from error
            if found != size:
                raise DataError(f"{path}: damaged: {found:,} bytes, expected {size:,}; prepare the data again")
            total += size
    return total
