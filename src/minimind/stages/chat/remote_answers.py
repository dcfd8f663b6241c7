"""Answers of an OpenAI-compatible server, for a chat in the terminal: pieces of its stream -> pieces of an answer.

The server only writes: tools run here, those on offer alone, and only once the answer that calls them is whole.
`remote/endpoint.py` asks and reads.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

from minimind.generation.sampling import Sampling
from minimind.remote.answer_stream import StreamPiece
from minimind.remote.endpoint import Endpoint, StreamBroken
from minimind.stages.chat.dialogue import AnswerEnding
from minimind.text.answers import CutCall, Delta
from minimind.text.conversation import Conversation, ToolCall

__all__ = ["RemoteAnswerer"]

# Why an answer that is whole ends; the other reasons are told.
WHOLE = ("stop", "tool_calls", "function_call")
REASONS = {"length": "cut by --sampling.max_tokens, or by the end of the server's context"}


@dataclass(frozen=True)
class RemoteAnswerer:
    """Each turn has a seed of its own."""

    endpoint: Endpoint
    sampling: Sampling

    def answer(self, shown: Conversation, turn: int, *, thinking: bool, say: Callable[[Delta], None]) -> AnswerEnding:
        """Errors: UserError when the server cannot be asked, or refuses"""
        sampling = replace(self.sampling, seed=self.sampling.seed + turn)
        calls, reason, broken = _Calls(), "stop", ""
        try:
            with closing(self.endpoint.stream(shown.messages, shown.tools, sampling, thinking=thinking)) as choices:
                for choice in choices:
                    for delta in _texts(choice.delta):
                        say(delta)
                    calls.add(choice.delta)
                    reason = choice.finish_reason or reason
        except StreamBroken as error:
            broken = f"{error}; /retry asks again"
        is_whole = not broken and reason in WHOLE
        for delta in calls.finish(is_whole=is_whole):
            say(delta)
        return AnswerEnding(
            is_whole, broken or ("" if is_whole else REASONS.get(reason, f"ended by the server: {reason}"))
        )

    def shortage(self, shown: Conversation, *, thinking: bool) -> str:
        """Only the server knows its context; it refuses what does not fit."""
        return ""


@dataclass
class _Calls:
    """Tool calls, of which a stream brings the name first and the arguments in pieces."""

    parts: list[dict[str, str]] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)

    def add(self, piece: StreamPiece) -> None:
        for part in piece.tool_calls or ():
            index, number = part.index or 0, part.id or ""
            place = self.places.get(index)
            # Some servers send all calls whole and under one index.
            if place is None or (number and self.parts[place]["id"] not in ("", number)):
                place = self.places[index] = len(self.parts)
                self.parts.append({"id": number, "name": "", "arguments": ""})
            self.parts[place]["name"] += part.function.name or ""
            self.parts[place]["arguments"] += part.function.arguments or ""

    def finish(self, *, is_whole: bool) -> Iterator[Delta]:
        """The calls; one that cannot be read, or may lack its end, is cut: shown, and run by nobody."""
        for part in self.parts:
            try:
                call = ToolCall.parse(part) if is_whole else None
            except (ValueError, RecursionError):
                call = None
            if call is not None:
                yield Delta("call", call=call)
            else:
                cut = CutCall(part["name"], part["arguments"])
                yield Delta("call", cut=cut, hidden=f"\n{cut.name}({cut.arguments})")


def _texts(piece: StreamPiece) -> Iterator[Delta]:
    """Reasoning goes by two names, of which servers send one, or the same under both."""
    if reasoning := piece.reasoning_content or piece.reasoning:
        yield Delta("reasoning", reasoning)
    if piece.content:
        yield Delta("content", piece.content)
