"""Sources -> shard sets: read, clean, encode, drop copies, split, write. The same input gives the same bytes.

    corpus --chunks--> workers --documents--> split --> shard_writer --> OUT/train, OUT/valid

`OUT` appears in one piece when everything is written. A text becomes BOS + ids + EOS; a conversation becomes what
`conversation.render` makes of it. No document is cut here, whatever its length: `loader.py` does that.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from minimind.data.chunks import BadRow
from minimind.data.columns import columns_by_name
from minimind.data.corpus import BadRows, RowKind, detect_kind, read_chunks
from minimind.data.counts import Counts, PrepareReport, Progress
from minimind.data.encode import EncodedChunk, EncodedDocument, EncodeSettings
from minimind.data.files import DataFile, find_files, total_size
from minimind.data.options import PrepareOptions
from minimind.data.shard_index import INDEX, Index, read_index
from minimind.data.shard_writer import ShardWriter
from minimind.data.split import Sorter
from minimind.data.workers import encode_chunks
from minimind.errors import CheckpointError, DataError
from minimind.storage.folder import has_manifest, write_folder
from minimind.text.shapes import may_matter
from minimind.text.tokenizer import Tokenizer

__all__ = ["BAD_ROWS", "prepare"]

BAD_ROWS = "bad_rows.log"
# Bytes written for each byte of real text, which has about 3.5 bytes a token; packed files hold about four times their
# size. The check before the work is a courtesy: it must not refuse what would fit.
OUTPUT_SHARE = 0.6
UNPACKED = 4


def prepare(
    sources: Sequence[str | Path],
    tokenizer: Tokenizer,
    out: Path | str,
    options: PrepareOptions | None = None,
    observe: Callable[[Progress], None] = lambda progress: None,
    *,
    replace: bool = True,
) -> PrepareReport:
    """Write `out`/train and `out`/valid, or nothing at all. There is no `out`/valid when no document falls to it.

    replace:  False refuses to put other data in the place of those that are there
    observe:  told how far it is, after each chunk
    Errors:   DataError for a source that cannot be read, a bad row too many, a disk that is full, or nothing left.
    """
    options, out = options or PrepareOptions(), Path(out)
    unread_files: Counter[str] = Counter()
    train, valid = (find_files(some, unread=unread_files) for some in (sources, options.valid))
    _check_target(out, [*train, *valid])
    if not replace:
        _refuse_other_data(out, tokenizer.fingerprint, [file["name"] for file in _describe(train)])
    reports: list[PrepareReport] = []

    need = _estimate([*train, *valid])

    def fill(folder: Path) -> None:
        with closing(_Preparation(tokenizer, options, folder, observe)) as preparation:
            preparation.report.unread_files = dict(unread_files)
            try:
                reports.append(preparation.run(train, valid))
                if not replace:
                    _refuse_other_ids(out, folder)
            except OSError as error:
                free = shutil.disk_usage(folder).free
                raise DataError(
                    f"{out}: cannot be written: {error.strerror or error}; it needs about {need / 1e6:,.0f} MB and the "
                    f"disk has {free / 1e6:,.0f} MB free; choose another disk"
                ) from error

    try:
        write_folder(out, fill, need_bytes=need)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    return reports[0]


class _Preparation:
    """The part that sees all documents, one after the other."""

    def __init__(
        self, tokenizer: Tokenizer, options: PrepareOptions, folder: Path, observe: Callable[[Progress], None]
    ) -> None:
        self.tokenizer, self.options, self.folder, self.observe = tokenizer, options, folder, observe
        self.sorter = Sorter(0.0 if options.valid else options.valid_fraction, options.dedup)
        self.bad_rows = BadRows(options.max_bad_rows, self._log)
        self.kind: RowKind | None = None if options.kind == "auto" else options.kind
        self.report = PrepareReport()
        self.columns = columns_by_name(options.columns)
        self.unlearnt, self.unread = Counter[str](), Counter[str]()
        self.writers: dict[str, ShardWriter] = {}

    def run(self, train: list[DataFile], valid: list[DataFile]) -> PrepareReport:
        # Validation goes first, so that its copies in the training data are recognised.
        total = total_size([*valid, *train])
        self._read(valid, is_given_valid=True, start=0, total=total)
        self._read(train, is_given_valid=False, start=total_size(valid) or 0, total=total)
        self.report.bad_rows, self.report.leaks = self.bad_rows.count, self.sorter.leaks
        self.report.sources, self.report.valid_sources = _describe(train), _describe(valid)
        self.report.unlearnt, self.report.unread = (dict(sorted(c.items())) for c in (self.unlearnt, self.unread))
        self.report.may_matter = [name for name in self.report.unread if may_matter(name, self.kind or "text")]
        self.report.check()
        self._require_documents()
        settings = self.options.model_dump(mode="json", exclude={"workers"})
        for writer in self.writers.values():
            writer.finish(asdict(self.report) | {"options": settings})
        return self.report

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()

    def _read(self, files: list[DataFile], *, is_given_valid: bool, start: int, total: int | None) -> None:
        options = self.options
        chunks = read_chunks(files, text_column=options.text_column, columns=self.columns)
        if self.kind is None and files:
            self.kind, chunks = detect_kind(chunks, options.text_column, options.max_bad_rows, self.columns)
        settings = EncodeSettings(
            self.kind or "text",
            options.text_column,
            options.clean,
            has_signatures=options.dedup is not None and options.dedup.near,
            thinking_share=options.thinking_share,
            learn=options.learn,
            columns=self.columns,
        )
        with closing(encode_chunks(chunks, self.tokenizer, settings, options.workers)) as encoded:
            for chunk in encoded:
                self._take(chunk, is_given_valid)
                read = self.report.read
                position = start + chunk.position
                self.observe(Progress(position, total, read.documents, read.characters, read.tokens))

    def _take(self, chunk: EncodedChunk, is_given_valid: bool) -> None:
        for bad in chunk.bad:
            self.bad_rows.add(bad)
        self.unlearnt += chunk.unlearnt
        self.unread += chunk.unread
        self.report.lines += chunk.num_lines
        self.report.blank_lines += chunk.num_lines - len(chunk.documents) - len(chunk.bad)
        for document in chunk.documents:
            place = document.reason or self.sorter.place(document.hash, document.signature, is_given_valid)
            self.report.count(place, _counts(document))
            if place in ("train", "valid"):
                for part in document.parts:
                    self._writer(place).add(part.ids, part.weights, num_bytes=part.num_bytes)
                for what in document.left_out:
                    self.report.left_out[what] = self.report.left_out.get(what, 0) + 1

    def _writer(self, place: str) -> ShardWriter:
        if place not in self.writers:
            assert self.kind is not None, "a document has a kind"
            self.writers[place] = ShardWriter(self.folder / place, kind=self.kind, tokenizer=self.tokenizer)
        return self.writers[place]

    def _log(self, bad: BadRow) -> None:
        with (self.folder / BAD_ROWS).open("a", encoding="utf-8") as file:
            file.write(f"{bad}\n")

    def _require_documents(self) -> None:
        read, dropped = self.report.read.documents, self.report.dropped
        reasons = ", ".join(f"{name} {counts.documents:,}" for name, counts in dropped.items()) or "nothing dropped"
        found = f"{read:,} documents read, {self.report.bad_rows:,} bad rows; {reasons}"
        if not self.report.train.documents:
            raise DataError(f"no document is left to train on: {found}")
        if self.options.valid and not self.report.valid.documents:
            raise DataError(f"no document of {', '.join(self.options.valid)} is left to validate on: {found}")


def _counts(document: EncodedDocument) -> Counts:
    size = sum(len(part.ids) for part in document.parts)
    weighted = sum(len(part.ids) - 1 if part.weights is None else int(part.weights.sum()) for part in document.parts)
    return Counts(1, size, weighted, document.characters)


def _describe(files: Iterable[DataFile]) -> list[dict[str, str | int | None]]:
    return [{"name": file.name, "bytes": file.size} for file in files]


def _estimate(files: Iterable[DataFile]) -> int:
    """The bytes that shards of these files may take."""
    return int(sum((file.size or 0) * (UNPACKED if file.is_packed else 1) for file in files) * OUTPUT_SHARE)


def _check_target(out: Path, files: Iterable[DataFile]) -> None:
    """Only what was prepared is replaced, and never what is being read."""
    if has_manifest(out) and not (out / "train" / INDEX).is_file():
        raise DataError(f"{out}: holds something else than prepared data; choose another place")
    inside = [file.name for file in files if file.path and Path(os.path.abspath(out)) in file.path.resolve().parents]
    if inside:
        raise DataError(f"{out}: would be replaced, but {inside[0]} is read from it; choose another place")


def _refuse_other_data(out: Path, tokenizer: str, sources: list[str | int | None]) -> None:
    """Before the work: a run may have been trained from what lies there. Errors: DataError"""
    if (index := _index_of(out / "train")) is None:
        return
    if index.tokenizer != tokenizer:
        raise _would_be_lost(out, f"prepared with another tokenizer ({index.tokenizer[:12]})")
    if (names := [file["name"] for file in index.report["sources"]]) != sources:
        raise _would_be_lost(out, f"prepared from {', '.join(names[:3])}{', ...' * (len(names) > 3)}")


def _refuse_other_ids(out: Path, folder: Path) -> None:
    """After it, when both are known. Errors: DataError"""
    for part in ("train", "valid") if _index_of(out / "train") else ():
        before, now = (_index_of(place / part) for place in (out, folder))
        if (before and [shard.sha256 for shard in before.shards]) != (now and [shard.sha256 for shard in now.shards]):
            raise _would_be_lost(out, f"whose part {part} differs from what these sources and options give")


def _index_of(folder: Path) -> Index | None:
    """None where there is none; of damaged data nothing can be lost."""
    try:
        return read_index(folder)
    except DataError:
        return None


def _would_be_lost(out: Path, what: str) -> DataError:
    return DataError(
        f"{out}: holds data {what}; a run that was trained from them could not go on: choose another --out, or give "
        "--replace"
    )
