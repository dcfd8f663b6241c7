"""Reading shards: whole and of this tokenizer, or not at all."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from minimind.data.shard_index import Index, ShardFile, file_name, read_index, write_index
from minimind.data.shard_writer import ShardWriter
from minimind.data.shards import ShardSet
from minimind.errors import DataError
from minimind.text.tokenizer import Tokenizer


def flips(data: bytes, bits: range) -> list[bytes]:
    """The data with one bit changed, for every byte and each of these bits."""
    return [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in bits]


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    writer = ShardWriter(tmp_path / "set", kind="conversation", tokenizer=tokenizer, tokens_per_shard=8)
    for size in (3, 5, 4):
        ids = np.arange(size, dtype=np.uint16) + 40
        writer.add(ids, (ids % 2).astype(np.uint8), num_bytes=size)
    writer.finish({})
    return tmp_path / "set"


def test_a_document_is_a_view_of_ids_and_float_weights(folder: Path, tokenizer: Tokenizer) -> None:
    shards = ShardSet.open(folder, tokenizer)
    ids, weights = shards[1]
    assert ids.tolist() == [40, 41, 42, 43, 44] and weights.tolist() == [0, 1, 0, 1, 0]
    assert (ids.dtype, weights.dtype, shards.lengths.dtype) == (np.uint16, np.float32, np.int64)
    assert type(ids) is np.ndarray and not ids.flags.writeable and not ids.flags.owndata
    assert shards[2][0].tolist() == [40, 41, 42, 43]


@pytest.mark.parametrize("document", [-1, 3])
def test_a_document_that_is_not_there_is_an_index_error(folder: Path, tokenizer: Tokenizer, document: int) -> None:
    with pytest.raises(IndexError):
        ShardSet.open(folder, tokenizer)[document]


def test_another_tokenizer_is_refused_with_both_named(
    folder: Path, tokenizer: Tokenizer, other_tokenizer: Tokenizer
) -> None:
    with pytest.raises(DataError) as error:
        ShardSet.open(folder, other_tokenizer)
    assert str(error.value) == (
        f"{folder}: prepared with tokenizer {tokenizer.fingerprint[:12]} (320 tokens), got "
        f"{other_tokenizer.fingerprint[:12]} (310 tokens); prepare the data again with this tokenizer, or use the one "
        "it was prepared with"
    )


def test_every_flipped_bit_and_every_truncation_is_detected(folder: Path, tokenizer: Tokenizer) -> None:
    for path in sorted(folder.glob("*.bin")):
        data = path.read_bytes()
        damaged = [*(data[:size] for size in range(len(data))), data + b"\0", *flips(data, range(8))]
        for content in damaged:
            # A new file each time: the old one may still be mapped.
            path.unlink()
            path.write_bytes(content)
            with pytest.raises(DataError, match=f"^{path}: damaged: .*; prepare the data again$"):
                ShardSet.open(folder, tokenizer)
        path.unlink()
        path.write_bytes(data)
    assert len(ShardSet.open(folder, tokenizer)) == 3


def test_a_missing_file_is_named(folder: Path, tokenizer: Tokenizer) -> None:
    (folder / "00001.weights.bin").unlink()
    with pytest.raises(DataError, match=r"00001\.weights\.bin: No such file"):
        ShardSet.open(folder, tokenizer)


def test_large_sets_are_hashed_on_request_only(folder: Path, tokenizer: Tokenizer) -> None:
    path = folder / "00000.ids.bin"
    path.write_bytes(bytes(len(path.read_bytes())))
    assert ShardSet.open(folder, tokenizer, verify=False)[0][0].tolist() == [0, 0, 0]
    with pytest.raises(DataError, match=r"its hash is not that of index.json"):
        ShardSet.open(folder, tokenizer, verify=True)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("ids", np.array([1, 2, 320], "<u2"), "has the value 320, expected less than 320"),
        ("weights", np.array([0, 1, 2], "u1"), "has the value 2, expected less than 2"),
        ("offsets", np.array([0, 5, 3], "<i8"), "does not rise from 0 to 3"),
        ("offsets", np.array([0, -1, 3], "<i8"), "does not rise from 0 to 3"),
        ("offsets", np.array([0, 1, 4], "<i8"), "does not rise from 0 to 3"),
    ],
)
def test_a_forged_set_with_fitting_hashes_cannot_reach_outside(
    tmp_path: Path, tokenizer: Tokenizer, part: str, values: np.ndarray, message: str
) -> None:
    parts = {"ids": np.ones(3, "<u2"), "offsets": np.array([0, 1, 3], "<i8"), "weights": np.ones(3, "u1")}
    parts[part] = values
    for name, array in parts.items():
        (tmp_path / file_name(0, name)).write_bytes(array.tobytes())
    hashes = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in parts.items()}
    index = Index(
        kind="conversation",
        tokenizer=tokenizer.fingerprint,
        vocab_size=320,
        num_documents=2,
        num_tokens=3,
        num_weighted=1,
        num_bytes=1,
        shards=[ShardFile(documents=2, tokens=3, sha256=hashes)],
        report={},
    )
    write_index(tmp_path, index)
    with pytest.raises(DataError, match=f"{part}.bin: .*{message}"):
        ShardSet.open(tmp_path, tokenizer)


def test_a_set_is_the_same_wherever_it_lies(folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "moved")
    assert len(ShardSet.open(tmp_path / "moved", tokenizer)) == read_index(tmp_path / "moved").num_documents
