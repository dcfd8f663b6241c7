"""TextPieces of a rendered conversation -> ids: the template's parts with control tokens, what people said without.

What lies between control tokens is encoded as one text, whoever it is from, so that the ids are those of the whole text
unless somebody spelled a control token. `template_turns.py` says where the ids are cut.
"""

import re
from collections.abc import Sequence
from typing import Protocol

from minimind.text.foreign_template import ForeignTemplate
from minimind.text.template_pieces import TextPiece, TextPieces, take_apart

__all__ = ["THINK_CLOSE", "THINK_OPEN", "ControlEncoder", "encoded", "end_names", "is_thinking_open", "shared"]

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"


class ControlEncoder(Protocol):
    """What this needs of a tokenizer: ids of text that has no control tokens, and of control tokens by name."""

    @property
    def control_names(self) -> frozenset[str]: ...
    @property
    def end_names(self) -> frozenset[str]: ...
    def control(self, name: str) -> int: ...
    def encode_marked(
        self, text: str, controls: Sequence[tuple[int, int]]
    ) -> tuple[list[int], list[tuple[int, int]]]: ...


def encoded(pieces: Sequence[TextPiece], cuts: Sequence[int], tokenizer: ControlEncoder) -> list[list[int]]:
    """The ids between the cuts, one list more than there are cuts. cuts: offsets in the text, in order"""
    controls, offset = [(cut, cut) for cut in cuts], 0
    pattern = _control_pattern(tokenizer.control_names)
    for piece in pieces:
        if piece.place is None:
            controls += [(offset + found.start(), offset + found.end()) for found in pattern.finditer(piece.text)]
        offset += len(piece.text)
    ids, spans = tokenizer.encode_marked("".join(piece.text for piece in pieces), sorted(controls))
    parts: list[list[int]] = [[] for _ in range(len(cuts) + 1)]
    for index, (start, end) in zip(ids, spans, strict=True):
        # An id that stands for no character belongs to what is before it.
        parts[sum(cut <= start and cut < end for cut in cuts)].append(index)
    return parts


def shared(one: str, other: str, tokenizer: ControlEncoder) -> int:
    """How far two texts of a template are the same, up to a control token or an end of line."""
    pairs = enumerate(zip(one, other, strict=False))
    upto = next((place for place, (ours, theirs) in pairs if ours != theirs), min(len(one), len(other)))
    edges = [0, len(other), *(match.end() for match in re.finditer("\n", other))]
    edges += [edge for match in _control_pattern(tokenizer.control_names).finditer(other) for edge in match.span()]
    return max(edge for edge in edges if edge <= upto)


def is_thinking_open(ids: Sequence[int], tokenizer: ControlEncoder) -> bool:
    """Does a prompt leave a think block open?"""
    if not tokenizer.control_names.issuperset((THINK_OPEN, THINK_CLOSE)):
        return False
    marks = {tokenizer.control(THINK_OPEN): True, tokenizer.control(THINK_CLOSE): False}
    ends = {tokenizer.control(name) for name in tokenizer.end_names}
    return next((marks.get(index, False) for index in reversed(ids) if index in marks or index in ends), False)


def end_names(template: ForeignTemplate, control: frozenset[str]) -> frozenset[str]:
    """The control tokens that the template puts behind an answer: in the middle of a conversation, and at its end."""
    messages = [{"role": role, "content": word} for role, word in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    names = {template.tokens.get("eos_token")} & control
    inputs = [
        {**template.variables(None), "messages": messages[:count], "tools": None, "add_generation_prompt": False}
        for count in (2, 3)
    ]
    for pieces in take_apart(template.text_for(None), inputs, control):
        if isinstance(pieces, TextPieces):
            answered = False
            for piece in pieces.pieces:
                found = _control_pattern(control).search(piece.text) if answered and piece.place is None else None
                if found:
                    names.add(found.group())
                    break
                answered = answered or (piece.place is not None and piece.place.message == 1)
    return frozenset(name for name in names if name)


def _control_pattern(names: frozenset[str]) -> re.Pattern[str]:
    """Finds control tokens as tokenizers do: the leftmost, and of those the longest."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")
