"""Writing: what is read back is what was added, whatever the number of shards."""

from pathlib import Path

import numpy as np
import pytest

from minimind.data.corpus import RowKind
from minimind.data.shard_index import read_index
from minimind.data.shard_writer import ShardWriter
from minimind.data.shards import ShardSet
from minimind.errors import DataError
from minimind.text.tokenizer import Tokenizer

DOCUMENTS = [np.arange(size, dtype=np.uint16) % 300 for size in (5, 1, 30, 2, 9, 17, 3)]


@pytest.mark.parametrize("tokens_per_shard", [1, 10, 1 << 20])
@pytest.mark.parametrize("kind", ["text", "conversation"])
def test_documents_come_back_from_any_number_of_shards(
    tmp_path: Path, tokenizer: Tokenizer, kind: RowKind, tokens_per_shard: int
) -> None:
    writer = ShardWriter(tmp_path, kind=kind, tokenizer=tokenizer, tokens_per_shard=tokens_per_shard)
    weights = [(ids % 2).astype(np.uint8) for ids in DOCUMENTS]
    for ids, weight in zip(DOCUMENTS, weights, strict=True):
        writer.add(ids, weight if kind == "conversation" else None, num_bytes=len(ids))
    writer.finish({})
    shards = ShardSet.open(tmp_path, tokenizer)
    assert len(shards) == len(DOCUMENTS) and shards.lengths.tolist() == [len(ids) for ids in DOCUMENTS]
    for (ids, found), given, weight in zip(shards, DOCUMENTS, weights, strict=True):
        expected = weight if kind == "conversation" else np.arange(len(given)) > 0
        assert ids.tolist() == given.tolist() and found.tolist() == expected.tolist()
    assert len(read_index(tmp_path).shards) == {1: 7, 10: 6, 1 << 20: 1}[tokens_per_shard]


def test_totals_count_what_was_added(tmp_path: Path, tokenizer: Tokenizer) -> None:
    writer = ShardWriter(tmp_path, kind="conversation", tokenizer=tokenizer)
    writer.add(np.array([7, 8, 9]), np.array([0, 1, 1], np.uint8), num_bytes=4)
    writer.add(np.array([7, 8]), np.array([0, 1], np.uint8), num_bytes=2)
    writer.finish({"why": "test"})
    index = read_index(tmp_path)
    assert (index.num_documents, index.num_tokens, index.num_weighted, index.num_bytes) == (2, 5, 3, 6)
    assert (index.tokenizer, index.report) == (tokenizer.fingerprint, {"why": "test"})


def test_a_set_without_documents_is_a_set(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ShardWriter(tmp_path, kind="text", tokenizer=tokenizer).finish({})
    shards = ShardSet.open(tmp_path, tokenizer)
    assert len(shards) == 0 and shards.lengths.shape == (0,) and list(shards) == []


def test_without_finish_there_is_no_set(tmp_path: Path, tokenizer: Tokenizer) -> None:
    writer = ShardWriter(tmp_path, kind="text", tokenizer=tokenizer)
    writer.add(np.array([1, 2]), None, num_bytes=3)
    writer.close()
    with pytest.raises(DataError, match="no prepared data"):
        ShardSet.open(tmp_path, tokenizer)
