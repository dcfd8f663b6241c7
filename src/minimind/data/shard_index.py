"""index.json of a shard set: what its files hold, for which tokenizer, and the hash of each.

A shard set is a folder with `index.json` and for each shard `NNNNN.ids.bin` (uint16, or uint32 for more than 65,536
tokens), `NNNNN.offsets.bin` (int64: where each document begins, and the end) and, for conversations,
`NNNNN.weights.bin` (uint8, 0 or 1 for each id). All are little-endian. Written by `shard_writer.py`, read by
`shards.py`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from minimind.data.corpus import RowKind
from minimind.errors import DataError

__all__ = ["INDEX", "Index", "ShardFile", "file_name", "read_index", "write_index"]

INDEX = "index.json"
FORMAT = "minimind-shards-1"
# A real index is a few hundred bytes a shard; a larger file is none.
MAX_BYTES = 16 << 20


class ShardFile(BaseModel):
    """One shard; `sha256` is by the part of a file's name between the dots."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    documents: int = Field(ge=1)
    tokens: int = Field(ge=1)
    sha256: dict[str, str]


class Index(BaseModel):
    """What index.json says.

    tokenizer:     the fingerprint of the tokenizer that made the ids
    num_weighted:  ids whose prediction counts
    num_bytes:     UTF-8 bytes that those ids spell, the divisor of bits per byte
    report:        how the documents were chosen, for people; nothing is computed from it
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    format: Literal["minimind-shards-1"] = FORMAT
    kind: RowKind
    tokenizer: str
    vocab_size: int = Field(ge=1, le=2**32)
    num_documents: int = Field(ge=0)
    num_tokens: int = Field(ge=0)
    num_weighted: int = Field(ge=0)
    num_bytes: int = Field(ge=0)
    shards: list[ShardFile]
    report: dict[str, Any]

    @property
    def id_dtype(self) -> np.dtype:
        """The smallest type on the disk that holds every id."""
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")

    def sizes(self, shard: ShardFile) -> dict[str, int]:
        """The bytes of each file of a shard."""
        sizes = {"ids": shard.tokens * self.id_dtype.itemsize, "offsets": (shard.documents + 1) * 8}
        return sizes if self.kind == "text" else sizes | {"weights": shard.tokens}


def file_name(number: int, part: str) -> str:
    return f"{number:05d}.{part}.bin"


def write_index(folder: Path, index: Index) -> None:
    (folder / INDEX).write_bytes(_serialize(index))


def read_index(folder: Path) -> Index:
    """The index of a folder, unless one bit of it is not as it was written; DataError says what is wrong."""
    path = folder / INDEX
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{path}: {size:,} bytes; an index has at most {MAX_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{folder}: no prepared data: {INDEX}: {error.strerror}; run `minimind prepare`") from error
    try:
        content = json.loads(data.decode("utf-8"))
        content.pop("sha256")
        index = Index.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        raise _damaged(path, f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise _damaged(path, "not the JSON that was written") from error
    if _serialize(index) != data:
        raise _damaged(path, "its content is not what its hash says")
    totals = sum(shard.documents for shard in index.shards), sum(shard.tokens for shard in index.shards)
    if totals != (index.num_documents, index.num_tokens):
        raise _damaged(path, f"shards hold {totals[0]} documents and {totals[1]} tokens, which is not the total")
    for number, shard in enumerate(index.shards):
        if set(shard.sha256) != set(index.sizes(shard)):
            raise _damaged(path, f"shards.{number}.sha256: expected {', '.join(index.sizes(shard))}")
    return index


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(f"{path}: damaged: {problem}; prepare the data again")


def _serialize(index: Index) -> bytes:
    """JSON that vouches for itself: its last member is the hash of everything before."""
    body = json.dumps(index.model_dump(), indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{body},\n "sha256": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'.encode()
