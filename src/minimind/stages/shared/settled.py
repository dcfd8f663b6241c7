"""What a recipe leaves open about training, settled: as a run began, or from how much data there is."""

import os
from pathlib import Path

from minimind.data.fitting import FittedDocuments
from minimind.data.shards import ShardSet
from minimind.storage.run import RunReader
from minimind.terminal.notes import note
from minimind.training.budget import UNSET, DataSize, suited
from minimind.training.settings import TrainConfig

__all__ = ["settled", "size_of"]


def settled(
    train: TrainConfig, folder: Path, prepared: ShardSet, documents: ShardSet | FittedDocuments, context: int
) -> TrainConfig:
    """The settings with nothing unset; what was chosen is said.

    folder:    of the run, which goes on as it began
    documents: those of `prepared` as they are learnt from
    """
    run = RunReader(folder)
    if run.checkpoint_folders():
        began = run.config()["train"]
        train = train.model_copy(update={name: began[name] for name in UNSET if getattr(train, name) is None})
    found, line = suited(train, size_of(prepared, documents, context))
    if line and os.environ.get("RANK", "0") == "0":
        note(line)
    return found


def size_of(prepared: ShardSet, documents: ShardSet | FittedDocuments, context: int) -> DataSize:
    """How much there is to learn from `documents`, the learnt share being that of all that was prepared."""
    tokens = int(documents.lengths.sum())
    learnt = round(tokens * prepared.num_weighted / max(prepared.num_tokens, 1))
    return DataSize(tokens=tokens, learnt=learnt, context=context, kind=prepared.kind)
