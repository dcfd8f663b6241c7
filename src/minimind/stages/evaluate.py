"""`minimind evaluate`: how well a model predicts text it has not seen, and how many questions it answers exactly."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from minimind.config import FREE, Config
from minimind.errors import ConfigError

if TYPE_CHECKING:
    from minimind.evals.exact_answers import ExactAnswers
    from minimind.model import Transformer
    from minimind.tokenizer import Tokenizer

__all__ = ["EvaluateConfig", "run"]

# Wrong answers are what one learns from; these many are shown.
SHOWN_MISTAKES = 5
SHOWN_CHARACTERS = 200


class EvaluateConfig(Config):
    """Bits per byte beside what counting words reaches, and exact answers by kind of question."""

    positional: ClassVar[str] = "model"

    model: Path = Field(description="A run folder, a checkpoint, or a Hugging Face model folder.")
    text: list[str] = Field(
        default=[],
        description="Held-out text: a folder that `minimind prepare` wrote (its validation part is scored, and its "
        "training part feeds the baselines), or files, folders, globs, hf://owner/name.",
    )
    questions: list[str] = Field(
        default=[], description='Rows {"conversations", "answer", "kind"}: files, or builtin://questions.'
    )
    max_documents: int = Field(default=2000, ge=1, description="Score at most this many documents.")
    max_tokens: int = Field(default=1024, ge=2, description="Score at most this many tokens of a document.")
    out: Path | None = Field(
        default=None,
        json_schema_extra=FREE,
        description="The file to write; by default evaluation.json in the run folder.",
    )


def run(config: EvaluateConfig) -> None:
    """Measure, print, and write what `minimind report` shows."""
    from minimind.checkpoint import load_model

    if not config.text and not config.questions:
        raise ConfigError("nothing to measure; give --text (held-out text) or --questions, or both")
    model, tokenizer = load_model(config.model)
    tables: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    if config.text:
        _score_text(config, model, tokenizer, tables, figures)
    if config.questions:
        _ask(config, model, tokenizer, tables, figures)
    out = config.out or (config.model / "evaluation.json" if (config.model / "config.json").is_file() else None)
    if out is not None:
        content = json.dumps({"tables": tables, "figures": figures}, ensure_ascii=False, indent=2)
        out.write_text(content + "\n", encoding="utf-8")
        print(f"written to {out}")


def _score_text(
    config: EvaluateConfig,
    model: "Transformer",
    tokenizer: "Tokenizer",
    tables: list[dict[str, Any]],
    figures: dict[str, float],
) -> None:
    from minimind.evals.baselines import baselines
    from minimind.evals.bits_per_byte import bits_per_byte

    train, held_out = _texts(config, tokenizer)
    result = bits_per_byte(model, tokenizer, held_out, config.max_tokens)
    figures["bits_per_byte"] = result.bits_per_byte
    rows = [["this model", round(result.bits_per_byte, 3)]]
    if train is not None:
        found = baselines(tokenizer, train, held_out, config.max_tokens)
        rows += [[name, round(value, 3)] for name, value in sorted(found.items(), key=lambda item: item[1])]
        figures |= {f"bits_per_byte, {name}": value for name, value in found.items()}
    if len(result.by_source) > 1:
        rows += [[f"this model on {source}", round(value, 3)] for source, value in sorted(result.by_source.items())]
    title = f"Bits per byte on {len(held_out):,} held-out documents ({result.bytes:,} bytes); lower is better"
    _show(tables, title, ["model", "bits per byte"], rows)


def _ask(
    config: EvaluateConfig,
    model: "Transformer",
    tokenizer: "Tokenizer",
    tables: list[dict[str, Any]],
    figures: dict[str, float],
) -> None:
    from minimind.data.corpus import read_rows
    from minimind.evals.exact_answers import exact_answers

    result = exact_answers(model, tokenizer, [row.value for row in read_rows(config.questions)])
    kinds = {**result.by_kind, "all": result.overall}
    rows = [
        [kind, accuracy.right, accuracy.total, f"{accuracy.share:.0%} ± {accuracy.standard_error:.0%}"]
        for kind, accuracy in kinds.items()
    ]
    figures["exact_answers"] = result.overall.share
    _show(tables, "Exact answers to held-out questions", ["kind", "right", "of", "share"], rows)
    mistakes = _mistakes(result)
    if mistakes:
        _show(tables, "Some of the wrong answers", ["kind", "question", "expected", "got"], mistakes)


def _mistakes(result: "ExactAnswers") -> list[list[str]]:
    wrong = (answer for answer in result.answers if not answer.is_right)
    return [
        [answer.kind, answer.question, answer.expected, shorten(answer.got, SHOWN_CHARACTERS, placeholder=" …")]
        for answer in islice(wrong, SHOWN_MISTAKES)
    ]


def _texts(
    config: EvaluateConfig, tokenizer: "Tokenizer"
) -> tuple[list[Mapping[str, Any]] | None, list[Mapping[str, Any]]]:
    """Rows to fit the baselines on, if there are any, and rows to score."""
    from minimind.data.corpus import read_rows
    from minimind.data.shards import ShardSet

    folder = Path(config.text[0])
    if len(config.text) == 1 and (folder / "train" / "index.json").is_file():
        if not (folder / "valid").is_dir():
            raise ConfigError(f"{folder}: prepared without a validation part; prepare it with --valid_fraction 0.01")
        parts = (_decoded(ShardSet.open(folder / part, tokenizer), tokenizer) for part in ("train", "valid"))
        train, valid = list(next(parts)), list(islice(next(parts), config.max_documents))
        return train, valid
    rows = (row.value for row in read_rows(config.text))
    return None, list(islice(rows, config.max_documents))


def _decoded(shards: Any, tokenizer: "Tokenizer") -> Iterator[Mapping[str, Any]]:
    """Prepared documents as text again: decoding is exact."""
    for ids, _ in shards:
        yield {"text": tokenizer.decode(ids.tolist(), skip_special=True)}


def _show(tables: list[dict[str, Any]], title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Keep a table for the report, and print it."""
    from rich.console import Console
    from rich.table import Table

    tables.append({"title": title, "columns": columns, "rows": rows})
    console = Console(width=100, highlight=False)
    console.print(f"\n{title}", style="bold", markup=False)
    table = Table(box=None, pad_edge=False)
    is_number = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    for column, numeric in zip(columns, is_number, strict=True):
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(table)
