"""What a policy did with a prompt: the ids it sampled to learn from, what a reward is shown of them, and its score.

A reward sees texts and structure, no ids; what is trained on is the rollout's own ids, which nobody encodes again.
`sampler.py` makes rollouts, `rewards.py` scores them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minimind.data.prompts import Prompt
from minimind.objectives.policy import PolicyLoss
from minimind.text.conversation import Message, ToolCall

__all__ = ["Outcome", "Rollout", "RolloutSettings", "Score", "ToolResult"]


@dataclass(frozen=True)
class ToolResult:
    """A tool call that was made, what the policy reads of its result, and whether it failed."""

    call: ToolCall
    text: str
    failed: bool = False

    @property
    def message(self) -> Message:
        return Message("tool", self.text)


@dataclass(frozen=True)
class Outcome:
    """What a reward is shown: how a policy answered a prompt, the tools it called on the way included.

    messages:       what the policy and the tools said after the prompt, in order
    finish_reason:  "stop" if the last answer ended with EOS, "length" if it was cut
    num_tokens:     that the policy sampled, in all its turns
    tool_results:   of the calls that were made, in order
    """

    prompt: Prompt
    messages: tuple[Message, ...]
    finish_reason: str
    num_tokens: int
    tool_results: tuple[ToolResult, ...] = ()

    @property
    def answer(self) -> Message:
        """The last thing that the policy said; nothing, as a message, if it never came to speak."""
        said = self.said
        return said[-1] if said else Message("assistant")

    @property
    def said(self) -> Sequence[Message]:
        """The policy's own messages, in order."""
        return [message for message in self.messages if message.role == "assistant"]

    def to_dict(self) -> dict[str, Any]:
        """JSON for an HTTP reward: the whole conversation in OpenAI's shape, the final text and what is expected."""
        messages = [message.to_dict() for message in (*self.prompt.messages, *self.messages)]
        return {"messages": messages, "answer": self.answer.content, "gt": list(self.prompt.gt)}


@dataclass(frozen=True)
class Score:
    """The weighted sum of an outcome's rewards, or the reason why there is none.

    total:    NaN when a reward failed, so that nobody can take it for a score
    parts:    each reward by name, without its weight; those that were computed although another failed included
    failure:  "" or reward_raised, reward_timed_out, reward_not_finite
    detail:   the failure in words, with the reward and the prompt's place
    """

    total: float
    parts: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    detail: str = ""

    @property
    def is_right(self) -> bool:
        """Did the first reward give its full mark?"""
        return not self.failure and next(iter(self.parts.values())) >= 1


@dataclass(frozen=True)
class Rollout:
    """One answer to a prompt, or one dialogue with tools, as ids.

    place:    of its prompt, in the order in which a run takes prompts
    member:   which of the prompt's group
    ids:      the whole dialogue: prompt, answers as sampled, tool results
    weights:  1 on each id that the policy sampled, the ends of its turns included, else 0
    logprobs: of each sampled id under the distribution that it was drawn from, else 0
    scored:   None until it has a score
    """

    place: int
    member: int
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    logprobs: tuple[float, ...]
    outcome: Outcome
    scored: Score | None = None

    @property
    def num_sampled(self) -> int:
        return int(sum(self.weights))

    @property
    def score(self) -> Score:
        assert self.scored is not None, "this rollout has no score yet"
        return self.scored


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How rollouts are taken, compared and weighed.

    loss:              decides advantages, weights and divisor
    prompts_per_step:  of all ranks together
    group:             rollouts of a prompt
    max_tokens:        that a rollout may sample, in all its turns
    updates:           steps that learn from one set of rollouts
    accumulate:        micro-batches that each rank cuts its rollouts into
    seed:              of the order of prompts; what is drawn for them is the sampler's
    drop_unfinished:   leave out answers that were cut at max_tokens, as DAPO does, instead of scoring them as they are
    kl_limit:          a step whose approx_kl passes it makes no update, and the next one samples anew; 0 never
    """

    loss: PolicyLoss
    prompts_per_step: int
    group: int
    max_tokens: int
    updates: int = 1
    accumulate: int = 1
    seed: int = 0
    drop_unfinished: bool = False
    kl_limit: float = 0.0
