"""Prompts -> rollouts: policy and tools take turns until every dialogue is over.

All prompts and all members of their groups are continued side by side, tools included: a round samples an answer for
every dialogue that is still open, in one batch. Sampled ids are appended as they are and the ids of tool results come
behind them; what was sampled is decoded, for tools and rewards, but never encoded again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from minimind.data.prompts import Prompt
from minimind.generation.completions import Completion
from minimind.generation.sampling import Sampling
from minimind.rl.backends import RolloutBackend
from minimind.rl.environment import Environment
from minimind.rl.rollouts import Outcome, Rollout, ToolResult
from minimind.text.conversation import Message, parse_answer_ids, render_prompt, render_tool_results
from minimind.text.template_ids import is_thinking_open
from minimind.text.tokenizer import Tokenizer

__all__ = ["RolloutSampler", "stream_number"]


@dataclass(frozen=True, kw_only=True)
class RolloutSampler:
    """Samples rollouts of prompts from a backend, with tools where there is an environment.

    sampling:  its max_tokens are those of one answer
    context:   ids that a dialogue may have; what does not fit is cut, and a prompt without room gets no answer
    max_turns: answers in a dialogue; calls in the last of them are not run
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
        dialogues = []
        for prompt, place in zip(prompts, places, strict=True):
            ids = render_prompt(prompt.messages, prompt.tools, self.tokenizer, prompt.thinking)
            for member in range(group):
                dialogue = _Dialogue(prompt, place, member)
                dialogue.add_given(ids)
                dialogue.is_over = len(ids) >= self.context
                dialogues.append(dialogue)
        while alive := [dialogue for dialogue in dialogues if not dialogue.is_over]:
            streams = [stream_number(self.seed, one.place, one.member, one.turns) for one in alive]
            completions = self.backend.generate([one.ids for one in alive], self.sampling, streams)
            for dialogue, completion in zip(alive, completions, strict=True):
                self._take(dialogue, completion)
        return [dialogue.rollout() for dialogue in dialogues]

    def _take(self, dialogue: "_Dialogue", completion: Completion) -> None:
        """Add an answer, and the results of the tools it calls; without any, the dialogue is over."""
        prompt = dialogue.prompt
        is_open = is_thinking_open(dialogue.ids, self.tokenizer)
        answer = parse_answer_ids(completion.ids, self.tokenizer, is_open)
        # Only the end of a turn closes it; after <|endoftext|>, which stops generation too, no dialogue goes on.
        is_closed = completion.ids[-1] in self.tokenizer.turn_end_ids
        dialogue.add_answer(completion, answer, "stop" if is_closed else "length")
        # A call in an answer that was cut may not be the call that was meant.
        may_call = is_closed and answer.tool_calls and dialogue.turns < self.max_turns
        results = self.environment.respond(prompt, answer) if self.environment is not None and may_call else ()
        dialogue.is_over = not results
        if not results:
            return
        dialogue.add_results(results)
        following = render_tool_results([result.message for result in results], self.tokenizer, prompt.thinking)
        if len(dialogue.ids) + len(following) < self.context:
            dialogue.add_given(following)
        else:
            dialogue.is_over, dialogue.finish_reason = True, "length"


def stream_number(seed: int, *place: int) -> int:
    """A number below 2**62 that names a random stream; neighbouring seeds and places have nothing in common."""
    text = " ".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


@dataclass
class _Dialogue:
    """A rollout under way, as ids and as messages; `finish_reason` is that of a prompt that fills the context."""

    prompt: Prompt
    place: int
    member: int
    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    turns: int = 0
    finish_reason: str = "length"
    is_over: bool = False

    def add_given(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self.weights += [0.0] * len(ids)
        self.logprobs += [0.0] * len(ids)

    def add_answer(self, completion: Completion, answer: Message, finish_reason: str) -> None:
        self.ids += completion.ids
        self.weights += [1.0] * len(completion.ids)
        self.logprobs += completion.logprobs
        self.messages.append(answer)
        self.turns += 1
        self.finish_reason = finish_reason

    def add_results(self, results: Sequence[ToolResult]) -> None:
        self.results += results
        self.messages += [result.message for result in results]

    def rollout(self) -> Rollout:
        num_tokens, results = int(sum(self.weights)), tuple(self.results)
        outcome = Outcome(self.prompt, tuple(self.messages), self.finish_reason, num_tokens, results)
        return Rollout(self.place, self.member, tuple(self.ids), tuple(self.weights), tuple(self.logprobs), outcome)
