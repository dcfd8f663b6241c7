"""What `minimind inspect` finds in a file or folder, as facts, tables and a sample: nothing here prints.

One file for each kind of thing: `inspect_model.py`, `inspect_shards.py`, `inspect_tokenizer.py`, `inspect_rows.py`.
`kind_at` tells which of them a path is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minimind.data.shard_index import INDEX
from minimind.errors import DataError
from minimind.storage.adapters import is_adapter

__all__ = ["Inspection", "InspectionTable", "PathKind", "SamplePiece", "beginning", "kind_at", "length_table"]

PathKind = Literal["model", "prepared", "tokenizer", "rows"]

# Enough of a text to recognise it by.
BEGINNING_CHARACTERS = 44
PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)


@dataclass(frozen=True)
class InspectionTable:
    """Figures side by side; a cell is a text, a number or None."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class SamplePiece:
    """A stretch of a decoded document, and the weight of predicting its tokens."""

    text: str
    weight: float


@dataclass
class Inspection:
    """A thing in human terms.

    facts:   name -> value, in words
    sample:  a document, cut where the weight changes
    faults:  what is wrong with it, a line each
    """

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    tables: list[InspectionTable] = field(default_factory=list)
    sample: list[SamplePiece] = field(default_factory=list)
    sample_title: str = ""
    faults: list[str] = field(default_factory=list)


def kind_at(source: str) -> PathKind:
    """What lies at a path, by the files that are there. Errors: DataError when nothing does."""
    path = Path(source)
    if "://" in source or source == "-":
        return "rows"
    if path.name == "tokenizer.json" and path.is_file():
        return "tokenizer"
    if path.is_file():
        return _kind_of_file(path)
    if not path.is_dir():
        raise DataError(
            f"{source}: not there; expected a model folder, a run, a prepared folder, a tokenizer, or data files"
        )
    if (path / "checkpoints").is_dir() or (path / "config.json").is_file() or is_adapter(path):
        return "model"
    if any((path / part / INDEX).is_file() for part in ("", "train", "valid")):
        return "prepared"
    return "tokenizer" if (path / "tokenizer.json").is_file() else "rows"


def length_table(title: str, lengths_by_name: dict[str, np.ndarray]) -> InspectionTable:
    """The lengths that so many percent of all are at most."""
    columns = ["", *(_percent(at) for at in PERCENTILES), "mean"]
    rows = [
        [name, *(int(value) for value in np.percentile(lengths, PERCENTILES)), round(float(lengths.mean()), 1)]
        for name, lengths in lengths_by_name.items()
        if len(lengths)
    ]
    return InspectionTable(title, columns, rows)


def beginning(text: str, characters: int = BEGINNING_CHARACTERS) -> str:
    """The first words of a text on one line."""
    line = " ".join(text[: characters * 4].split())
    return line if len(line) <= characters else f"{line[: characters - 2]} …"


def _percent(at: int) -> str:
    return {0: "least", 50: "median", 100: "most"}.get(at, f"{at} %")


def _kind_of_file(path: Path) -> PathKind:
    if path.suffix in (".safetensors", ".bin", ".pth", ".gguf"):
        hint = "import it first with `minimind import`" if path.suffix == ".gguf" else "give the folder that holds it"
        raise DataError(f"{path}: one file of weights; {hint}, config.json and tokenizer.json belong to a model")
    return "rows"
