"""Which answers of a conversation are learnt: not an empty one, not what data flags off, and only the last if asked."""

from collections import Counter
from dataclasses import replace
from typing import Literal

from minimind.text.messages import Conversation, Message

__all__ = ["Learn", "reason_not_to_learn", "says_something", "with_weights"]

Learn = Literal["all", "last"]


def with_weights(conversation: Conversation, learn: Learn) -> tuple[Conversation, Counter[str]]:
    """The conversation with weight 0 on every answer that is not to be learnt, and why, counted."""
    last = max((n for n, message in enumerate(conversation.messages) if message.role == "assistant"), default=-1)
    reasons: Counter[str] = Counter()
    messages = []
    for number, message in enumerate(conversation.messages):
        reason = _reason(message, learn == "last" and number != last) if message.role == "assistant" else ""
        if reason:
            reasons[reason] += 1
            message = replace(message, weight=0)
        messages.append(message)
    return (replace(conversation, messages=tuple(messages)) if reasons else conversation), reasons


def reason_not_to_learn(conversation: Conversation) -> str:
    """Why nothing of it is learnt, or ""."""
    answers = [message for message in conversation.messages if message.role == "assistant"]
    if not any(map(says_something, answers)):
        return "no_answer"
    return "" if any(message.weight for message in answers) else "not_to_be_learnt"


def says_something(message: Message) -> bool:
    """An empty answer has the weight of its end, and would teach silence."""
    return bool(message.content.strip() or message.reasoning_content.strip() or message.tool_calls)


def _reason(message: Message, is_earlier: bool) -> str:
    if not says_something(message):
        return "empty answers"
    if not message.weight:
        return "answers flagged off or given as context"
    return "answers before the last" if is_earlier else ""
