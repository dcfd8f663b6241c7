"""Append documents to a shard set. The folder becomes one when `finish` writes its index, not before."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from minimind.data.corpus import RowKind
from minimind.data.shard_index import Index, ShardFile, file_name, write_index
from minimind.text.tokenizer import Tokenizer

__all__ = ["ShardWriter"]

# 256 MB of ids a shard: large enough to stream, small enough to copy again.
TOKENS_PER_SHARD = 1 << 27


class ShardWriter:
    """Fills a folder; `folder.write_folder` is how it appears in one piece."""

    def __init__(
        self, folder: Path, *, kind: RowKind, tokenizer: Tokenizer, tokens_per_shard: int = TOKENS_PER_SHARD
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.index = Index(
            kind=kind,
            tokenizer=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            num_documents=0,
            num_tokens=0,
            num_weighted=0,
            num_bytes=0,
            shards=[],
            report={},
        )
        self.num_documents = self.num_tokens = self.num_weighted = self.num_bytes = 0
        self._tokens_per_shard = tokens_per_shard
        self._shards: list[ShardFile] = []
        self._parts: dict[str, _Part] = {}
        self._offsets = [0]

    def add(self, ids: np.ndarray, weights: np.ndarray | None, *, num_bytes: int) -> None:
        """Append a document.

        ids:        [n] integers
        weights:    [n] uint8, 0 or 1; None for text, where all but the first count
        num_bytes:  UTF-8 bytes spelled by the ids that count
        """
        assert len(ids) > 0 and (weights is None) == (self.index.kind == "text"), (len(ids), self.index.kind)
        if self._offsets[-1] and self._offsets[-1] + len(ids) > self._tokens_per_shard:
            self._close_shard()
        self._part("ids").write(ids.astype(self.index.id_dtype, copy=False))
        if weights is not None:
            self._part("weights").write(weights)
        self._offsets.append(self._offsets[-1] + len(ids))
        self.num_documents += 1
        self.num_tokens += len(ids)
        self.num_weighted += len(ids) - 1 if weights is None else int(weights.sum())
        self.num_bytes += num_bytes

    def finish(self, report: dict[str, Any]) -> None:
        """Write what is left, and index.json last."""
        self._close_shard()
        totals = {
            "num_documents": self.num_documents,
            "num_tokens": self.num_tokens,
            "num_weighted": self.num_weighted,
            "num_bytes": self.num_bytes,
        }
        write_index(self.folder, self.index.model_copy(update={**totals, "shards": self._shards, "report": report}))

    def close(self) -> None:
        """Let go of the files, finished or not."""
        for part in self._parts.values():
            # Closing writes what is buffered, which fails again on a full disk; such a folder is thrown away.
            with suppress(OSError):
                part.file.close()

    def _part(self, name: str) -> "_Part":
        if name not in self._parts:
            self._parts[name] = _Part(self.folder / file_name(len(self._shards), name))
        return self._parts[name]

    def _close_shard(self) -> None:
        if len(self._offsets) == 1:
            return
        self._part("offsets").write(np.array(self._offsets, dtype="<i8"))
        hashes = {name: part.close() for name, part in sorted(self._parts.items())}
        self._shards.append(ShardFile(documents=len(self._offsets) - 1, tokens=self._offsets[-1], sha256=hashes))
        self._parts, self._offsets = {}, [0]


class _Part:
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.hash = hashlib.sha256()

    def write(self, values: np.ndarray) -> None:
        data = values.tobytes()
        self.file.write(data)
        self.hash.update(data)

    def close(self) -> str:
        self.file.close()
        return self.hash.hexdigest()
