"""The one reader of answers: what a model writes, as it comes -> reasoning, content and tool calls.

Chats, servers, evaluations and rollouts all read with an `AnswerReader`; whoever wants the whole joins its pieces.
What is a mark is told by the ids, so that an answer may mention `<tool_call>` in words. Each piece of text is looked at
once. The newlines around reasoning and before a call belong to the format and are dropped, as `messages.Message` does:
at the end of a piece they are held back until it is clear what follows.

Families of models mark up their answers differently. What differs is an `AnswerFormat`, and the reader knows no other:
a further family is a further record.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from minimind.text.chat_template import CALL_MARKS, THINK_MARKS
from minimind.text.messages import Message, ToolCall
from minimind.text.tokenizer import Tokenizer

__all__ = ["HERMES", "AnswerFormat", "AnswerPart", "AnswerReader", "AnswerStart", "CutCall", "Delta", "join"]

AnswerPart = Literal["reasoning", "content", "call"]


class CutCall(NamedTuple):
    """A call that an answer ends in: its name, and its arguments (JSON) as far as they were written."""

    name: str
    arguments: str


@dataclass(frozen=True)
class AnswerFormat:
    """How a family of models marks up its answers.

    think:       the control tokens around reasoning
    call:        those around a tool call; the second is "" where the end of the answer closes it
    read_calls:  what stands between the two -> the calls. Errors: ValueError, RecursionError
    cut_call:    the beginning of that -> what is known of the call; None before its name is whole
    """

    think: tuple[str, str]
    call: tuple[str, str]
    read_calls: Callable[[str], Sequence[ToolCall]]
    cut_call: Callable[[str], CutCall | None]

    def marks(self, tokenizer: Tokenizer) -> dict[int, str]:
        """The ids that structure an answer, by their names; a vocabulary may lack some."""
        names = (*self.think, *self.call)
        return {tokenizer.control(name): name for name in names if name in tokenizer.control_names}

    def call_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """The ids that no answer needs where no tools are on offer."""
        return frozenset(index for index, name in self.marks(tokenizer).items() if name in self.call)


def _read_hermes_calls(body: str) -> Sequence[ToolCall]:
    return (ToolCall.parse(body),)


def _cut_hermes_call(body: str) -> CutCall | None:
    # All that is missing may be the mark behind it.
    try:
        call = ToolCall.parse(body)
        return CutCall(call.name, json.dumps(call.arguments, ensure_ascii=False))
    except (ValueError, RecursionError):
        begun = re.match(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)+")(?:\s*,\s*"arguments"\s*:\s*)?', body)
    if begun is None:
        return None
    is_at_arguments = begun[0].rstrip().endswith(":")
    return CutCall(json.loads(begun[1]), body[begun.end() :] if is_at_arguments else "")


# `<think>` and `<tool_call>{"name": ..., "arguments": ...}</tool_call>`: Qwen's and this project's own models.
HERMES = AnswerFormat(THINK_MARKS, CALL_MARKS, _read_hermes_calls, _cut_hermes_call)


@dataclass(frozen=True)
class AnswerStart:
    """Where a prompt leaves an answer: in its content, in an open think block, or in a call.

    marks:    the ids that structure it, by their names
    opened:   what the prompt wrote of the call
    is_begun: the prompt wrote some of the part, so that newlines are the model's own
    """

    marks: Mapping[int, str]
    part: AnswerPart = "content"
    opened: str = ""
    format: AnswerFormat = HERMES
    is_begun: bool = False

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, thinking: bool = False, opened: str = "") -> "AnswerStart":
        part = "call" if opened else "reasoning" if thinking else "content"
        return cls(HERMES.marks(tokenizer), part, opened)


class Delta(NamedTuple):
    """A piece of an answer. (A tuple, for a long answer has thousands.)

    part:   where it stands
    text:   what its reader is shown; empty for a call
    call:   a whole tool call
    cut:    a call that the answer ends in, where its name is known
    hidden: what was written and is not shown: a mark in the wrong place, or all of a call that is cut
    """

    part: AnswerPart
    text: str = ""
    call: ToolCall | None = None
    cut: CutCall | None = None
    hidden: str = ""


def join(deltas: Iterable[Delta]) -> Message:
    """The message that pieces make. What was hidden stands in it as it was written: nothing that was said is lost."""
    texts: dict[str, list[str]] = {"content": [], "reasoning": []}
    calls = []
    for delta in deltas:
        texts["reasoning" if delta.part == "reasoning" else "content"].append(delta.text + delta.hidden)
        calls += [] if delta.call is None else [delta.call]
    return Message("assistant", "".join(texts["content"]), "".join(texts["reasoning"]), tuple(calls))


class AnswerReader:
    """Reads one answer.

    part:  where it is
    """

    def __init__(self, start: AnswerStart) -> None:
        self._format = start.format
        self.part: AnswerPart = start.part
        self._is_start = not start.is_begun
        self._is_opened = start.part == "reasoning"
        self._has_content = start.is_begun and start.part == "content"
        self._newlines = 0
        # Of a call: the newline that would be the content's if it is none, and what was written since the mark.
        self._before = ""
        self._body = [start.opened]

    def push(self, text: str, mark: str = "") -> Iterator[Delta]:
        """The pieces that a piece of text completes, and a mark behind it."""
        if text:
            yield from self._take(text)
        if mark:
            yield from self._turn(mark)

    def finish(self) -> Iterator[Delta]:
        """What was held back."""
        if self.part == "call":
            yield from self._close_call() if not self._format.call[1] else self._cut_call()
        elif self.part == "content" and self._newlines and not self._is_start:
            yield Delta("content", "\n" * self._newlines)
            self._newlines = 0

    def _take(self, text: str) -> Iterator[Delta]:
        if self.part == "call":
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
        self._has_content = self._has_content or self.part == "content"
        yield Delta(self.part, "\n" * self._newlines + kept)
        self._newlines = trailing

    def _turn(self, mark: str) -> Iterator[Delta]:
        """What a mark ends, and what begins."""
        (open_think, close_think), (open_call, close_call) = self._format.think, self._format.call
        if self.part == "call" and mark == close_call:
            yield from self._close_call()
        elif self.part == "call" and mark == open_call:
            yield from self._give_up("")
            self._open_call()
        elif self.part == "call":
            self._body.append(mark)
        elif self.part == "reasoning" and mark == close_think:
            self._begin("content")
        elif self.part == "content" and mark == open_call:
            # The newline before a call is the format's, others are the model's.
            if self._newlines > 1 and not self._is_start:
                yield Delta("content", "\n" * (self._newlines - 1))
            self._open_call()
        elif self.part == "content" and mark == open_think and self._is_start and not self._has_content:
            self._begin("reasoning")
        elif self._is_opened and mark == open_think and self._is_start:
            # Some models open the block that their prompt has opened.
            self._is_opened = False
        else:
            yield from self._stray(mark)

    def _stray(self, mark: str) -> Iterator[Delta]:
        """A mark where none belongs: nobody is to read markup."""
        newlines, self._newlines = "" if self._is_start else "\n" * self._newlines, 0
        yield Delta(self.part, newlines, hidden=mark)

    def _open_call(self) -> None:
        before = "\n" if self._newlines and not self._is_start else ""
        self._begin("call")
        self._before = before

    def _close_call(self) -> Iterator[Delta]:
        try:
            calls = self._format.read_calls("".join(self._body))
        except (ValueError, RecursionError):
            yield from self._give_up(self._format.call[1])
            return
        self._begin("content")
        # A newline behind a call is the next one's; before more words, it is theirs.
        self._is_start = not self._has_content
        for call in calls:
            yield Delta("call", call=call)

    def _give_up(self, close: str) -> Iterator[Delta]:
        """A call that cannot be read is content, as it was written."""
        text = f"{self._before}{self._format.call[0]}{''.join(self._body)}{close}"
        self._begin("content")
        self._is_start, self._has_content = False, True
        yield Delta("content", text)

    def _cut_call(self) -> Iterator[Delta]:
        body = "".join(self._body)
        self.part = "content"
        yield Delta("call", cut=self._format.cut_call(body), hidden=f"{self._before}{self._format.call[0]}{body}")

    def _begin(self, part: AnswerPart) -> None:
        self.part, self._is_start, self._is_opened, self._newlines = part, True, False, 0
        self._body, self._before = [], ""
