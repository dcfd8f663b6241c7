"""The other side of a conversation in agent training: tools that answer a policy's calls, and whose turn it is.

Whatever a tool does, the policy reads a bounded text: a call that raises, hangs or prints a megabyte is a result like
any other. Results are encoded as ordinary text (`conversation.render_tool_results`), so control tokens that they spell
forge nothing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from minimind.data.prompts import Prompt
from minimind.errors import DataError
from minimind.rl.outcomes import Outcome, ToolResult
from minimind.rl.time_limit import CallEnding, call_in_time
from minimind.text.conversation import Message, ToolCall
from minimind.tools.builtin import run_tool
from minimind.tools.tool import Tool, offered_names

__all__ = ["Environment", "RolloutDialogue", "ToolEnvironment"]


class Environment(Protocol):
    """Whoever answers tool calls."""

    def respond(self, prompt: Prompt, answer: Message) -> Sequence[ToolResult]:
        """One result for each of `answer.tool_calls`, in order; never an exception."""
        ...


@dataclass(frozen=True)
class ToolEnvironment:
    """Runs the tools that a prompt offers, as far as they are here; a call of any other is an error that says so.

    tools:            by name, such as `{"calculate_math": TOOLS["calculate_math"]}`
    max_characters:   of a result; a longer one is cut and says so
    max_calls:        that one answer may make; the others get an error
    timeout_seconds:  for each call, see `time_limit.py`
    """

    tools: Mapping[str, Tool]
    max_characters: int = 2000
    max_calls: int = 8
    timeout_seconds: float = 5.0

    def check(self, prompts: Iterable[Prompt]) -> None:
        """Refuse prompts that offer a tool which nobody runs, before anything is sampled. Errors: DataError"""
        for prompt in prompts:
            for name in offered_names(prompt.tools):
                if name not in self.tools:
                    known = ", ".join(self.tools) or "none"
                    raise DataError(f"{prompt.where}: offers the tool {name!r}, which is not enabled; enabled: {known}")

    def respond(self, prompt: Prompt, answer: Message) -> list[ToolResult]:
        offered = {name: self.tools[name] for name in offered_names(prompt.tools) if name in self.tools}
        results = []
        for place, call in enumerate(answer.tool_calls):
            if place < self.max_calls:
                [ending] = call_in_time(partial(_run, offered), [call], self.timeout_seconds)
                text, failed = ending.value if ending.error is None and not ending.timed_out else self._broken(ending)
            else:
                text, failed = _error(f"one answer may make at most {self.max_calls} calls"), True
            results.append(ToolResult(call, self._bounded(text), failed))
        return results

    def _broken(self, ending: CallEnding) -> tuple[str, bool]:
        if ending.timed_out:
            return _error(f"the tool did not answer within {self.timeout_seconds:g} seconds"), True
        return _error(f"the tool failed: {type(ending.error).__name__}"), True

    def _bounded(self, text: str) -> str:
        # Half of a surrogate pair is no character, and no tokenizer takes it.
        text = text[: self.max_characters + 1].encode(errors="replace").decode()
        return text if len(text) <= self.max_characters else f"{text[:-1]}... (cut)"


def _run(tools: Mapping[str, Tool], call: ToolCall) -> tuple[str, bool]:
    text = run_tool(call.name, call.arguments, tools)
    return text, "error" in json.loads(text)


def _error(why: str) -> str:
    return json.dumps({"error": why}, ensure_ascii=False)


@dataclass
class RolloutDialogue:
    """A rollout under way, as messages; the ids are its owner's.

        dialogue = RolloutDialogue(prompt, max_turns=3)
        while not dialogue.is_over:
            ...sample an answer...
            results = dialogue.take(answer, finish_reason, num_tokens, environment)
            ...append `render_tool_results([r.message for r in results], ...)` if there are results...
        outcome = dialogue.outcome()

    max_turns:  answers that the policy may give; calls in the last of them are not run
    """

    prompt: Prompt
    max_turns: int = 1
    messages: list[Message] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    turns: int = 0
    num_tokens: int = 0
    finish_reason: str = ""
    is_over: bool = False

    def take(
        self, answer: Message, finish_reason: str, num_tokens: int, environment: Environment | None = None
    ) -> Sequence[ToolResult]:
        """Add an answer, and run the tools it calls if it is whole and not the last one; their results.

        num_tokens:  that were sampled for this answer
        No results means that the dialogue is over.
        """
        assert not self.is_over, "the dialogue is over"
        self.messages.append(answer)
        self.turns += 1
        self.num_tokens += num_tokens
        self.finish_reason = finish_reason
        # A call in an answer that was cut may not be the call that was meant.
        goes_on = finish_reason == "stop" and answer.tool_calls and self.turns < self.max_turns
        results = environment.respond(self.prompt, answer) if environment is not None and goes_on else ()
        self.results += results
        self.messages += [result.message for result in results]
        self.is_over = not results
        return results

    def stop(self, finish_reason: str = "length") -> None:
        """End it from outside: there is no room for another answer."""
        self.finish_reason = finish_reason
        self.is_over = True

    def outcome(self) -> Outcome:
        return Outcome(self.prompt, tuple(self.messages), self.finish_reason, self.num_tokens, tuple(self.results))
