"""Marks in place of what people said, for a template to print instead.

A mark is a word of letters and digits, which no template escapes. White space around a text stays outside its mark, so
that a template may trim it; the words that the template looks for, such as `</think>`, may stay too (`keep`). Keys of
JSON objects are marked in their order, so that sorting them gives the same order.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from minimind.text.jinja_render import plain, with_reasoning

__all__ = ["Marks", "Place", "Said", "mark_inputs"]

# Keys of a message that hold something to read, beside `content`.
REASONING = ("reasoning_content", "thinking", "reasoning")
# Words of a JSON schema's own: a template compares them.
SCHEMA_WORD = re.compile(r"[A-Za-z0-9_$./ -]{0,64}")
KEPT_IN_SCHEMA = ("type", "format", "$ref", "in")


class Place(NamedTuple):
    """Where something was said: the number of the message, -1 for tools and documents, and its field."""

    message: int
    field: str


@dataclass(frozen=True)
class Said:
    """What a mark stands for.

    before, after: what stands in the same text between this mark and the one before or behind it, or its edge
    group:         marks of one text have one number
    """

    text: str
    place: Place
    group: int
    before: str
    after: str


class Marks:
    """Hands out marks. avoid: a text in which no mark may occur."""

    def __init__(self, avoid: str) -> None:
        number = next(n for n in range(1000) if f"Zq{n}z" not in avoid)
        self._stem = f"Zq{number}z"
        self.pattern = re.compile(rf"{self._stem}(\d{{6}})X")
        self.said: list[Said] = []
        self._num_groups = 0

    def mark(self, text: str, place: Place, keep: Sequence[str] = ()) -> str:
        """`text` with marks in it; without a word to mark, as it is."""
        words = sorted(keep, key=len, reverse=True)
        kept = re.compile("(" + "|".join(map(re.escape, words)) + ")") if words else None
        parts = kept.split(text) if kept else [text]
        # A text of nothing but kept words could not be told from the template's own: it is marked whole.
        if len(parts) > 1 and not any(part.strip() for part in parts[::2]):
            parts = [text]
        first, gap, marked = len(self.said), "", ""
        for number, part in enumerate(parts):
            core = part.strip()
            if number % 2 or not core:
                gap, marked = gap + part, marked + part
                continue
            start = part.index(core)
            gap, marked = gap + part[:start], marked + part[:start]
            if len(self.said) > first:
                self.said[-1] = replace(self.said[-1], after=gap)
            marked += f"{self._stem}{len(self.said):06}X" + part[start + len(core) :]
            self.said.append(Said(core, place, self._num_groups, gap, ""))
            gap = part[start + len(core) :]
        if len(self.said) > first:
            self.said[-1] = replace(self.said[-1], after=gap)
        self._num_groups += 1
        return marked

    def mark_values(self, value: Any, place: Place) -> Any:
        """Every text of a JSON value, its keys too."""
        if isinstance(value, str):
            return self.mark(value, place)
        if isinstance(value, Mapping):
            names = {key: self.mark(key, place) for key in sorted(value, key=lambda key: (key.lower(), key))}
            return {names[key]: self.mark_values(item, place) for key, item in value.items()}
        return [self.mark_values(item, place) for item in value] if isinstance(value, list) else value


def mark_inputs(variables: Mapping[str, Any], marks: Marks, keep: Sequence[str]) -> dict[str, Any]:
    """A template's variables with marks in messages, tools and documents; roles and ids stay.

    keep: words that stay in what was said
    """
    marked = plain(variables)
    marked["messages"] = [
        _message(with_reasoning(message), number, marks, keep) for number, message in enumerate(marked["messages"])
    ]
    place = Place(-1, "tools")
    if marked.get("tools"):
        names: dict[str, str] = {}
        marked["tools"] = [_schema(tool, marks, names, place, is_names=False) for tool in marked["tools"]]
    if marked.get("documents"):
        # Templates print some keys of a document by their names.
        place = Place(-1, "documents")
        marked["documents"] = [
            {key: marks.mark_values(value, place) for key, value in document.items()}
            for document in marked["documents"]
        ]
    return marked


def _message(message: dict[str, Any], number: int, marks: Marks, keep: Sequence[str]) -> dict[str, Any]:
    marked = dict(message)
    reasoning = message.get("reasoning_content")
    if isinstance(reasoning, str):
        word = marks.mark(reasoning, Place(number, "reasoning"), keep)
        marked |= {name: word for name in REASONING if message.get(name) == reasoning}
    if "content" in message:
        marked["content"] = _content(message["content"], Place(number, "content"), marks, keep)
    if isinstance(message.get("name"), str):
        marked["name"] = marks.mark(message["name"], Place(number, "name"))
    if isinstance(message.get("tool_calls"), list):
        marked["tool_calls"] = [_call(call, Place(number, "call"), marks) for call in message["tool_calls"]]
    return marked


def _content(content: Any, place: Place, marks: Marks, keep: Sequence[str]) -> Any:
    if isinstance(content, str):
        return marks.mark(content, place, keep)
    if isinstance(content, list):
        return [
            part | {"text": marks.mark(part["text"], place, keep)}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
    return marks.mark_values(content, place)


def _call(call: Any, place: Place, marks: Marks) -> Any:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return call | {"function": _call(call["function"], place, marks)}
    marked = dict(call)
    if isinstance(call.get("name"), str):
        marked["name"] = marks.mark(call["name"], place)
    if "arguments" in call:
        marked["arguments"] = marks.mark_values(call["arguments"], place)
    return marked


def _schema(value: Any, marks: Marks, names: dict[str, str], place: Place, *, is_names: bool) -> Any:
    """A tool: what people named and described; the words of JSON schema stay, for templates read them.

    names:     one mark for one text, as a property's name stands among the required ones too
    is_names:  the keys of this object are names of properties
    """
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (key.lower(), key))
        if is_names:
            spelled = {key: _named(key, marks, names, place) for key in keys}
        else:
            spelled = {key: key if SCHEMA_WORD.fullmatch(key) else marks.mark(key, place) for key in keys}
        return {
            spelled[key]: item
            if not is_names and key in KEPT_IN_SCHEMA and all(SCHEMA_WORD.fullmatch(word) for word in _texts(item))
            else _schema(item, marks, names, place, is_names=key == "properties" and not is_names)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_schema(item, marks, names, place, is_names=False) for item in value]
    return _named(value, marks, names, place) if isinstance(value, str) else value


def _named(text: str, marks: Marks, names: dict[str, str], place: Place) -> str:
    if text not in names:
        names[text] = marks.mark(text, place)
    return names[text]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
