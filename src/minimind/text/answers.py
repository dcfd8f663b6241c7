"""Events of a chat's answer as they come -> reasoning, content and tool calls, the same whether streamed or whole.

What is a tag is told by the ids (the marks), so that an answer may mention `<tool_call>` in words. Each piece of
text is looked at once. The newlines around reasoning and before a call belong to the format and are dropped, as
`messages.Message` does: at the end of a piece they are held back until it is clear what follows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from minimind.text.chat_template import CALL_MARKS, THINK_MARKS
from minimind.text.messages import Message, ToolCall
from minimind.text.tokenizer import Tokenizer

__all__ = ["AnswerReader", "Delta", "Part", "answer_marks", "join", "part_behind"]

# Of a chat's answer.
Part = Literal["reasoning", "content", "call"]


@dataclass(frozen=True)
class Delta:
    """A piece of an answer: text of one kind, or a whole tool call."""

    kind: Part
    text: str = ""
    call: ToolCall | None = None


def join(deltas: Iterable[Delta]) -> Message:
    """The message that pieces make."""
    deltas = list(deltas)
    texts = {kind: "".join(delta.text for delta in deltas if delta.kind == kind) for kind in ("content", "reasoning")}
    calls = tuple(delta.call for delta in deltas if delta.call is not None)
    return Message("assistant", texts["content"], texts["reasoning"], calls)


def answer_marks(tokenizer: Tokenizer, *, tools: bool) -> dict[int, str]:
    """The control ids that structure an answer, by their names; those of calls only where tools are on offer."""
    names = (*THINK_MARKS, *(CALL_MARKS if tools else ()))
    return {tokenizer.control(name): name for name in names if name in tokenizer.control_names}


def part_behind(part: Part, mark: str, *, is_start: bool) -> Part:
    """The part that a mark leads to; the same one where the mark means nothing.

    is_start:  the part holds nothing yet but newlines
    """
    if part != "content":
        closing = CALL_MARKS[1] if part == "call" else THINK_MARKS[1]
        return "content" if mark == closing else part
    if mark == CALL_MARKS[0]:
        return "call"
    return "reasoning" if mark == THINK_MARKS[0] and is_start else "content"


class AnswerReader:
    """Reads one answer.

    marks:    as `answer_marks` gives them
    thinking: the prompt left the think block open
    """

    def __init__(self, marks: dict[int, str], *, thinking: bool = False) -> None:
        self._marks = marks
        self._part: Part = "reasoning" if thinking else "content"
        self._is_start = True
        self._newlines = 0
        self._body: list[str] = []
        self.num_calls = 0

    def push(self, text: str, mark: int | None = None) -> Iterator[Delta]:
        """The pieces that a piece of text completes, and a mark behind it."""
        if text:
            yield from self._take(text)
        if mark is not None:
            yield from self._turn(self._marks[mark])

    def take(self, text: str, *marks: str) -> Iterator[Delta]:
        """What a prompt wrote of the answer: marks, then text."""
        for mark in marks:
            yield from self._turn(mark)
        yield from self._take(text)

    def finish(self) -> Iterator[Delta]:
        """What was held back: a call that was never closed is content as it was written."""
        if self._part == "call":
            yield from self._give_up("")
        elif self._part == "content" and self._newlines and not self._is_start:
            yield Delta("content", "\n" * self._newlines)
            self._newlines = 0

    def _take(self, text: str) -> Iterator[Delta]:
        if self._part == "call":
            self._body.append(text)
            return
        if self._is_start:
            text = text.lstrip("\n")
        kept = text.rstrip("\n")
        trailing = len(text) - len(kept)
        if not kept:
            self._newlines += trailing
            return
        self._is_start = False
        yield Delta(self._part, "\n" * self._newlines + kept)
        self._newlines = trailing

    def _turn(self, mark: str) -> Iterator[Delta]:
        """A tag: what it ends, and what begins."""
        part = part_behind(self._part, mark, is_start=self._is_start)
        if part == self._part:
            # Marks of calls in the wrong place are text, and within a call all marks are.
            if part == "call" or mark not in THINK_MARKS:
                yield from self._take(mark)
        elif self._part == "call":
            yield from self._close_call()
        else:
            # The newline before a call is the format's, others are the model's.
            if part == "call" and self._newlines > 1 and not self._is_start:
                yield Delta("content", "\n" * (self._newlines - 1))
            self._begin(part)

    def _close_call(self) -> Iterator[Delta]:
        try:
            call = ToolCall.parse("".join(self._body))
        except (ValueError, RecursionError):
            yield from self._give_up(CALL_MARKS[1])
            return
        self.num_calls += 1
        self._begin("content")
        yield Delta("call", call=call)

    def _give_up(self, close: str) -> Iterator[Delta]:
        text = CALL_MARKS[0] + "".join(self._body) + close
        self._begin("content")
        self._is_start = False
        yield Delta("content", text)

    def _begin(self, part: Part) -> None:
        self._part, self._is_start, self._newlines = part, True, 0
        self._body = []
