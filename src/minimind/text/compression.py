"""How tightly a tokenizer packs the texts of each language: the figures to compare vocabularies by."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minimind.text.tokenizer import Tokenizer

__all__ = ["Compression", "guess_language", "report"]


@dataclass(frozen=True)
class Compression:
    """How tightly a tokenizer packs the texts of one language."""

    language: str
    texts: int
    characters: int
    bytes: int
    tokens: int

    @property
    def characters_per_token(self) -> float:
        return self.characters / max(self.tokens, 1)

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(self.tokens, 1)


def report(tokenizer: Tokenizer, texts_by_language: Mapping[str, Sequence[str]]) -> list[Compression]:
    """One row for each language, in the order given."""
    return [
        Compression(
            language=language,
            texts=len(texts),
            characters=sum(map(len, texts)),
            bytes=sum(len(text.encode()) for text in texts),
            tokens=sum(map(len, tokenizer.encode_batch(texts))),
        )
        for language, texts in texts_by_language.items()
    ]


def guess_language(text: str) -> str:
    """A rough guess by script for rows that do not name their language: zh, ja, ko, en or other."""
    counts = {
        "ja": len(re.findall("[\u3040-\u30ff]", text)),
        "ko": len(re.findall("[\uac00-\ud7af]", text)),
        "zh": len(re.findall("[\u4e00-\u9fff]", text)),
        "en": len(re.findall("[A-Za-z]+", text)),
    }
    # Japanese mixes in Chinese characters, so a fifth of kana decides.
    if counts["ja"] * 5 > counts["zh"] + counts["ja"] + counts["ko"] > counts["en"]:
        return "ja"
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else "other"
