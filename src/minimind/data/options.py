"""The settings of `prepare`: what is read, what is dropped, what is held out. `docs/data.md` explains them together."""

from typing import Literal

from pydantic import Field

from minimind.config import FREE, Config

__all__ = ["CleanConfig", "DedupConfig", "PrepareOptions"]


class CleanConfig(Config):
    """Which documents are dropped. Shares are of a document's characters, from 0 to 1; 1 switches a check off."""

    min_characters: int = Field(default=10, ge=0, description="Drop documents with fewer characters.")
    max_characters: int | None = Field(default=None, ge=1, description="Drop documents with more characters.")
    max_control: float = Field(default=0.01, ge=0, le=1, description="Largest share of control characters.")
    max_broken: float = Field(default=0.01, ge=0, le=1, description="Largest share of wrongly decoded characters.")
    max_repeated: float = Field(default=0.5, ge=0, le=1, description="Largest share of text on lines that came before.")


class DedupConfig(Config):
    """Which repeated documents are dropped; the first is kept."""

    exact: bool = Field(default=True, description="Drop documents whose text, but for white space, came before.")
    near: bool = Field(default=False, description="Drop documents that share most word sequences with an earlier one.")
    threshold: float = Field(default=0.7, gt=0, le=1, description="For near: the share of word sequences in common.")


class PrepareOptions(Config):
    """How sources become shards. Cleaning and deduplication are off unless one of their options is set."""

    valid: list[str] = Field(default=[], description="Sources to validate on, in place of a part of the training data.")
    valid_fraction: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="Share of documents held out for validation, unless `valid` names some.",
    )
    kind: Literal["auto", "text", "conversation"] = Field(
        default="auto", description="What rows hold; auto looks at the first one."
    )
    text_column: str = Field(default="text", description="The column of a row that holds its text.")
    max_bad_rows: int = Field(default=0, ge=0, description="How many broken rows may be skipped.")
    thinking_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of conversations that keep their reasoning; the others teach to answer at once.",
    )
    clean: CleanConfig | None = Field(default=None, description="Drop documents that are no prose.")
    dedup: DedupConfig | None = Field(default=None, description="Drop documents that came before.")
    workers: int = Field(
        default=0, ge=0, description="Processes that encode; 0 is one for each core.", json_schema_extra=FREE
    )
