"""The part of `minimind evaluate` that scores held-out text: bits per byte, beside what counting words reaches."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from minimind.errors import ConfigError, DataError
from minimind.evals.bits_per_byte import bits_per_byte
from minimind.evals.ngrams import baselines
from minimind.model import Transformer
from minimind.stages.evaluate.evaluation import Evaluation
from minimind.text.tokenizer import Tokenizer

__all__ = ["held_out_rows", "score_text", "text_rows"]

TextRows = list[Mapping[str, Any]]


def score_text(
    found: Evaluation,
    model: Transformer,
    tokenizer: Tokenizer,
    sources: Sequence[str],
    *,
    max_documents: int,
    max_tokens: int,
) -> None:
    """Errors: ConfigError for prepared data without a validation part; DataError"""
    train, held_out = held_out_rows(sources, tokenizer, max_documents)
    result = bits_per_byte(model, tokenizer, held_out, max_tokens)
    found.add("bits_per_byte", result.measured)
    scores = {"this model": result.bits_per_byte}
    if train is not None:
        counted = baselines(tokenizer, train, held_out, max_tokens)
        scores |= counted
        found.figures |= {f"bits_per_byte, {name}": value for name, value in counted.items()}
    rows = [[name, round(value, 3)] for name, value in sorted(scores.items(), key=lambda item: item[1])]
    if len(result.by_source) > 1:
        rows += [[f"this model on {source}", round(value, 3)] for source, value in sorted(result.by_source.items())]
    title = f"Bits per byte on {len(held_out):,} held-out documents ({result.bytes:,} bytes); lower is better"
    found.show(title, ["model", "bits per byte"], rows)


def held_out_rows(sources: Sequence[str], tokenizer: Tokenizer, max_documents: int) -> tuple[TextRows | None, TextRows]:
    """Rows to fit the baselines on, if there are any, and rows to score."""
    from minimind.data.shards import open_prepared

    if found := open_prepared(sources, tokenizer):
        train, valid = found
        if valid is None:
            raise ConfigError(
                f"{sources[0]}: prepared without a validation part; prepare it with --valid_fraction 0.01"
            )
        return list(_decoded(train, tokenizer)), list(islice(_decoded(valid, tokenizer), max_documents))
    return None, text_rows(sources, max_documents)


def text_rows(sources: Sequence[str], limit: int) -> TextRows:
    """The first rows `{"text": ...}`. Errors: DataError for a row without text"""
    from minimind.data.corpus import read_rows

    rows = list(islice(read_rows(sources), limit))
    for row in rows:
        if not isinstance(row.value.get("text"), str):
            raise DataError(f'{row.path}:{row.line}: has no text to score; expected {{"text": "..."}}')
    return [row.value for row in rows]


def _decoded(shards: Any, tokenizer: Tokenizer) -> Iterator[Mapping[str, Any]]:
    """Prepared documents as text again: decoding is exact."""
    for ids, _ in shards:
        yield {"text": tokenizer.decode(ids.tolist(), skip_special=True)}
