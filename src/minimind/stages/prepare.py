"""`minimind prepare`: texts or conversations -> token ids in `OUT/train` and `OUT/valid`, and an account of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minimind.config import REQUIRED, Config, option
from minimind.data.options import PrepareOptions
from minimind.terminal.figures import duration, size
from minimind.terminal.notes import say, warn
from minimind.terminal.progress import ReadingProgress
from minimind.terminal.tables import show_table

if TYPE_CHECKING:
    from minimind.data.counts import PrepareReport, Progress
    from minimind.text.tokenizer import Tokenizer

__all__ = ["PrepareConfig", "PreparePaths", "run"]

# Of a document's length: how long the shortest, the middle, one in twenty and the longest are.
COLUMNS = ("documents", "tokens", "characters/token", "learnt", "length: least", "median", "95 %", "most")


class PreparePaths(Config):
    """From where to where; first in the help because all three are required."""

    source: list[str] = option(
        REQUIRED,
        "Where rows come from: files, folders, globs, - for standard input, hf://owner/name, builtin://texts.",
        min_length=1,
    )
    tokenizer: Path = option(REQUIRED, "The folder of the tokenizer.")
    out: Path = option(REQUIRED, "The folder to write; it must be new or hold prepared data.", kind="free")
    replace: bool = option(
        False, "Put what is prepared now in the place of other data, which a run may need to go on.", kind="free"
    )


class PrepareConfig(PrepareOptions, PreparePaths):
    """Text or conversations are stored as token ids. Cleaning and deduplication are off until one of their options is
    given; whatever is dropped is counted."""


def run(config: PrepareConfig) -> None:
    """Prepare, and print what went in, what came out and where the rest went."""
    from minimind.data.prepare import prepare
    from minimind.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(config.tokenizer)
    start = time.monotonic()
    with _progress() as observe:
        report = prepare(config.source, tokenizer, config.out, config, observe, replace=config.replace)
    _show(config, report, tokenizer, time.monotonic() - start)


@contextmanager
def _progress() -> "Iterator[Callable[[Progress], None]]":
    with ReadingProgress("prepare") as progress:
        yield lambda at: progress.update(at.position, at.total, f"{at.documents:,} documents, {at.tokens:,} tokens")


def _show(config: PrepareConfig, report: "PrepareReport", tokenizer: "Tokenizer", seconds: float) -> None:
    from minimind.data.prepare import BAD_ROWS

    files = [*report.sources, *report.valid_sources]
    read = sum(file["bytes"] or 0 for file in files)
    speed = f", {size(read / seconds)}/s" if read else ""
    say(f"read {report.read.documents:,} documents from {len(files):,} files in {duration(seconds)}{speed}")
    show_table("Prepared", ("", *COLUMNS), list(_rows(config, report, tokenizer)))
    say()
    for line in report.notes():
        say(line)
    if report.may_matter:
        shown = ", ".join(f"{name} ({report.unread[name]:,})" for name in report.may_matter)
        warn(f"not read, though it could change what is learnt: {shown}")
    if report.bad_rows:
        say(f"skipped {report.bad_rows:,} bad rows: {config.out / BAD_ROWS}")
    if report.leaks:
        warn(f"{report.leaks:,} validation texts are in the training data too; --dedup.exact drops them there")
    if not report.valid.documents and config.valid_fraction:
        warn(f"{config.valid_fraction:g} of so few documents is none to validate on; raise --valid_fraction")
    say(f"{config.out}: {report.train.tokens:,} tokens to train on, {report.valid.tokens:,} to validate on")


def _rows(config: PrepareConfig, report: "PrepareReport", tokenizer: "Tokenizer") -> Iterator[list[object]]:
    """What there is to train on, and to validate on, by the names of COLUMNS."""
    import numpy as np

    from minimind.data.shards import ShardSet

    for name, counts in (("train", report.train), ("valid", report.valid)):
        if counts.documents:
            lengths = ShardSet.open(config.out / name, tokenizer, verify=False).lengths
            quantiles = [round(length) for length in np.quantile(lengths, (0, 0.5, 0.95, 1))]
            learnt = f"{counts.weighted / counts.tokens:.1%}"
            yield [name, counts.documents, counts.tokens, counts.characters / counts.tokens, learnt, *quantiles]
