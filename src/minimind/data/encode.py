"""Rows -> token ids, a chunk at a time: all that can be said of a document without looking at another one.

Parsing, cleaning, encoding and hashing happen here, in any of several processes (`workers.py`). What needs the other
documents (copies, the split, the order) happens in `prepare.py`, in one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from minimind.data.chunks import BadRow, Chunk, Row
from minimind.data.clean import reason_to_drop
from minimind.data.columns import renamed
from minimind.data.corpus import RowKind, kind_of
from minimind.data.dedup import document_hash, signature
from minimind.data.learnt import Learn, reason_not_to_learn, with_weights
from minimind.data.options import CleanConfig
from minimind.data.split import is_chosen
from minimind.errors import UserError
from minimind.text.conversation import Conversation, Rendered, render, render_rows, render_text
from minimind.text.flags import row_weight
from minimind.text.rows import unread_keys
from minimind.text.shapes import TEXT, find_shape, unread_columns
from minimind.text.tokenizer import Tokenizer

__all__ = ["DocumentPart", "EncodeSettings", "EncodedChunk", "EncodedDocument", "Encoder"]


@dataclass(frozen=True)
class EncodeSettings:
    """What a worker needs to know.

    has_signatures: near duplicates will be looked for
    columns:        see `columns_by_name`
    """

    kind: RowKind
    text_column: str
    clean: CleanConfig | None = None
    has_signatures: bool = False
    thinking_share: float = 1.0
    learn: Learn = "all"
    columns: Mapping[str, str] = field(default_factory=dict)


class DocumentPart(NamedTuple):
    """A row of ids; see `EncodedDocument`."""

    ids: np.ndarray
    weights: np.ndarray | None
    num_bytes: int


class EncodedDocument(NamedTuple):
    """A document with its ids.

    hash:        of its text, see `document_hash`
    reason:      why it has to be dropped whatever the others are; "" if it has not
    ids:         [n]
    weights:     [n] uint8; None for text, where all but the first count
    num_bytes:   UTF-8 bytes spelled by the ids that count
    signature:   see `signature`; None when nobody asked
    more:        further rows, of a conversation whose template rewrites what was said before an answer
    left_out:    what the chat template does not show of it, in words
    """

    hash: bytes
    reason: str
    ids: np.ndarray
    weights: np.ndarray | None
    num_bytes: int
    characters: int
    signature: np.ndarray | None
    more: tuple[DocumentPart, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[DocumentPart, ...]:
        return DocumentPart(self.ids, self.weights, self.num_bytes), *self.more


@dataclass(frozen=True)
class EncodedChunk:
    """The documents and the bad rows of a chunk, both in the order of their lines.

    unlearnt:  answers that weigh nothing, by the reason
    unread:    columns, and keys of messages, that are not read: how often each is there
    """

    documents: list[EncodedDocument]
    bad: list[BadRow]
    num_lines: int
    position: int
    unlearnt: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)


class Encoder:
    """Turns chunks into encoded chunks."""

    def __init__(self, tokenizer: Tokenizer, settings: EncodeSettings) -> None:
        if settings.kind == "conversation" and tokenizer.template is None:
            # What no conversation can be rendered with is no fault of a row.
            render(Conversation(()), tokenizer)
        if settings.has_signatures:
            signature("")
        self.tokenizer, self.settings = tokenizer, settings
        self._unlearnt, self._unread = Counter[str](), Counter[str]()
        self._dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        self._token_sizes = np.array([len(token) for token in tokenizer.token_bytes], dtype=np.int64)

    def __call__(self, chunk: Chunk) -> EncodedChunk:
        self._unlearnt, self._unread = Counter[str](), Counter[str]()
        rows = [self._checked(row) for row in chunk.rows()]
        good = [row for row in rows if isinstance(row, Row)]
        made = [*(self._texts(good) if self.settings.kind == "text" else self._conversations(good))]
        documents = [document for document in made if isinstance(document, EncodedDocument)]
        bad = [row for row in (*rows, *made) if isinstance(row, BadRow)]
        bad.sort(key=lambda row: row.line)
        return EncodedChunk(documents, bad, chunk.num_lines, chunk.position, self._unlearnt, self._unread)

    def _checked(self, row: Row | BadRow) -> Row | BadRow:
        if isinstance(row, BadRow):
            return row
        columns = self.settings.columns
        row = Row(row.path, row.line, renamed(row.value, columns)) if columns else row
        problem = self._problem(row)
        if not problem and not columns and (len(row.value) > 1 or self.settings.kind == "conversation"):
            self._count_unread(row.value)
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
        if found == kind or (kind == "conversation" and find_shape(row.value, "conversation")):
            return ""
        return f"holds a {found} where a {kind} is expected; prepare them apart"

    def _count_unread(self, value: Mapping[str, Any]) -> None:
        column, is_text = self.settings.text_column, self.settings.kind == "text"
        shape = TEXT if is_text else find_shape(value, "conversation")
        self._unread.update(unread_columns(value, shape, column))
        if not is_text:
            self._unread.update(f"message.{key}" for key in unread_keys(value))

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
            reason = "empty" if not text.strip() else "" if row_weight(row.value) else "not_to_be_learnt"
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
                conversation, unlearnt = with_weights(conversation, self.settings.learn)
                rendered = render_rows(conversation, self.tokenizer)
            except UserError as error:
                yield BadRow(row.path, row.line, str(error).removeprefix(f"{where}: "))
                continue
            parts = [self._part(each) for each in rendered]
            said = "\n".join(message.content for message in conversation.messages)
            self._unlearnt.update(unlearnt)
            first = self._document(render_text(conversation), said, reason_not_to_learn(conversation), *parts[0])
            yield first._replace(more=tuple(parts[1:]), left_out=_left_out(rendered, conversation))

    def _part(self, rendered: Rendered) -> DocumentPart:
        ids = np.array(rendered.ids, dtype=self._dtype)
        weights = np.array(rendered.weights).astype(np.uint8)
        assert (weights == rendered.weights).all(), "weights on the disk are 0 or 1"
        return DocumentPart(ids, weights, int(self._token_sizes[ids[weights == 1]].sum()))

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


def _left_out(rows: Sequence[Rendered], conversation: Conversation) -> tuple[str, ...]:
    """In words: "tools", "reasoning", "calls", or the role of a message."""
    roles = [message.role for message in conversation.messages]
    words = {"reasoning": "reasoning", "call": "tool calls", "tools": "tools"}
    # Reasoning that is dropped from history was learnt in the row of its own answer.
    is_shown = not all(any(place.field == "reasoning" for place in row.left_out) for row in rows)
    places = [place for place in rows[-1].left_out if not (is_shown and place.field == "reasoning")]
    found = (words.get(place.field) or f"{roles[place.message]} messages" for place in places)
    return tuple(dict.fromkeys(found))
