"""Conversations in a model's own template -> ids with weights: what serving gives it, and what it has to answer.

The template's text is cut at control tokens, what people said is not, and what lies between control tokens is encoded
as one text: the ids are those of the whole text, unless somebody spelled a control token. An answer has weight from
where its prompt ends to the token that ends it, and the ids are cut at both, as sampling does.
Many templates rewrite history (earlier thoughts are dropped), so an answer's prompt need not begin the whole
conversation. Each answer is then learnt in a row that begins with the prompt that serving would give it; answers for
which one row serves share it. No answer is learnt twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import takewhile
from typing import Any

from minimind.errors import DataError
from minimind.text.foreign_template import ForeignTemplate
from minimind.text.jinja_render import render_texts
from minimind.text.messages import Message
from minimind.text.template_ids import THINK_CLOSE, THINK_OPEN, ControlEncoder, encoded, shared
from minimind.text.template_marks import Place
from minimind.text.template_pieces import TextPiece, TextPieces, take_apart

__all__ = ["Rendered", "TemplatedChat", "told_in"]


@dataclass(frozen=True)
class Rendered:
    """A conversation for training: `weights[i]` is the weight of predicting `ids[i]` from what stands before it.

    left_out: what the template does not show
    """

    ids: list[int]
    weights: list[float]
    left_out: tuple[Place, ...] = ()


@dataclass
class _Draft:
    """A row to be: spans of its text that are learnt, by the message that each answers."""

    pieces: TextPieces
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    end: str | None = None


@dataclass(frozen=True)
class TemplatedChat:
    """A conversation with the template that it is told in.

    messages:  as transformers takes them
    tools:     None where there are none
    silent:    numbers of answers that are not to be learnt
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None
    template: ForeignTemplate
    tokenizer: ControlEncoder
    silent: frozenset[int] = frozenset()
    now: datetime | None = None

    def prompt(self, thinking: bool | None = None) -> list[int]:
        """The ids behind which the next answer comes. Errors: DataError in the template's words"""
        variables = self._variables(len(self.messages), thinking, is_prompt=True)
        [ids] = encoded(self._apart(variables).pieces, (), self.tokenizer)
        return ids

    def rows(self) -> list[Rendered]:
        """What is learnt of the conversation; without an answer, one row without weight."""
        numbers = [
            number for number, message in enumerate(self.messages) if _is_answer(message) and number not in self.silent
        ]
        told = self._told(numbers)
        drafts: list[_Draft] = []
        for number in reversed(numbers):
            if not any(self._joins(number, told[number], draft) for draft in drafts):
                drafts.append(self._draft(number, told[number]))
        drafts = drafts or [_Draft(self._apart(self._variables(len(self.messages), None)))]
        return [self._row(draft) for draft in reversed(drafts)]

    def last_answer(self) -> Rendered:
        """The last message, an answer, behind its prompt, and nothing after its end."""
        number = len(self.messages) - 1
        rendered = self._row(self._draft(number, self._told([number])[number]))
        end = max(place for place, weight in enumerate(rendered.weights) if weight) + 1
        return Rendered(rendered.ids[:end], rendered.weights[:end], rendered.left_out)

    def following(self, number: int, thinking: bool | None = None) -> list[int]:
        """What follows the end of an answer up to where the next one begins."""
        pieces = self._apart(self._variables(len(self.messages), thinking, is_prompt=True))
        end, _ = self._end(pieces, number, 0)
        return encoded(pieces.pieces, (end,), self.tokenizer)[1]

    def text(self, thinking: bool | None = None, *, is_prompt: bool = False) -> str:
        """For reading: what somebody said may spell control tokens in it."""
        [text] = self._texts([self._variables(len(self.messages), thinking, is_prompt=is_prompt)])
        return text

    def _variables(self, count: int, thinking: bool | None, *, is_prompt: bool = False) -> dict[str, Any]:
        given = {"messages": list(self.messages[:count]), "tools": self.tools, "documents": None}
        return {**self.template.variables(thinking), **given, "add_generation_prompt": is_prompt}

    def _texts(self, inputs: Sequence[Mapping[str, Any]]) -> list[str]:
        texts = render_texts(self.template.text_for(self.tools), inputs, self.now)
        for text in texts:
            if isinstance(text, DataError):
                raise text
        return [text for text in texts if isinstance(text, str)]

    def _apart(self, variables: Mapping[str, Any]) -> TextPieces:
        [pieces] = take_apart(self.template.text_for(self.tools), [variables], self.tokenizer.control_names, self.now)
        if isinstance(pieces, DataError):
            raise pieces
        return pieces

    def _told(self, numbers: Sequence[int]) -> dict[int, "_Told"]:
        """The prompt of each answer and the text up to it, with thinking as the answer has it."""
        # An answer without thoughts is served with the template's default; where that thinks, with the switch off.
        wanted = [
            (number, thinking)
            for number in numbers
            for thinking in (
                ([True, None] if self._reasoning(number) else [None, False]) if self.template.switch else [None]
            )
        ]
        inputs = [
            self._variables(number + count, thinking, is_prompt=not count)
            for number, thinking in wanted
            for count in (0, 1)
        ]
        texts = render_texts(self.template.text_for(self.tools), inputs, self.now)
        told: dict[int, _Told] = {}
        for (number, thinking), prompt, text in zip(wanted, texts[::2], texts[1::2], strict=True):
            if isinstance(text, DataError):
                raise text
            # Some templates need a message before an answer: then it begins with its first word.
            found = _Told(thinking, None if isinstance(prompt, DataError) else prompt, text)
            reasoning = self._reasoning(number)
            told[number] = max(told.get(number, found), found, key=lambda each: each.rank(reasoning))
        return told

    def _reasoning(self, number: int) -> str:
        return str(self.messages[number].get("reasoning_content") or "").strip()

    def _joins(self, number: int, told: "_Told", draft: _Draft) -> bool:
        """Is the answer in this row as serving would have it? Then it is learnt there."""
        if told.prompt is None or not told.is_prefix or not draft.pieces.text.startswith(told.prompt):
            return False
        end, name = self._end(draft.pieces, number, len(told.prompt))
        # The token that ends it may only come with the next message.
        said = end - len(name or "")
        if said < len(told.prompt) or end == said or draft.pieces.text[:said] != told.text[:said]:
            return False
        if not draft.pieces.text[:end].startswith(told.text[:end]):
            return False
        draft.spans[number] = (len(told.prompt), end)
        return True

    def _draft(self, number: int, told: "_Told") -> _Draft:
        """A row for one answer."""
        whole = self._apart(self._variables(number + 1, told.thinking))
        pieces, start = whole, 0 if told.prompt is None else len(told.prompt)
        if told.prompt is None:
            before = whole.pieces[: self._first(number, whole)]
            start = sum(len(piece.text) for piece in before)
        elif not told.is_prefix:
            # The answer itself, behind the prompt that it would have.
            prompt = self._apart(self._variables(number, told.thinking, is_prompt=True))
            pieces = TextPieces((*prompt.pieces, *self._answer(number, whole, prompt)), whole.missing)
        end, name = self._end(pieces, number, start)
        draft = _Draft(pieces, {number: (start, end)})
        if name is None:
            draft.end = self._next_end(number, told.thinking)
        return draft

    def _answer(self, number: int, whole: TextPieces, prompt: TextPieces) -> Iterator[TextPiece]:
        """What stands in the whole from the answer's beginning on; a think block that the prompt opens is closed."""
        first = self._first(number, whole)
        header = _template_end(prompt.pieces)
        before = _template_end(whole.pieces[:first])
        place = Place(number, "reasoning")
        # The prompt has the header of the turn, or another one: what comes behind their common part is the answer's.
        rest = before[shared(header, before, self.tokenizer) :]
        if header.rstrip().endswith(THINK_OPEN) and place not in {piece.place for piece in whole.pieces}:
            yield TextPiece(str(self.messages[number].get("reasoning_content") or ""), place)
            rest = rest if THINK_CLOSE in rest else f"\n{THINK_CLOSE}\n\n{rest}"
        yield TextPiece(rest)
        yield from whole.pieces[first:]

    def _first(self, number: int, whole: TextPieces) -> int:
        """The place of the answer's first piece."""
        for place, piece in enumerate(whole.pieces):
            if piece.place is not None and piece.place.message == number:
                return place
        if self.messages[number].get("content") or self.messages[number].get("tool_calls"):
            raise DataError(f"the model's chat template leaves message {number + 1}, an answer, out")
        return len(whole.pieces)

    def _end(self, pieces: TextPieces, number: int, start: int) -> tuple[int, str | None]:
        """Where the answer ends in the text, behind the name of the token that ends it.

        Without such a token it ends with its last word, and the name is None.
        """
        offset, last, behind = 0, start, ""
        for piece in pieces.pieces:
            if piece.place is not None and piece.place.message == number:
                last, behind = offset + len(piece.text), ""
            elif piece.place is None and offset + len(piece.text) > last and not behind:
                behind = piece.text[max(last - offset, 0) :]
            offset += len(piece.text)
        ends = [found for name in self.tokenizer.end_names for found in [(behind.find(name), name)] if found[0] >= 0]
        if not ends:
            return last, None
        # Of two names that begin together the longer one is meant.
        place, name = min(ends, key=lambda found: (found[0], -len(found[1])))
        return last + place + len(name), name

    def _next_end(self, number: int, thinking: bool | None) -> str | None:
        """The token that would end the last answer if something followed."""
        after = [*self.messages[: number + 1], {"role": "user", "content": "x"}]
        chat = TemplatedChat(after, self.tools, self.template, self.tokenizer, now=self.now)
        try:
            pieces = chat._apart(chat._variables(len(after), thinking))
        except DataError:
            return _default_end(self.template, self.tokenizer)
        _, name = self._end(pieces, number, 0)
        return name or _default_end(self.template, self.tokenizer)

    def _row(self, draft: _Draft) -> Rendered:
        spans = sorted(draft.spans.values())
        cuts = [edge for span in spans for edge in span]
        parts = encoded(draft.pieces.pieces, cuts, self.tokenizer)
        ids, weights = [], []
        for number, part in enumerate(parts):
            ids += part
            weights += [float(number % 2)] * len(part)
        if draft.end is not None:
            # What follows the answer is the format's, and there is no end to learn: it takes its place.
            ids, weights = ids[: len(ids) - len(parts[-1])], weights[: len(ids) - len(parts[-1])]
            ids, weights = [*ids, self.tokenizer.control(draft.end)], [*weights, 1.0]
        shown = {piece.place for piece in draft.pieces.pieces}
        left = [place for place in draft.pieces.missing if place not in shown and place.field != "name"]
        return Rendered(ids, weights, tuple(left))


@dataclass(frozen=True)
class _Told:
    """How an answer is told: behind which prompt (None where there is none), and the text with it."""

    thinking: bool | None
    prompt: str | None
    text: str

    @property
    def is_prefix(self) -> bool:
        return self.prompt is not None and self.text.startswith(self.prompt)

    def rank(self, reasoning: str) -> int:
        """What is told best: as it was served, its reasoning shown, or else a prompt that asks for reasoning."""
        if self.is_prefix and reasoning in self.text:
            return 3
        asks = bool(reasoning) and self.prompt is not None and self.prompt.rstrip().endswith(THINK_OPEN)
        return 2 if asks else int(self.is_prefix)


def told_in(
    template: ForeignTemplate, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Messages and tools as a template takes them: OpenAI's shape, what is empty left out, calls numbered.

    Some templates add arguments to a text: they get them as JSON. Mistral's ask for ids of nine characters.
    """
    as_text = _takes_text_alone(template.text_for(tools or None))
    given: list[dict[str, Any]] = []
    num_calls = num_results = 0
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning_content:
            row["reasoning_content"] = message.reasoning_content
        calls = []
        for call in message.tool_calls:
            arguments = call.arguments_text() if as_text or call.is_broken else dict(call.arguments)
            function = {"name": call.name, "arguments": arguments}
            calls.append({"id": _call_id(num_calls), "type": "function", "function": function})
            num_calls += 1
        if message.role == "tool":
            row["tool_call_id"] = _call_id(num_results)
            num_results += 1
        given.append(row | ({"tool_calls": calls} if calls else {}))
    return given, [dict(tool) for tool in tools] or None


def _call_id(number: int) -> str:
    return f"call{number:05}"


@lru_cache(maxsize=16)
def _takes_text_alone(template: str) -> bool:
    """Does a template render a call whose arguments are text, and fail where they are an object?"""
    forms = []
    for arguments in ({"a": 1}, '{"a": 1}'):
        call = {"id": _call_id(0), "type": "function", "function": {"name": "f", "arguments": arguments}}
        asked = {"role": "user", "content": "q"}
        forms.append({"messages": [asked, {"role": "assistant", "content": "", "tool_calls": [call]}]})
    with_object, with_text = render_texts(template, forms)
    return isinstance(with_object, DataError) and isinstance(with_text, str)


def _is_answer(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "assistant"


def _template_end(pieces: Sequence[TextPiece]) -> str:
    """What the template wrote behind the last thing that somebody said."""
    return "".join(reversed([piece.text for piece in takewhile(lambda piece: piece.place is None, reversed(pieces))]))


def _default_end(template: ForeignTemplate, tokenizer: ControlEncoder) -> str | None:
    eos = template.tokens.get("eos_token")
    return eos if eos in tokenizer.control_names else next(iter(sorted(tokenizer.end_names)), None)
