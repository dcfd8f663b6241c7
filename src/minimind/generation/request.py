"""What is asked of the engine, and what it tells while it answers.

A request is ids in and ids out: `api.py` makes it from JSON, `answer.py` makes messages of the events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from minimind.errors import UserError
from minimind.generation.sampling import Sampling
from minimind.text.answers import Part

if TYPE_CHECKING:
    from minimind.generation.grammar import Guide

__all__ = ["Event", "FinishReason", "QueueFull", "Request", "TokenScore"]

FinishReason = Literal["stop", "length", "cancelled", "error"]


class QueueFull(UserError):
    """Too much is waiting already; the same request may be accepted later."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt to continue.

    prompt:             ids, at least one
    stream:             the number of its random stream, as in `generate.py`: same seed and stream, same text
    stop_ids:           ids that end it, part of no text
    marks:              control ids that are told as marks and not as text
    part:               what the prompt leaves open of a chat's answer, whose content alone is looked through for stop
                        strings; None for text, which has no parts
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
    marks: frozenset[int] = frozenset()
    part: Part | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    num_top: int | None = None
    score_prompt: bool = False
    prompt_only: bool = False
    guide: "Guide | None" = None

    def num_tokens(self, capacity: int) -> int:
        """The most that it can come to hold, in a slot of this size."""
        return min(len(self.prompt) + self.sampling.max_tokens, capacity)


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
    text:           what became certain; may lag behind the ids, and never holds part of a stop string
    mark:           the id, when it is one of the request's marks
    scores:         of the id drawn, or of the prompt's tokens in front of it
    finish_reason:  set on the last event of a request
    error:          a line for its sender, when the reason is "error"
    is_refused:     then: what was asked for cannot be done, and the server is well
    """

    request: int
    id: int | None = None
    text: str = ""
    mark: int | None = None
    scores: Sequence[TokenScore] = ()
    finish_reason: FinishReason | None = None
    error: str = ""
    is_refused: bool = False
