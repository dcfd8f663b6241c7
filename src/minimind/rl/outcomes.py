"""What a reward is shown: how a policy answered a prompt, the tools it called on the way included.

Texts and structure only, no ids: what is trained on is the rollout's own ids, which nobody re-encodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minimind.data.prompts import Prompt
from minimind.text.conversation import Message, ToolCall

__all__ = ["Outcome", "ToolResult"]


@dataclass(frozen=True)
class ToolResult:
    """A call that was made, what the policy reads of its result, and whether it failed."""

    call: ToolCall
    text: str
    failed: bool = False

    @property
    def message(self) -> Message:
        return Message("tool", self.text)


@dataclass(frozen=True)
class Outcome:
    """A finished rollout.

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
