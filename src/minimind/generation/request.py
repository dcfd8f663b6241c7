"""What is asked of a generator, and what it tells while it answers.

A request is ids in and ids out: `serve/ask.py` makes it from JSON, `serve/replies.py` makes messages of the events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from minimind.errors import UserError
from minimind.generation.sampling import Sampling
from minimind.text.answers import HERMES, AnswerStart, Delta
from minimind.text.template_ids import is_thinking_open
from minimind.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from minimind.generation.grammar import Guide

__all__ = ["Event", "FinishReason", "QueueFull", "Request", "TokenScore", "misfit"]

FinishReason = Literal["stop", "length", "cancelled", "error"]


class QueueFull(UserError):
    """Too much is waiting already; the same request may be accepted later."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt to continue.

    prompt:             ids, at least one
    stream:             the number of its random stream: same seed and stream, same text
    stop_ids:           ids that end it, part of no text
    answer:             where the prompt leaves a chat's answer, whose content alone is looked through for stop strings;
                        None for text, which has no parts
    barred:             ids that are never drawn
    logit_bias:         added to the scores of these ids
    presence_penalty:   taken from the score of each id that was drawn already
    frequency_penalty:  taken from it once for each time
    num_top:            alternatives to tell of each token; None tells no log-probabilities at all
    score_prompt:       tell log-probabilities of the prompt's own tokens, too
    prompt_only:        draw nothing
    guide:              the form that the answer has to have
    """

    prompt: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    stream: int = 0
    stop_ids: frozenset[int] = frozenset()
    answer: AnswerStart | None = None
    barred: frozenset[int] = frozenset()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    num_top: int | None = None
    score_prompt: bool = False
    prompt_only: bool = False
    guide: "Guide | None" = None

    @classmethod
    def for_answer(cls, prompt: Sequence[int], tokenizer: Tokenizer, *, has_tools: bool, **settings: Any) -> "Request":
        """A chat's answer behind a rendered prompt. Without tools on offer nobody can be shown the marks of a call."""
        return cls(
            prompt=prompt,
            stop_ids=tokenizer.end_ids,
            answer=AnswerStart.of(tokenizer, thinking=is_thinking_open(prompt, tokenizer)),
            barred=frozenset() if has_tools else HERMES.call_ids(tokenizer),
            **settings,
        )

    def num_tokens(self, capacity: int) -> int:
        """The most that it can come to hold, in a slot of this size."""
        return min(len(self.prompt) + self.sampling.max_tokens, capacity)


def misfit(num_prompt: int, context: int, num_answer: int = 1) -> str:
    """Why a prompt leaves no room for an answer of so many tokens; "" where there is room."""
    if num_prompt + num_answer <= context:
        return ""
    wanted = "one" if num_answer == 1 else f"{num_answer:,}"
    return (
        f"the prompt has {num_prompt:,} tokens and the context {context:,}, of which the answer needs at least "
        f"{wanted}; shorten the prompt"
    )


class TokenScore(NamedTuple):
    """An id with its log-probability under the model's own distribution, and the likeliest ids in its place.

    logprob:  None for the first token of a prompt, which nothing stands before
    """

    id: int
    logprob: float | None
    top: Sequence[tuple[int, float]]


@dataclass(slots=True)
class Event:
    """What one step did for one request.

    request:        its number
    id:             the id drawn; None when the step drew none
    logprob:        of that id, under the distribution it was drawn from
    text:           of a text, what became certain; may lag behind the ids, and never holds part of a stop string
    deltas:         the same of a chat's answer
    scores:         of the id drawn, or of the prompt's tokens in front of it
    finish_reason:  set on the last event of a request
    error:          a line for its sender, when the reason is "error"
    is_refused:     then: what was asked for cannot be done, and the server is well
    """

    request: int
    id: int | None = None
    logprob: float = 0.0
    text: str = ""
    deltas: Sequence[Delta] = ()
    scores: Sequence[TokenScore] = ()
    finish_reason: FinishReason | None = None
    error: str = ""
    is_refused: bool = False
