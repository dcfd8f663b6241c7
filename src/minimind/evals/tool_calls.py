"""Does a model call the tools that a recorded conversation called there?

Each turn of the assistant is asked for again, greedily, after what was really said and done before it, so that one
wrong call does not spoil the next turn. Calls are compared as structures, not as text: the same names, arguments that
are equal as JSON values (1 is 1.0, the order of keys is nothing, texts are trimmed), parallel calls in any order.
How to read it: chance is nothing, and the shares are nested. Well formed is an answer that calls and leaves no broken
call; it is named when the tools are the right ones, and right when their arguments are, too. A model that calls at
every turn would do well there: so beside them stand the false calls, in turns where the recording only speaks.
Source: after the "AST" comparison of Patil et al. 2025, "The Berkeley Function Calling Leaderboard", ICML.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minimind.errors import DataError
from minimind.evals.dialogues import AskedQuestion, answer_once, has_room
from minimind.evals.measured import Measured, fingerprint_of
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.text.chat_template import CALL_MARKS
from minimind.text.conversation import Conversation, Message, ToolCall
from minimind.text.tokenizer import Tokenizer

__all__ = ["PlayedTurn", "ToolCalls", "are_same_calls", "tool_calls"]


@dataclass(frozen=True)
class PlayedTurn:
    """A turn of the assistant: what stood before it, what was recorded, and what the model gave.

    fits:  did the context have room for an answer? Without it there is none.
    """

    before: tuple[Message, ...]
    recorded: Message
    got: Message
    fits: bool

    @property
    def has_broken_call(self) -> bool:
        """The parser leaves what it cannot read in the content."""
        return CALL_MARKS[0] in self.got.content

    @property
    def is_well_formed(self) -> bool:
        return bool(self.got.tool_calls) and not self.has_broken_call

    @property
    def is_named(self) -> bool:
        names = (sorted(call.name for call in message.tool_calls) for message in (self.recorded, self.got))
        return self.is_well_formed and next(names) == next(names)

    @property
    def is_right(self) -> bool:
        return self.is_well_formed and are_same_calls(self.recorded.tool_calls, self.got.tool_calls)

    @property
    def tries_to_call(self) -> bool:
        return bool(self.got.tool_calls) or self.has_broken_call


@dataclass(frozen=True)
class ToolCalls:
    """All turns, in the order of the conversations."""

    turns: Sequence[PlayedTurn]

    @property
    def calling(self) -> list[PlayedTurn]:
        """The turns that were recorded with calls."""
        return [turn for turn in self.turns if turn.recorded.tool_calls]

    @property
    def by_level(self) -> dict[str, Measured]:
        """The shares of the turns that should call; one that does not fit the context is not right."""
        turns = self.calling
        mark = _fingerprint(turns)
        return {
            "well formed": Measured.share((turn.is_well_formed for turn in turns), mark),
            "named": Measured.share((turn.is_named for turn in turns), mark),
            "right": Measured.share((turn.is_right for turn in turns), mark),
        }

    @property
    def false_calls(self) -> Measured | None:
        """The share of the turns that should only speak, and fit; None where there are none."""
        turns = [turn for turn in self.turns if turn.fits and not turn.recorded.tool_calls]
        return Measured.share((turn.tries_to_call for turn in turns), _fingerprint(turns)) if turns else None

    @property
    def num_too_long(self) -> int:
        return sum(not turn.fits for turn in self.turns)


def tool_calls(
    model: Transformer,
    tokenizer: Tokenizer,
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    max_tokens: int = 256,
    batch_size: int = 32,
) -> ToolCalls:
    """Play conversations with tools again, each with the `path:line` it came from.

    max_tokens:  of each answer
    Errors:      DataError naming a row without tools or without an answer; where no row calls a tool
    """
    turns = [turn for where, row in rows for turn in _turns(where, row)]
    if not any(recorded.tool_calls for _, recorded in turns):
        raise DataError(
            f"none of {len(turns)} recorded answers calls a tool; expected tool_calls on messages of the assistant"
        )
    fits = [has_room(model, tokenizer, dialogue) for dialogue, _ in turns]
    asked = [dialogue for (dialogue, _), has_place in zip(turns, fits, strict=True) if has_place]
    answer_once(model, tokenizer, asked, Sampling(temperature=0, max_tokens=max_tokens), batch_size=batch_size)
    return ToolCalls(
        [
            PlayedTurn(tuple(dialogue.messages), recorded, dialogue.answer, has_place)
            for (dialogue, recorded), has_place in zip(turns, fits, strict=True)
        ]
    )


def are_same_calls(recorded: Sequence[ToolCall], got: Sequence[ToolCall]) -> bool:
    """Is each call of the one among the other, and none left over?"""
    left = list(got)
    for call in recorded:
        place = next((n for n, other in enumerate(left) if _is_same_call(call, other)), None)
        if place is None:
            return False
        del left[place]
    return not left


def _is_same_call(one: ToolCall, other: ToolCall) -> bool:
    return one.name == other.name and _is_equal(one.arguments, other.arguments)


def _is_equal(one: Any, other: Any) -> bool:
    """As JSON values. It goes no deeper than the shallower of the two, however deep a model nests."""
    # To Python True is 1, and to nobody else.
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, str) and isinstance(other, str):
        return one.strip() == other.strip()
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    return one == other


def _turns(where: str, row: Mapping[str, Any]) -> list[tuple[AskedQuestion, Message]]:
    """Each answer of a conversation with what stands before it."""
    conversation = Conversation.parse(row, where)
    if not conversation.tools:
        raise DataError(f"{where}: offers no tools; expected tools beside the messages, or on the system message")
    turns = []
    for number, message in enumerate(conversation.messages):
        if message.role != "assistant":
            continue
        if not message.content.strip() and not message.tool_calls:
            raise DataError(f"{where}: message {number + 1} says nothing and calls nothing; expected a recorded answer")
        before = list(conversation.messages[:number])
        turns.append((AskedQuestion(before, conversation.tools, bool(message.reasoning_content)), message))
    if not turns:
        raise DataError(f"{where}: has no message of the assistant; expected recorded answers")
    return turns


def _fingerprint(turns: Iterable[PlayedTurn]) -> str:
    return fingerprint_of(
        json.dumps([message.to_dict() for message in (*turn.before, turn.recorded)]) for turn in turns
    )
