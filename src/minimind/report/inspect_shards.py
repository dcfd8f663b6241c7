"""Prepared data in human terms: how much, how long, what counts, duplicates, and a document to look at."""

import hashlib
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np

from minimind.data.shard_index import INDEX, Index, read_index
from minimind.data.shards import ShardSet
from minimind.errors import DataError, TokenizerError
from minimind.report.inspection import Inspection, InspectionTable, SamplePiece, beginning, length_table
from minimind.text.tokenizer import Tokenizer

__all__ = ["count_duplicates", "inspect_shards", "pieces"]

SHOWN_LONGEST = 5


def inspect_shards(
    folder: Path,
    tokenizer: Path | None = None,
    *,
    document: int = 0,
    max_sample_tokens: int = 400,
    verify: bool = True,
) -> Inspection:
    """A folder that `minimind prepare` wrote, or one part of it.

    tokenizer:  a folder; by default the one that the data were prepared with, where it still lies there
    verify:     hash every file and compare with what was written
    document:   the number of the one to show, counted from the training part's first
    Errors:     DataError for damage, for a document that is not there, and where no tokenizer fits
    """
    parts = [folder / name for name in ("train", "valid") if (folder / name / INDEX).is_file()] or [folder]
    indices = [read_index(part) for part in parts]
    spelled = _tokenizer(folder, indices[0], tokenizer)
    sets = {part.name: ShardSet.open(part, spelled, verify=verify) for part in parts}
    first = next(iter(sets.values()))
    if not 0 <= document < len(first):
        raise DataError(f"{first.folder}: has no document {document}; expected a number from 0 to {len(first) - 1}")
    found = Inspection(
        f"{folder}: prepared {first.kind}s" if first.kind == "conversation" else f"{folder}: prepared texts",
        {
            "tokenizer": f"{spelled.vocab_size:,} tokens, fingerprint {spelled.fingerprint[:12]}",
            "hashes": "verified: every file is as it was written" if verify else "not verified (--no-verify)",
        },
        [
            _totals(sets),
            length_table("Tokens of a document, by percentile", {name: part.lengths for name, part in sets.items()}),
            _longest(first, spelled),
        ],
    )
    ids, weights = (values[:max_sample_tokens] for values in first[document])
    cut = "" if first.lengths[document] <= max_sample_tokens else f", its first {max_sample_tokens} tokens"
    found.sample = pieces(spelled, ids, weights)
    found.sample_title = f"Document {document} of {first.lengths[document]:,} tokens{cut}; what is learnt is marked"
    return found


def count_duplicates(documents: Iterable[bytes]) -> int:
    """How many are equal to one before them."""
    seen: set[bytes] = set()
    count = 0
    for number, data in enumerate(documents, start=1):
        # 16 bytes: among a billion documents, two different ones are taken for equal once in 10^20 times.
        seen.add(hashlib.blake2b(data, digest_size=16).digest())
        count = number - len(seen)
    return count


def pieces(tokenizer: Tokenizer, ids: np.ndarray, weights: np.ndarray) -> list[SamplePiece]:
    """A document decoded in stretches of equal weight."""
    runs = groupby(zip(ids.tolist(), weights.tolist(), strict=True), key=lambda pair: pair[1])
    return [SamplePiece(tokenizer.decode([index for index, _ in run]), weight) for weight, run in runs]


def _totals(sets: dict[str, ShardSet]) -> InspectionTable:
    columns = ["part", "documents", "tokens", "learnt", "bytes per learnt token", "duplicates"]
    rows = []
    for name, part in sets.items():
        learnt = part.num_weighted / max(part.num_tokens, 1)
        density = part.num_bytes / max(part.num_weighted, 1)
        twice = count_duplicates(ids.tobytes() for ids, _ in part)
        rows.append([name, len(part), part.num_tokens, f"{learnt:.1%}", round(density, 3), twice])
    return InspectionTable("What there is", columns, rows)


def _longest(shards: ShardSet, tokenizer: Tokenizer) -> InspectionTable:
    numbers = np.argsort(-shards.lengths, kind="stable")[:SHOWN_LONGEST].tolist()
    rows = [
        [number, int(shards.lengths[number]), beginning(tokenizer.decode(shards[number][0][:100], skip_special=True))]
        for number in numbers
    ]
    return InspectionTable("Longest documents", ["document", "tokens", "begins"], rows)


def _tokenizer(folder: Path, index: Index, given: Path | None) -> Tokenizer:
    """The tokenizer with the index's fingerprint. ShardSet.open says what is wrong with one that is given."""
    if given is not None:
        return Tokenizer.load(given)
    options = index.report.get("options")
    named = options.get("tokenizer") if isinstance(options, dict) else None
    for place in [Path(str(named)), *sorted(folder.resolve().parent.glob("*/tokenizer.json"))]:
        try:
            tokenizer = Tokenizer.load(place)
        except (TokenizerError, OSError):
            continue
        if tokenizer.fingerprint == index.tokenizer:
            return tokenizer
    raise DataError(
        f"{folder}: prepared with tokenizer {index.tokenizer[:12]} ({index.vocab_size:,} tokens), which is not "
        f"{'at ' + str(named) if named else 'named'} any more; name its folder with --tokenizer"
    )
