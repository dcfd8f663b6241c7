"""Preference pairs from files: two answers to one prompt, of which somebody liked the first better.

`text/shapes.py` has the shapes of rows and `pair_rows.py` takes them apart. Both sides are rendered as any conversation
is, and only the last answer has weight. A pair compares two answers to the same question, so both prompts must be the
same ids. What cannot teach (equal answers, an empty one, one longer than the context) is dropped and counted.
`pair_source.py` makes batches of the rest.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minimind.data.chunks import BadRow, Row
from minimind.data.columns import renamed
from minimind.data.corpus import NO_COLUMNS, BadRows, read_chunks
from minimind.data.dedup import document_hash
from minimind.data.files import find_files
from minimind.data.learnt import says_something
from minimind.data.pair_rows import pair_of_conversations
from minimind.data.split import is_chosen
from minimind.errors import DataError, UserError
from minimind.text.conversation import Conversation, render_last_answer, render_text
from minimind.text.flags import row_weight
from minimind.text.rows import unread_keys
from minimind.text.shapes import find_shape, may_matter, unread_columns
from minimind.text.tokenizer import Tokenizer

__all__ = ["Pairs", "Side", "read_pairs", "split_pairs"]


class Side(NamedTuple):
    """Ids [n] up to the end of the answer, and the weights [n] of predicting each of them."""

    ids: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Rows of ids: row 2i is the chosen side of pair i, row 2i + 1 the rejected one.

    prompt_hashes: of each pair's prompt, see `document_hash`
    dropped:       why pairs were left out, and how many
    unread:        columns, and keys of messages, that are not read though they could matter: how often each is there
    """

    rows: Sequence[Side]
    prompt_hashes: Sequence[bytes]
    dropped: Mapping[str, int] = field(default_factory=dict)
    bad_rows: int = 0
    unread: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompt_hashes)

    @cached_property
    def lengths(self) -> np.ndarray:
        """[2N] int64, the ids of each row."""
        return np.array([len(side.ids) for side in self.rows], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Of all that decides what a model says of the rows."""
        digest = hashlib.sha256(self.lengths.tobytes())
        for side in self.rows:
            digest.update(side.ids.tobytes() + side.weights.tobytes())
        return digest.hexdigest()


def read_pairs(
    sources: Iterable[str | Path],
    tokenizer: Tokenizer,
    *,
    context: int,
    columns: Mapping[str, str] = NO_COLUMNS,
    max_bad_rows: int = 0,
    observe: Callable[[BadRow], None] = lambda bad: None,
) -> Pairs:
    """All pairs of the sources, in order.

    context: a pair with a side of more positions is dropped, for half an answer is not what was judged
    columns: see `columns_by_name`
    observe: told each bad row that `max_bad_rows` allows
    Errors:  DataError for a file that cannot be read, at the first bad row over the limit, or when no pair is left
    """
    rows, hashes, dropped, unread = [], [], Counter(), Counter()
    bad_rows = BadRows(max_bad_rows, observe)
    for item in _read_rows(sources, columns):
        try:
            pair = _pair(item.value, tokenizer) if isinstance(item, Row) else item
        except UserError as error:
            pair = BadRow(item.path, item.line, str(error))
        if isinstance(item, Row) and not columns:
            unread.update(_unread(item.value))
        if isinstance(pair, BadRow):
            bad_rows.add(pair)
        elif reason := pair.reason_to_drop(context):
            dropped[reason] += 1
        else:
            rows += [pair.chosen, pair.rejected]
            hashes.append(pair.prompt_hash)
    if not hashes:
        reasons = ", ".join(f"{name} {count:,}" for name, count in dropped.items()) or "no pair read"
        names = ", ".join(map(str, sources)) if isinstance(sources, Sequence) else "the sources"
        raise DataError(f"{names}: no pair is left to learn from: {reasons}, {bad_rows.count:,} bad rows")
    return Pairs(rows, hashes, dict(dropped), bad_rows.count, dict(unread))


def split_pairs(pairs: Pairs, valid_fraction: float) -> tuple[Pairs, Pairs]:
    """The pairs to learn from and those to validate on, told by the prompt's hash: a prompt is on one side only."""
    is_valid = [is_chosen(prompt_hash, valid_fraction) for prompt_hash in pairs.prompt_hashes]
    return _chosen(pairs, [not held_out for held_out in is_valid]), _chosen(pairs, is_valid)


def _chosen(pairs: Pairs, which: Sequence[bool]) -> Pairs:
    numbers = [number for number, is_in in enumerate(which) if is_in]
    rows = [pairs.rows[row] for number in numbers for row in (2 * number, 2 * number + 1)]
    return Pairs(rows, [pairs.prompt_hashes[number] for number in numbers], pairs.dropped, pairs.bad_rows, pairs.unread)


def _read_rows(sources: Iterable[str | Path], columns: Mapping[str, str]) -> Iterator[Row | BadRow]:
    for chunk in read_chunks(find_files(sources), columns=columns):
        for row in chunk.rows():
            yield Row(row.path, row.line, renamed(row.value, columns)) if isinstance(row, Row) else row


def _unread(row: Mapping[str, Any]) -> Iterator[str]:
    columns = unread_columns(row, find_shape(row, "pair"))
    yield from (name for name in (*columns, *unread_keys(row)) if may_matter(name, "pair"))


@dataclass(frozen=True)
class _Pair:
    chosen: Side
    rejected: Side
    prompt_hash: bytes
    is_empty: bool
    weight: int

    def reason_to_drop(self, context: int) -> str:
        """Why the pair cannot teach, or ""."""
        if self.is_empty:
            return "empty_answer"
        if not self.weight:
            return "not_to_be_learnt"
        if np.array_equal(self.chosen.ids, self.rejected.ids):
            return "equal_answers"
        # A row of n ids has n − 1 positions, each with the next id as its target.
        return "too_long" if max(len(self.chosen.ids), len(self.rejected.ids)) - 1 > context else ""


def _pair(row: Mapping[str, Any], tokenizer: Tokenizer) -> _Pair:
    """Errors: UserError that says what is wrong with the row."""
    sides = pair_of_conversations(row)
    _require_same_prompt(*sides)
    prompt, answers = sides[0].messages[:-1], [each.messages[-1] for each in sides]
    chosen, rejected = (_side(conversation, tokenizer) for conversation in sides)
    text = render_text(Conversation(prompt, sides[0].tools))
    weight = min(row_weight(row), *(answer.weight for answer in answers))
    return _Pair(chosen, rejected, document_hash(text), not all(map(says_something, answers)), weight)


def _require_same_prompt(chosen: Conversation, rejected: Conversation) -> None:
    # Which earlier answers are flagged off says nothing of the last one.
    ours, theirs = ([replace(message, weight=1) for message in side.messages[:-1]] for side in (chosen, rejected))
    if chosen.tools != rejected.tools or ours != theirs:
        first = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        place = "in their tools" if ours == theirs else "in length" if first is None else f"at message {first + 1}"
        raise DataError(f"the prompts of chosen and rejected differ {place}; a pair needs two answers to one prompt")
    if bool(chosen.messages[-1].reasoning_content) != bool(rejected.messages[-1].reasoning_content):
        raise DataError(
            "the prompts of chosen and rejected differ: one answer has reasoning and the other none, so one follows an "
            "open think block and the other a closed one; give both reasoning, or neither"
        )


def _side(conversation: Conversation, tokenizer: Tokenizer) -> Side:
    """Rendered, with weight on the last answer alone; what comes after its end is left out."""
    rendered = render_last_answer(conversation, tokenizer)
    return Side(np.array(rendered.ids, dtype=np.uint32), np.array(rendered.weights, dtype=np.float32))
