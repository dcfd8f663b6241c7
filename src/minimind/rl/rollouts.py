"""Prompts -> what a policy says to them: ids, with the weight of learning each, and the outcome as messages.

All prompts and all members of their groups are continued side by side, tools included: a round samples an answer for
every dialogue that is still open, in one batch. Sampled ids are appended as they are and the ids of tool results come
behind them; what was sampled is decoded, for tools and rewards, but never encoded again.
`rollout_source.py` makes batches to learn from of these.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from minimind.data.prompts import Prompt
from minimind.generation.generate import Completion
from minimind.generation.sampling import Sampling
from minimind.rl.backends import RolloutBackend
from minimind.rl.environment import Environment, RolloutDialogue
from minimind.rl.outcomes import Outcome
from minimind.rl.rewards import Rewards, Scored
from minimind.text.conversation import parse_answer_ids, render_prompt, render_tool_results
from minimind.text.tokenizer import Tokenizer

__all__ = ["Rollout", "Sampler", "is_right", "score_rollouts", "stream_number"]


@dataclass(frozen=True)
class Rollout:
    """One answer to a prompt, or one dialogue with tools.

    place:    of its prompt, in the order in which a run takes prompts
    member:   which of the prompt's group
    ids:      the whole dialogue: prompt, answers as sampled, tool results
    weights:  1 on each id that the policy sampled, the ends of its turns included, else 0
    logprobs: of each sampled id under the distribution that it was drawn from, else 0
    scored:   None until `score_rollouts`
    """

    place: int
    member: int
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    logprobs: tuple[float, ...]
    outcome: Outcome
    scored: Scored | None = None

    @property
    def num_sampled(self) -> int:
        return int(sum(self.weights))


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """What it takes to roll out prompts, but for the prompts.

    sampling:  its max_tokens are those of one answer
    context:   ids that a dialogue may have; what does not fit is cut, and a prompt without room gets no answer
    max_turns: answers in a dialogue with tools
    seed:      with a rollout's place, member and turn it decides what is drawn, whatever is sampled beside it
    """

    backend: RolloutBackend
    tokenizer: Tokenizer
    sampling: Sampling
    context: int
    environment: Environment | None = None
    max_turns: int = 1
    seed: int = 0

    def __call__(self, prompts: Sequence[Prompt], places: Sequence[int], group: int) -> list[Rollout]:
        """`group` rollouts of each prompt, prompt after prompt, not scored yet."""
        drafts = []
        for prompt, place in zip(prompts, places, strict=True):
            ids = render_prompt(prompt.messages, prompt.tools, self.tokenizer, prompt.thinking)
            drafts += [
                _Draft(RolloutDialogue(prompt, self.max_turns), place, member, list(ids)) for member in range(group)
            ]
        for draft in drafts:
            if len(draft.ids) >= self.context:
                draft.dialogue.stop()
        while alive := [draft for draft in drafts if not draft.dialogue.is_over]:
            streams = [stream_number(self.seed, draft.place, draft.member, draft.dialogue.turns) for draft in alive]
            completions = self.backend.generate([draft.ids for draft in alive], self.sampling, streams)
            for draft, completion in zip(alive, completions, strict=True):
                self._take(draft, completion)
        return [draft.rollout() for draft in drafts]

    def _take(self, draft: "_Draft", completion: Completion) -> None:
        prompt = draft.dialogue.prompt
        draft.add_sampled(completion.ids, completion.logprobs)
        answer = parse_answer_ids(completion.ids, self.tokenizer, prompt.thinking)
        # Only EOS closes a turn; after <|endoftext|>, which stops generation too, no dialogue goes on.
        finish_reason = "stop" if completion.ids[-1] == self.tokenizer.eos_id else "length"
        results = draft.dialogue.take(answer, finish_reason, len(completion.ids), self.environment)
        if not results:
            return
        following = render_tool_results([result.message for result in results], self.tokenizer, prompt.thinking)
        if len(draft.ids) + len(following) < self.context:
            draft.add_given(following)
        else:
            draft.dialogue.stop()


def score_rollouts(rollouts: Sequence[Rollout], rewards: Rewards) -> list[Rollout]:
    """The same with their scores. Errors: TrainingError when a reward fails too often."""
    scores = rewards([rollout.outcome for rollout in rollouts])
    return [replace(rollout, scored=scored) for rollout, scored in zip(rollouts, scores, strict=True)]


def is_right(scored: Scored, name: str) -> bool:
    """Did the reward of that name, such as `number`, give its full mark?"""
    return not scored.is_dropped and scored.parts.get(name, -math.inf) >= 1


def stream_number(seed: int, *place: int) -> int:
    """A number below 2**62 that names a random stream; neighbouring seeds and places have nothing in common."""
    text = " ".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


@dataclass
class _Draft:
    """A rollout under way: the dialogue as messages and as ids."""

    dialogue: RolloutDialogue
    place: int
    member: int
    ids: list[int]
    weights: list[float] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weights = [0.0] * len(self.ids)
        self.logprobs = [0.0] * len(self.ids)

    def add_sampled(self, ids: Sequence[int], logprobs: Iterable[float]) -> None:
        self.ids += ids
        self.weights += [1.0] * len(ids)
        self.logprobs += logprobs

    def add_given(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self.weights += [0.0] * len(ids)
        self.logprobs += [0.0] * len(ids)

    def rollout(self) -> Rollout:
        return Rollout(
            place=self.place,
            member=self.member,
            ids=tuple(self.ids),
            weights=tuple(self.weights),
            logprobs=tuple(self.logprobs),
            outcome=self.dialogue.outcome(),
        )
