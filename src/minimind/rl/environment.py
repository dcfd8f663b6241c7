"""The other side of a conversation in agent training: tools that answer a policy's calls.

Whatever a tool does, the policy reads a bounded text: a call that raises, hangs or prints a megabyte is a result like
any other. Results are encoded as ordinary text (`conversation.render_tool_results`), so control tokens that they spell
forge nothing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from minimind.data.prompts import Prompt
from minimind.errors import DataError
from minimind.rl.rollouts import ToolResult
from minimind.rl.time_limit import CallResult, call_in_time
from minimind.text.conversation import Message, ToolCall
from minimind.tools.builtin import run_tool
from minimind.tools.tool import Tool, offered_names

__all__ = ["Environment", "ToolEnvironment"]


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
                [called] = call_in_time(partial(_run, offered), [call], self.timeout_seconds)
                text, failed = called.value if called.error is None and not called.timed_out else self._broken(called)
            else:
                text, failed = _error(f"one answer may make at most {self.max_calls} calls"), True
            results.append(ToolResult(call, self._bounded(text), failed))
        return results

    def _broken(self, called: CallResult) -> tuple[str, bool]:
        if called.timed_out:
            return _error(f"the tool did not answer within {self.timeout_seconds:g} seconds"), True
        return _error(f"the tool failed: {type(called.error).__name__}"), True

    def _bounded(self, text: str) -> str:
        # Half of a surrogate pair is no character, and no tokenizer takes it.
        text = text[: self.max_characters + 1].encode(errors="replace").decode()
        return text if len(text) <= self.max_characters else f"{text[:-1]}... (cut)"


def _run(tools: Mapping[str, Tool], call: ToolCall) -> tuple[str, bool]:
    text = run_tool(call.name, call.arguments, tools)
    return text, "error" in json.loads(text)


def _error(why: str) -> str:
    return json.dumps({"error": why}, ensure_ascii=False)
