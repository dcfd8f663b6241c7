"""A tokenizer in human terms: what it packs into a token, which are the longest, which steer and stand for no text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from minimind.report.inspection import Inspection, InspectionTable
from minimind.text.compression import report
from minimind.text.tokenizer import Tokenizer

__all__ = ["inspect_tokenizer"]

SHOWN_LONGEST = 15
CONTROL_COLUMNS = 3


def inspect_tokenizer(path: Path, texts_by_language: Mapping[str, Sequence[str]]) -> Inspection:
    """A tokenizer.json or the folder with it, and how it packs these texts. Errors: TokenizerError"""
    tokenizer = Tokenizer.load(path)
    whole = sum(_is_text(data) for data in tokenizer.token_bytes)
    return Inspection(
        f"{path}: a tokenizer",
        {
            "tokens": f"{tokenizer.vocab_size:,}",
            "of them": f"{len(tokenizer.control_ids)} control, {len(tokenizer.merges):,} merged",
            "split pattern": f"{tokenizer.pattern}{', with a space before each text' * tokenizer.add_prefix_space}",
            "what a text loses": "; ".join(tokenizer.losses()) or "nothing",
            "before a text": " ".join(tokenizer.decode([index]) for index in tokenizer.text_start) or "nothing",
            "fingerprint": tokenizer.fingerprint,
            "tokens that are whole characters": f"{whole:,} of {tokenizer.vocab_size - len(tokenizer.control_ids):,}",
        },
        [_compression(tokenizer, texts_by_language), _longest(tokenizer), _control(tokenizer)],
    )


def _compression(tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]]) -> InspectionTable:
    rows = [
        [found.language, found.texts, found.tokens, found.characters_per_token, found.bytes_per_token]
        for found in report(tokenizer, texts)
    ]
    columns = ["language", "texts", "tokens", "characters per token", "bytes per token"]
    return InspectionTable("How tightly it packs these texts", columns, rows)


def _longest(tokenizer: Tokenizer) -> InspectionTable:
    spelled = tokenizer.token_bytes
    order = sorted(range(len(spelled)), key=lambda index: (-len(spelled[index]), index))[:SHOWN_LONGEST]
    # With its quotes, because leading spaces are a part of a token.
    rows = [[index, len(spelled[index]), repr(spelled[index].decode("utf-8", "replace"))] for index in order]
    return InspectionTable("Longest tokens", ["id", "bytes", "text"], rows)


def _control(tokenizer: Tokenizer) -> InspectionTable:
    names = sorted((tokenizer.control(name), name) for name in tokenizer.control_names)
    cells = [f"{index} {name}" for index, name in names]
    cells += [""] * (-len(cells) % CONTROL_COLUMNS)
    height = len(cells) // CONTROL_COLUMNS
    rows = [cells[row::height] for row in range(height)]
    return InspectionTable("Control tokens", [""] * CONTROL_COLUMNS, rows)


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False
