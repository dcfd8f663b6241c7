"""Prepared documents as what a stage learns from and is measured on: packed rows, the same ones at each validation."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from minimind.config import REQUIRED, Config, option
from minimind.data.columns import ColumnNames
from minimind.data.corpus import RowKind
from minimind.data.counts import in_words, omissions
from minimind.data.files import find_files
from minimind.data.fitting import FittedDocuments, Long, fitted
from minimind.data.learnt import Learn
from minimind.data.loader import Documents, PackedRows, Subset, plan_rows
from minimind.data.options import PrepareOptions
from minimind.data.shards import ShardSet, open_prepared
from minimind.errors import ConfigError, DataError
from minimind.interfaces import Objective
from minimind.terminal.notes import note, warn
from minimind.text.tokenizer import Tokenizer
from minimind.training.distributed import num_processes
from minimind.training.job import Placement, Validation
from minimind.training.trainer import Trainer

__all__ = [
    "ConversationsConfig",
    "DataConfig",
    "learnt_documents",
    "open_documents",
    "packed_source",
    "packed_validation",
    "warn_of_other_kind",
]

# Enough for a validation loss steady to about 0.01, and a few seconds of work.
VALID_TOKENS = 65536
VALID_BATCH_TOKENS = 4096


# Of fewer, a figure says more about them than about the model.
FEW_DOCUMENTS = 3
_OTHER_KINDS: dict[RowKind, str] = {
    "text": "plain text and no conversations, so the model learns to continue it and not to answer; "
    "`minimind pretrain --base MODEL` is for text, and docs/data.md shows rows of conversations",
    "conversation": "conversations, of which only the answers are learnt; give `minimind pretrain` texts, and the "
    "conversations to `minimind sft`",
}


class DataConfig(Config):
    """What a stage learns from."""

    source: list[str] = option(
        REQUIRED,
        "A folder that `minimind prepare` wrote; or files, folders, globs, hf://owner/name, builtin://name.",
        kind="data",
        min_length=1,
    )
    context: int = option(1024, "Tokens of a row; a longer document is split over several.", kind="data", ge=2)


class ConversationsConfig(DataConfig):
    """What a stage learns from that learns to answer. `columns` and `learn` are for sources that are not prepared."""

    long: Long = option(
        "split",
        "Conversations longer than the context: split over rows, drop, or truncate_prompt (keep the end, with the last "
        "answer).",
        kind="data",
    )
    learn: Learn = option("all", "Learn all answers of a conversation, or the last alone.", kind="data")
    columns: ColumnNames = option(
        [], "Of rows in no known shape: which column is which, such as prompt=question answer=reply.", kind="data"
    )

    @property
    def preparation(self) -> PrepareOptions:
        return PrepareOptions(learn=self.learn, columns=self.columns)


def open_documents(data: DataConfig, tokenizer: Tokenizer, folder: Path) -> tuple[ShardSet, ShardSet | None]:
    """The training and validation documents: prepared ones as they are, raw sources prepared into `folder`/data-*.

    Errors: ConfigError for raw sources and several processes, of which each would prepare them; DataError, also where
    files have changed since they were prepared here
    """
    found = _open(data, tokenizer, folder)
    for sentence in omissions(found[0].index.report.get("left_out") or {}):
        warn(sentence)
    return found


def _open(data: DataConfig, tokenizer: Tokenizer, folder: Path) -> tuple[ShardSet, ShardSet | None]:
    from minimind.data.prepare import prepare

    options = data.preparation if isinstance(data, ConversationsConfig) else PrepareOptions()
    if found := open_prepared(data.source, tokenizer):
        _require_prepared_so(found[0], options)
        return found
    # What was tried before the run began, with another source or tokenizer, must not be taken for this one.
    others = [options.learn, *options.columns] if options != PrepareOptions() else []
    wanted = json.dumps([data.source, tokenizer.fingerprint, *others]).encode()
    place = folder / f"data-{hashlib.sha256(wanted).hexdigest()[:8]}"
    if found := open_prepared([place], tokenizer):
        _require_unchanged(data.source, found[0])
        return found
    if num_processes() > 1:
        raise ConfigError(
            f"data.source is {', '.join(data.source)}, which {num_processes()} processes would each prepare; "
            "prepare it first with `minimind prepare`, and name the folder that it writes"
        )
    try:
        report = prepare(data.source, tokenizer, place, options)
    except DataError:
        # A start that failed leaves no folder of a run, unless something else is in it.
        with suppress(OSError):
            folder.rmdir()
        raise
    for line in report.notes():
        note(line)
    if report.may_matter:
        warn(f"not read, though it could change what is learnt: {', '.join(report.may_matter)}")
    found = open_prepared([place], tokenizer)
    assert found is not None, "what was just prepared is there"
    return found


def learnt_documents(documents: ShardSet, data: ConversationsConfig) -> ShardSet | FittedDocuments:
    """The documents as they fit the context; what is done to those that do not is said. Errors: DataError"""
    found = fitted(documents, data.context, data.long)
    if isinstance(found, FittedDocuments) and os.environ.get("RANK", "0") == "0":
        note(f"data.long {data.long}: {in_words(found.counts)}")
    return found


def warn_of_other_kind(documents: ShardSet, expected: RowKind) -> None:
    """Both can be learnt from either way, and it is seldom meant."""
    if documents.kind != expected and os.environ.get("RANK", "0") == "0":
        warn(f"data.source holds {_OTHER_KINDS[documents.kind]}")


def _require_prepared_so(prepared: ShardSet, options: PrepareOptions) -> None:
    """What weighs is decided when data are prepared."""
    was = prepared.index.report.get("options", {})
    for name, wanted in (("learn", options.learn), ("columns", options.columns)):
        if wanted != PrepareOptions.model_fields[name].default and was.get(name) != wanted:
            raise ConfigError(
                f"data.{name} is {wanted!r}, but {prepared.folder.parent} is prepared already, without it; give "
                f"--{name} to `minimind prepare`"
            )


def _require_unchanged(sources: Sequence[str], prepared: ShardSet) -> None:
    """By name and size. What is no longer there, or elsewhere, cannot have been changed by mistake."""
    if not all(Path(source).exists() for source in sources):
        return
    before = {file["name"]: file["bytes"] for file in prepared.index.report["sources"]}
    now = {file.name: file.size for file in find_files(sources, unread=Counter())}
    if changed := [name for name in before | now if before.get(name) != now.get(name)]:
        raise DataError(
            f"{changed[0]}: has changed since {prepared.folder.parent} was prepared from it; give another --run, "
            "or put back the file as it was"
        )


def packed_source(
    documents: Documents, context: int, batch_tokens: int | None, make: Callable[..., PackedRows] = PackedRows
) -> Callable[[Placement], PackedRows]:
    """Training rows of `context` positions, `batch_tokens` of them a step.

    make: the class of rows, or what makes one that adds something to them
    """

    assert batch_tokens is not None, "settled.py settles it"

    def source(placement: Placement) -> PackedRows:
        return make(
            documents,
            context=context,
            batch_tokens=batch_tokens,
            seed=placement.settings.seed,
            accumulate=placement.settings.accumulate,
            rank=placement.world.rank,
            ranks=placement.world.size,
        )

    return source


def packed_validation(
    documents: Documents | None, context: int, tokenizer: Tokenizer, objective: Objective[Any, Any] | None = None
) -> Callable[[Placement], Validation] | None:
    """The figures of the run's objective, or of another, on held-out documents, with bits per byte; None without any.

    The documents depend on nothing but the data: not on the seed, the context or the ranks.
    """
    if documents is None or not (documents.lengths > 1).any():
        return None
    order = np.random.default_rng(0).permutation(len(documents.lengths))
    enough = int(np.searchsorted(np.cumsum(documents.lengths[order]), VALID_TOKENS)) + 1
    chosen = Subset(documents, order[:enough])
    if not any(chosen[number][1][1:].any() for number in range(len(chosen.lengths))):
        return None

    if len(chosen.lengths) < FEW_DOCUMENTS and os.environ.get("RANK", "0") == "0":
        warn(
            f"held out: {len(chosen.lengths)} of the documents, too few to tell learning from memorising; prepare with "
            "a larger --valid_fraction, or name some with --valid"
        )

    def validation(placement: Placement) -> Validation:
        world = placement.world
        num_rows = len(plan_rows(chosen.lengths, context, seed=0))
        batches = PackedRows(
            chosen,
            context=context,
            batch_tokens=num_rows * context,
            seed=0,
            accumulate=max(1, num_rows * context // VALID_BATCH_TOKENS // world.size),
            rank=world.rank,
            ranks=world.size,
        ).micro_batches(0)
        bytes_of_id = np.array([len(spelling) for spelling in tokenizer.token_bytes])
        spelled = sum(int(bytes_of_id[batch.targets[batch.weights != 0].numpy()].sum()) for batch in batches)
        weight, num_bytes = world.sum([sum(float(batch.weight) for batch in batches), spelled])

        def validate(trainer: Trainer) -> Mapping[str, float]:
            figures = trainer.measure(batches, objective)
            result = {f"valid_{name}": value for name, value in figures.items()}
            if num_bytes:
                result["bits_per_byte"] = figures["loss"] * weight / num_bytes / math.log(2)
            return result

        return validate

    return validation
