"""A conversation in a model's own template, taken apart: what the template wrote, and what people said.

The template renders twice, once with marks in place of what people said. Cut at the marks, the second text tells whose
each stretch of the first is; that they spell the first text, letter for letter, is proved for every conversation. Where
they do not, the template has read what was said and acted on it (a think block dropped from history, `/no_think`): then
the words that it looks for stay in the marked text, so that it acts the same. A conversation for which that does not
hold either is refused. Words that stay are still what somebody said where they come out as they went in; an assistant's
may be the template's own marks, a user's never.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from html import escape
from typing import Any, NamedTuple

from minimind.errors import DataError
from minimind.text.jinja_render import plain, render_texts, template_facts
from minimind.text.template_marks import Marks, Place, Said, mark_inputs

__all__ = ["TextPiece", "TextPieces", "take_apart"]


class TextPiece(NamedTuple):
    """A stretch of the text. place: where it was said; None for what the template wrote."""

    text: str
    place: Place | None = None


@dataclass(frozen=True)
class TextPieces:
    """A rendered conversation. missing: places whose text the template left out."""

    pieces: tuple[TextPiece, ...]
    missing: tuple[Place, ...] = ()

    @cached_property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def take_apart(
    template: str, inputs: Sequence[Mapping[str, Any]], control: Collection[str], now: datetime | None = None
) -> list[TextPieces | DataError]:
    """TextPieces for each set of variables, or why there are none.

    control: the names that what people said may not spell by way of the template
    Errors (returned): DataError in the template's words, or naming the message that it has changed beyond recognition
    """
    first = [_Attempt(template, variables, control) for variables in inputs]
    texts = render_texts(template, [form for attempt in first for form in (attempt.variables, attempt.marked)], now)
    return [
        _pieces(attempt, text, marked, now)
        for attempt, text, marked in zip(first, texts[::2], texts[1::2], strict=True)
    ]


class _Attempt:
    """The marked form of one set of variables. keep: words that stay in it"""

    def __init__(
        self, template: str, variables: Mapping[str, Any], control: Collection[str], keep: Sequence[str] = ()
    ) -> None:
        self.template, self.variables, self.control, self.keep = template, variables, control, keep
        self.spelled = json.dumps(plain(variables), ensure_ascii=False)
        self.marks = Marks(template + self.spelled)
        self.marked = mark_inputs(variables, self.marks, keep)

    def keeping(self) -> "_Attempt | None":
        """With the words that the template looks for in place, if there are any."""
        words = [word for word in template_facts(self.template).words if word in self.spelled]
        return _Attempt(self.template, self.variables, self.control, words) if words and not self.keep else None

    @cached_property
    def dangers(self) -> list[str]:
        """Kept words that are, or are in, a control token's name."""
        return [word for word in self.keep if any(word in name or name in word for name in self.control)]

    def is_assistants(self, place: Place) -> bool:
        return place.message >= 0 and self.variables["messages"][place.message].get("role") == "assistant"


def _pieces(
    attempt: _Attempt, text: str | DataError, marked: str | DataError, now: datetime | None
) -> TextPieces | DataError:
    if isinstance(text, DataError):
        return text
    place = None
    if isinstance(marked, str):
        cut = attempt.marks.pattern.split(marked)
        spans, place = _align(text, cut, attempt.marks.said)
        if spans is not None:
            return _put_together(attempt, cut, spans)
    again = attempt.keeping()
    if again is not None:
        return _pieces(again, text, render_texts(again.template, [again.marked], now)[0], now)
    return _unclear(place)


def _unclear(place: Place | None) -> DataError:
    where = f"message {place.message + 1} ({place.field})" if place and place.message >= 0 else "the conversation"
    return DataError(
        f"the model's chat template changes {where} in a way that cannot be followed; leave the words that it looks "
        "for out of the text"
    )


def _put_together(attempt: _Attempt, cut: Sequence[str], spans: Sequence[str]) -> TextPieces | DataError:
    said = attempt.marks.said
    marks = [said[int(number)] for number in cut[1::2]]
    pieces: list[TextPiece] = []
    for literal, before, behind, span in zip(cut[::2], [None, *marks], [*marks, None], [*spans, ""], strict=True):
        found = _claimed(literal, before, behind)
        for each in (before, behind):
            if each and not attempt.is_assistants(each.place) and _is_forged(found, each, attempt.dangers):
                return _unclear(each.place)
        pieces += [*found, *([TextPiece(span, behind.place)] if behind else [])]
    shown = {each.place for each in marks}
    missing = dict.fromkeys(each.place for each in said if each.place not in shown)
    return TextPieces(tuple(piece for piece in pieces if piece.text), tuple(missing))


def _align(text: str, cut: Sequence[str], said: Sequence[Said]) -> tuple[list[str] | None, Place | None]:
    """What stands in `text` for each mark of a marked text that was cut at its marks, and how far it could be followed.

    A mark may stand for its text in one of several spellings; the first ones that make the whole text are taken.
    """
    if not text.startswith(cut[0]):
        return None, said[int(cut[1])].place if len(cut) > 1 else None
    # Each entry: the spellings still to be tried for a mark, and where in the text it begins.
    tries: list[tuple[Iterator[str], int]] = []
    spans: list[str] = []
    position, farthest, num_steps = len(cut[0]), 0, 0
    while True:
        if len(spans) == len(cut) // 2:
            if position == len(text):
                return spans, None
        else:
            tries.append((iter(_spellings(said[int(cut[2 * len(spans) + 1])].text)), position))
            spans.append("")
        while tries:
            num_steps += 1
            spellings, start = tries[-1]
            literal = cut[2 * len(tries)]
            fitting = next((s for s in spellings if text.startswith(s + literal, start)), None)
            if fitting is not None and num_steps < 100 * len(cut):
                spans[-1] = fitting
                position = start + len(fitting) + len(literal)
                farthest = max(farthest, len(spans))
                break
            tries.pop()
            spans.pop()
        if not tries:
            place = said[int(cut[2 * farthest + 1])].place if 2 * farthest + 1 < len(cut) else None
            return (spans, None) if len(cut) == 1 and position == len(text) else (None, place)


def _spellings(text: str) -> list[str]:
    """How a template may print a text: as it is, inside JSON (once or twice), inside a Python list, for HTML."""
    once = json.dumps(text, ensure_ascii=False)[1:-1]
    ascii_once = json.dumps(text)[1:-1]
    forms = [text, once, ascii_once, json.dumps(once, ensure_ascii=False)[1:-1], repr(text)[1:-1], escape(text)]
    return list(dict.fromkeys(forms))


def _claimed(literal: str, before: Said | None, behind: Said | None) -> list[TextPiece]:
    """What stands between two marks; kept words that come out as they went in are given back to who said them."""
    if before and behind and before.group == behind.group and literal == before.after:
        return [TextPiece(literal, before.place)]
    head = before.after if before and before.after.strip() and literal.startswith(before.after) else ""
    rest = literal[len(head) :]
    tail = behind.before if behind and behind.before.strip() and rest.endswith(behind.before) else ""
    pieces = [
        TextPiece(head, before.place if before else None),
        TextPiece(rest[: len(rest) - len(tail)]),
        TextPiece(tail, behind.place if behind else None),
    ]
    return [piece for piece in pieces if piece.text]


def _is_forged(pieces: Sequence[TextPiece], said: Said, words: Sequence[str]) -> bool:
    """Might a word that stayed in this text have come out as one of the template's?"""
    literal = "".join(piece.text for piece in pieces if piece.place is None)
    theirs = "".join(piece.text for piece in pieces if piece.place == said.place)
    gaps = said.before + said.after
    return any(word in literal and gaps.count(word) > theirs.count(word) for word in words)
