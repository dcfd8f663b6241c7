"""`minimind prepare`: texts or conversations -> token ids in `OUT/train` and `OUT/valid`, and an account of it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minimind.config import REQUIRED, Config, option
from minimind.data.options import PrepareOptions

if TYPE_CHECKING:
    from minimind.data.counts import PrepareReport, Progress
    from minimind.text.tokenizer import Tokenizer

__all__ = ["PrepareConfig", "PreparePaths", "run"]

# How often a log gets a line while a large corpus is prepared.
LOG_SECONDS = 10.0


class PreparePaths(Config):
    """From where to where; first in the help because all three are required."""

    source: list[str] = option(
        REQUIRED,
        "Where rows come from: files, folders, globs, - for standard input, hf://owner/name, builtin://texts.",
        min_length=1,
    )
    tokenizer: Path = option(REQUIRED, "The folder of the tokenizer.")
    out: Path = option(REQUIRED, "The folder to write; it must be new or hold prepared data.", kind="free")


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
        report = prepare(config.source, tokenizer, config.out, config, observe)
    _print_summary(config, report, tokenizer, time.monotonic() - start)


@contextmanager
def _progress() -> "Iterator[Callable[[Progress], None]]":
    """A bar on a terminal, a line now and then in a log. Both go to stderr."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    words = TextColumn("{task.fields[documents]:,} documents, {task.fields[tokens]:,} tokens")
    columns = TextColumn("preparing"), BarColumn(), TransferSpeedColumn(), words, TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, documents=0, tokens=0)
        yield lambda at: bar.update(
            task, total=at.total, completed=at.position, documents=at.documents, tokens=at.tokens
        )


def _lines() -> "Callable[[Progress], None]":
    start = last = time.monotonic()

    def observe(at: "Progress") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LOG_SECONDS:
            return
        last = now
        speed = at.position / (now - start)
        left = f", {(at.total - at.position) / speed:,.0f} s left" if at.total and speed else ""
        print(
            f"prepare: {at.documents:,} documents, {at.tokens:,} tokens, {speed / 1e6:.1f} MB/s{left}",
            file=sys.stderr,
            flush=True,
        )

    return observe


def _print_summary(config: PrepareConfig, report: "PrepareReport", tokenizer: "Tokenizer", seconds: float) -> None:
    from rich.console import Console

    from minimind.data.prepare import BAD_ROWS

    files = [*report.sources, *report.valid_sources]
    size = sum(file["bytes"] or 0 for file in files)
    speed = f", {size / 1e6 / seconds:.1f} MB/s" if size else ""
    print(f"read {report.read.documents:,} documents from {len(files):,} files in {seconds:.1f} s{speed}")
    Console(width=100).print(_table(config, report, tokenizer))
    for note in report.notes():
        print(note)
    if report.bad_rows:
        print(f"skipped {report.bad_rows:,} bad rows: {config.out / BAD_ROWS}")
    if report.leaks:
        print(
            f"warning: {report.leaks:,} validation texts are in the training data too; --dedup.exact drops them there"
        )
    if not report.valid.documents and config.valid_fraction:
        print(f"warning: {config.valid_fraction:g} of so few documents is none to validate on; raise --valid_fraction")
    print(f"{config.out}: {report.train.tokens:,} tokens to train on, {report.valid.tokens:,} to validate on")


def _table(config: PrepareConfig, report: "PrepareReport", tokenizer: "Tokenizer") -> object:
    import numpy as np
    from rich.table import Table

    from minimind.data.shards import ShardSet

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    columns = []
    for name, counts in (("train", report.train), ("valid", report.valid)):
        if not counts.documents:
            continue
        table.add_column(name, justify="right")
        lengths = ShardSet.open(config.out / name, tokenizer, verify=False).lengths
        shortest, middle, long, longest = np.quantile(lengths, (0, 0.5, 0.95, 1))
        columns.append(
            (
                f"{counts.documents:,}",
                f"{counts.tokens:,}",
                f"{counts.characters / counts.tokens:.2f}",
                f"{counts.weighted / counts.tokens:.1%}",
                f"{shortest:,.0f} / {middle:,.0f} / {long:,.0f} / {longest:,.0f}",
            )
        )
    names = (
        "documents",
        "tokens",
        "characters per token",
        "tokens that are learnt",
        "length: least / median / 95 % / most",
    )
    for name, *figures in zip(names, *columns, strict=True):
        table.add_row(name, *figures)
    return table
