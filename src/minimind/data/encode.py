"""Rows -> token ids, a chunk at a time: all that can be said of a document without looking at another one.

Parsing, cleaning, encoding and hashing happen here, in any of several processes (`workers.py`). What needs the other
documents (copies, the split, the order) happens in `prepare.py`, in one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from minimind.data.chunks import BadRow, Chunk, Row
from minimind.data.clean import reason_to_drop
from minimind.data.corpus import RowKind, kind_of
from minimind.data.dedup import document_hash, signature
from minimind.data.options import CleanConfig
from minimind.data.split import is_chosen
from minimind.errors import UserError
from minimind.text.conversation import Conversation, Message, render, render_text
from minimind.text.tokenizer import Tokenizer

__all__ = ["EncodeSettings", "EncodedChunk", "EncodedDocument", "Encoder"]


@dataclass(frozen=True)
class EncodeSettings:
    """What a worker needs to know. has_signatures: near duplicates will be looked for."""

    kind: RowKind
    text_column: str
    clean: CleanConfig | None = None
    has_signatures: bool = False
    thinking_share: float = 1.0


class EncodedDocument(NamedTuple):
    """A document with its ids.

    hash:        of its text, see `document_hash`
    reason:      why it has to be dropped whatever the others are; "" if it has not
    ids:         [n]
    weights:     [n] uint8; None for text, where all but the first count
    num_bytes:   UTF-8 bytes spelled by the ids that count
    signature:   see `signature`; None when nobody asked
    """

    hash: bytes
    reason: str
    ids: np.ndarray
    weights: np.ndarray | None
    num_bytes: int
    characters: int
    signature: np.ndarray | None


@dataclass(frozen=True)
class EncodedChunk:
    """The documents and the bad rows of a chunk, both in the order of their lines."""

    documents: list[EncodedDocument]
    bad: list[BadRow]
    num_lines: int
    position: int


class Encoder:
    """Turns chunks into encoded chunks."""

    def __init__(self, tokenizer: Tokenizer, settings: EncodeSettings) -> None:
        if settings.kind == "conversation":
            # What no conversation can be rendered with is no fault of a row.
            render(Conversation(()), tokenizer)
        if settings.has_signatures:
            signature("")
        self.tokenizer, self.settings = tokenizer, settings
        self._dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        self._token_sizes = np.array([len(token) for token in tokenizer.token_bytes], dtype=np.int64)

    def __call__(self, chunk: Chunk) -> EncodedChunk:
        rows = [self._checked(row) for row in chunk.rows()]
        good = [row for row in rows if isinstance(row, Row)]
        made = [*(self._texts(good) if self.settings.kind == "text" else self._conversations(good))]
        documents = [document for document in made if isinstance(document, EncodedDocument)]
        bad = [row for row in (*rows, *made) if isinstance(row, BadRow)]
        return EncodedChunk(documents, sorted(bad, key=lambda row: row.line), chunk.num_lines, chunk.position)

    def _checked(self, row: Row | BadRow) -> Row | BadRow:
        problem = self._problem(row) if isinstance(row, Row) else ""
        return BadRow(row.path, row.line, problem) if problem else row

    def _problem(self, row: Row) -> str:
        """Why a row is not of the kind that is prepared, or ""."""
        column, kind = self.settings.text_column, self.settings.kind
        if kind == "text" and column in row.value:
            value = row.value[column]
            return "" if isinstance(value, str) else f"column {column!r} is a {type(value).__name__}; expected text"
        try:
            found = kind_of(row.value, column)
        except ValueError as error:
            return str(error)
        return "" if found == kind else f"holds a {found} where a {kind} is expected; prepare them apart"

    def _texts(self, rows: list[Row]) -> Iterator[EncodedDocument | BadRow]:
        texts = [row.value[self.settings.text_column] for row in rows]
        try:
            batch: list[list[int] | str] = [*self.tokenizer.encode_batch(texts)]
        except UserError:
            batch = [self._ids_or_reason(text) for text in texts]
        for row, text, ids in zip(rows, texts, batch, strict=True):
            if isinstance(ids, str):
                yield BadRow(row.path, row.line, ids)
                continue
            array = np.array([*self.tokenizer.text_start, *ids, self.tokenizer.eos_id], dtype=self._dtype)
            reason = "" if text.strip() else "empty"
            yield self._document(text, text, reason, array, None, len(text.encode()))

    def _ids_or_reason(self, text: str) -> list[int] | str:
        try:
            return self.tokenizer.encode(text)
        except UserError as error:
            return str(error)

    def _conversations(self, rows: list[Row]) -> Iterator[EncodedDocument | BadRow]:
        for row in rows:
            where = f"{row.path}:{row.line}"
            try:
                conversation = self._mixed(Conversation.parse(row.value, where))
                rendered = render(conversation, self.tokenizer)
            except UserError as error:
                yield BadRow(row.path, row.line, str(error).removeprefix(f"{where}: "))
                continue
            ids = np.array(rendered.ids, dtype=self._dtype)
            weights = np.array(rendered.weights).astype(np.uint8)
            assert (weights == rendered.weights).all(), "weights on the disk are 0 or 1"
            size = int(self._token_sizes[ids[weights == 1]].sum())
            said = "\n".join(message.content for message in conversation.messages)
            reason = "" if any(map(_is_answer, conversation.messages)) else "no_answer"
            yield self._document(render_text(conversation), said, reason, ids, weights, size)

    def _mixed(self, conversation: Conversation) -> Conversation:
        """With its reasoning, or without, as the share has it; decided by the conversation itself."""
        share = self.settings.thinking_share
        if share == 1 or is_chosen(document_hash(f"thinking {render_text(conversation)}"), share):
            return conversation
        messages = tuple(replace(message, reasoning_content="") for message in conversation.messages)
        return replace(conversation, messages=messages)

    def _document(
        self, text: str, said: str, reason: str, ids: np.ndarray, weights: np.ndarray | None, num_bytes: int
    ) -> EncodedDocument:
        """text: what makes a document the same as another; said: the part of it that is prose."""
        settings = self.settings
        if not reason and settings.clean is not None:
            reason = reason_to_drop(said, settings.clean)
        minhash = signature(text) if settings.has_signatures and not reason else None
        return EncodedDocument(document_hash(text), reason, ids, weights, num_bytes, len(text), minhash)


def _is_answer(message: Message) -> bool:
    """Does the assistant say anything? An empty answer has the weight of its end, and teaches silence."""
    said = message.content.strip() or message.reasoning_content.strip() or message.tool_calls
    return message.role == "assistant" and bool(said)
