"""The settings of `prepare`: what is read, what is dropped, what is held out. `docs/data.md` explains them together."""

from typing import Literal

from minimind.config import Config, option
from minimind.data.columns import ColumnNames
from minimind.data.learnt import Learn

__all__ = ["CleanConfig", "DedupConfig", "PrepareOptions"]


class CleanConfig(Config):
    """Which documents are dropped. Shares are of a document's characters, from 0 to 1; 1 switches a check off."""

    min_characters: int = option(10, "Drop documents with fewer characters.", ge=0)
    max_characters: int | None = option(None, "Drop documents with more characters.", ge=1)
    max_control: float = option(0.01, "Largest share of control characters.", ge=0, le=1)
    max_broken: float = option(0.01, "Largest share of wrongly decoded characters.", ge=0, le=1)
    max_repeated: float = option(0.5, "Largest share of text on lines that came before.", ge=0, le=1)


class DedupConfig(Config):
    """Which repeated documents are dropped; the first is kept."""

    exact: bool = option(True, "Drop documents whose text, but for white space, came before.")
    near: bool = option(False, "Drop documents that share most word sequences with an earlier one.")
    threshold: float = option(0.7, "For near: the share of word sequences in common.", gt=0, le=1)


class PrepareOptions(Config):
    """How sources become shards. Cleaning and deduplication are off unless one of their options is set."""

    valid: list[str] = option([], "Sources to validate on, in place of a part of the training data.")
    valid_fraction: float = option(
        0.01, "Share of documents held out for validation, unless `valid` names some.", ge=0, lt=1
    )
    kind: Literal["auto", "text", "conversation"] = option("auto", "What rows hold; auto looks at the first one.")
    text_column: str = option("text", "The column of a row that holds its text.")
    columns: ColumnNames = option(
        [],
        "Of rows in no known shape: which column is which, such as prompt=question answer=reply. Others are not read.",
    )
    learn: Learn = option("all", "Of a conversation: learn all answers, or the last alone, the others being context.")
    max_bad_rows: int = option(0, "How many broken rows may be skipped.", ge=0)
    thinking_share: float = option(
        1.0, "Share of conversations that keep their reasoning; the others teach to answer at once.", ge=0, le=1
    )
    clean: CleanConfig | None = option(None, "Drop documents that are no prose.")
    dedup: DedupConfig | None = option(None, "Drop documents that came before.")
    workers: int = option(0, "Processes that encode; 0 is one for each core.", kind="free", ge=0)
