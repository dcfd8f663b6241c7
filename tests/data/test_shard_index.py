"""index.json: what is read is what was written, and anything else is refused with a reason."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from minimind.data.shard_index import INDEX, Index, ShardFile, file_name, read_index, write_index
from minimind.errors import DataError

FILES = {"ids": "aa", "offsets": "bb"}


def index(**changes: Any) -> Index:
    values: dict[str, Any] = {
        "kind": "text",
        "tokenizer": "f00d",
        "vocab_size": 6400,
        "num_documents": 3,
        "num_tokens": 30,
        "num_weighted": 27,
        "num_bytes": 99,
        "shards": [ShardFile(documents=2, tokens=10, sha256=FILES), ShardFile(documents=1, tokens=20, sha256=FILES)],
        "report": {"sources": [{"name": "数据.jsonl", "bytes": None}], "options": {"threshold": 0.7}},
    }
    return Index(**(values | changes))


def test_reading_gives_what_was_written(tmp_path: Path) -> None:
    write_index(tmp_path, index())
    assert read_index(tmp_path) == index()


def test_sizes_follow_from_the_vocabulary_and_the_kind() -> None:
    shard = ShardFile(documents=2, tokens=10, sha256={})
    assert index(vocab_size=65536).sizes(shard) == {"ids": 20, "offsets": 24}
    assert index(vocab_size=65537, kind="conversation").sizes(shard) == {"ids": 40, "offsets": 24, "weights": 10}
    assert file_name(7, "ids") == "00007.ids.bin"


@pytest.mark.parametrize("bits", [[3], pytest.param(range(8), marks=pytest.mark.slow)])
def test_every_flipped_bit_and_every_truncation_is_detected(tmp_path: Path, bits: Sequence[int]) -> None:
    write_index(tmp_path, index(report={}))
    path = tmp_path / INDEX
    data = path.read_bytes()
    damaged = [data[:size] for size in range(len(data))]
    damaged += [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in bits]
    for content in [*damaged, data + b"\n", b" " + data]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: damaged: .*; prepare the data again$"):
            read_index(tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_documents": 4}, "shards hold 3 documents and 30 tokens, which is not the total"),
        ({"num_tokens": 31}, "shards hold 3 documents and 30 tokens, which is not the total"),
        ({"kind": "conversation"}, "shards.0.sha256: expected ids, offsets, weights"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    write_index(tmp_path, index(**changes))
    with pytest.raises(DataError) as error:
        read_index(tmp_path)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"format": "minimind-shards-9", "sha256": ""}', "format: Input should be 'minimind-shards-1'"),
        ('{"sha256": "", "kind": 3}', "kind: Input should be 'text' or 'conversation'"),
        ("[]", "not the JSON that was written"),
        ("[" * 100_000, "not the JSON that was written"),
        ("", "not the JSON that was written"),
    ],
)
def test_other_json_names_the_field(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(DataError) as error:
        read_index(tmp_path)
    assert problem in str(error.value)


def test_a_field_from_elsewhere_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path, index())
    content = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(content | {"loader": "evil.py"}))
    with pytest.raises(DataError, match="loader: Extra inputs are not permitted"):
        read_index(tmp_path)


def test_a_folder_without_index_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path}: no prepared data: index.json: .*; run `minimind prepare`$"):
        read_index(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / INDEX).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="an index has at most"):
        read_index(tmp_path)
