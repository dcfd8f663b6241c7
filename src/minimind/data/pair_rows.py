"""A row with two answers -> two conversations, whatever shape the row has (`text/shapes.py`).

    TRL, argilla    {"chosen", "rejected"}: messages with their prompt, or answers to "prompt"
    Intel, argilla  {"question" or "instruction" or "input", "system"?, "chosen", "rejected"}
    HH-RLHF         {"chosen", "rejected"}: dialogues in one text, whose last answers are compared
    LLaMA-Factory   {"conversations": the prompt, "chosen": a message, "rejected": a message}
    OpenAI          {"input": {"messages"}, "preferred_output", "non_preferred_output"}
    ms-swift        {"messages", "rejected_response" or "rejected_messages"}

There is never a pair without what was asked.
"""

from collections.abc import Mapping
from typing import Any

from minimind.data.corpus import OTHERS
from minimind.errors import DataError
from minimind.text.conversation import Conversation
from minimind.text.messages import ROLES
from minimind.text.rows import from_json, is_message, said_in
from minimind.text.shapes import INPUTS, MESSAGE_LISTS, PROMPTS, SYSTEMS, find_shape, shape_of

__all__ = ["pair_of_conversations"]

# The prompt, then the side that is liked and the other one, each as it stands.
Parts = tuple[list[Any], Any, Any]


def pair_of_conversations(row: Mapping[str, Any]) -> tuple[Conversation, Conversation]:
    """Chosen and rejected, each with its prompt before it. Errors: DataError without the place of the row"""
    prompt, chosen, rejected = _parts(row)
    kept = {name: row[name] for name in ("tools", "functions", *SYSTEMS) if row.get(name)}
    if "preferred_output" in row and isinstance(row["input"], Mapping):
        kept |= {name: row["input"][name] for name in ("tools", "functions") if row["input"].get(name)}
    return _conversation("chosen", prompt, chosen, kept), _conversation("rejected", prompt, rejected, kept)


def _parts(row: Mapping[str, Any]) -> Parts:
    shape = find_shape(row, "pair")
    whole = shape_of(row)
    if shape is None or (whole is not None and whole.kind == "judged"):
        if whole is not None and whole.kind == "judged":
            raise DataError(f"has {OTHERS['judged']}")
        missing = next((name for name in ("chosen", "rejected") if name not in row), "chosen")
        keys = ", ".join(map(repr, list(row)[:10])) or "none"
        raise DataError(f"has no {missing!r}; expected 'chosen' and 'rejected', got the keys {keys}")
    match shape.needs:
        case ("input", *_):
            return _openai(row)
        case ("chosen", *_):
            return _prompt(row), row["chosen"], row["rejected"]
        case ("chosen_response", *_):
            return _prompt(row), row["chosen_response"], row["rejected_response"]
        case ("rejected_messages",):
            return _listed(row)[:-1], _listed(row), row["rejected_messages"]
    *prompt, answer = _listed(row)
    return prompt, answer, row["rejected_response"]


def _openai(row: Mapping[str, Any]) -> Parts:
    asked = row["input"]
    messages = asked.get("messages") if isinstance(asked, Mapping) else asked
    if not isinstance(messages, list):
        raise DataError("has an input without messages; expected OpenAI's {'messages': [...]}")
    return messages, row["preferred_output"], row["non_preferred_output"]


def _listed(row: Mapping[str, Any]) -> list[Any]:
    """The list of messages of a row; empty where there is none."""
    found = next((row[name] for name in MESSAGE_LISTS if row.get(name)), [])
    try:
        found = from_json(found)
    except ValueError:
        found = []
    return found if isinstance(found, list) else []


def _prompt(row: Mapping[str, Any]) -> list[Any]:
    """What was asked, from wherever it stands: `prompt`, messages that end with a question, or columns of text."""
    if "prompt" in row and not isinstance(row["prompt"], str):
        return said_in(row["prompt"], "user")
    listed = _listed(row)
    if "prompt" not in row and listed and not (is_message(listed[-1]) and _role(listed[-1]) == "assistant"):
        return listed
    asked = next((row[name] for name in PROMPTS if row.get(name)), "")
    texts = [text for text in (asked, *(row.get(name) for name in INPUTS)) if text]
    if not all(isinstance(text, str) for text in texts):
        raise DataError("has a prompt that is neither text nor messages")
    question = said_in("\n".join(texts), "user") if texts else []
    turns = [turn for turn in row.get("history") or [] if isinstance(turn, list | tuple) and len(turn) == 2]
    roles = ("user", "assistant")
    before = [{"role": role, "content": said} for turn in turns for role, said in zip(roles, turn, strict=True)]
    return [*before, *question]


def _role(message: Mapping[str, Any]) -> str | None:
    return ROLES.get(str(message.get("role", message.get("from"))).lower())


def _conversation(name: str, prompt: list[Any], value: Any, kept: Mapping[str, Any]) -> Conversation:
    side = (said_in(value, "assistant") if value else []) if isinstance(value, str) else value
    side = side if isinstance(side, list) else [side]
    # Some sets repeat the prompt in front of each answer, although they have it in a column of its own.
    is_answer = not side or (is_message(side[0]) and _role(side[0]) == "assistant")
    messages = [*prompt, *side] if is_answer else side
    found = Conversation.parse({"messages": messages or [{}], **kept}, name)
    roles = [message.role for message in found.messages]
    if len(roles) < 2 or roles[-1] != "assistant":
        raise DataError(
            f"{name} has the roles {', '.join(roles)}; expected a prompt and an answer of the assistant at the end"
        )
    if not {"user", "tool"} & set(roles[:-1]):
        raise DataError(
            f"{name} has an answer and nothing that was asked; expected prompt, question, instruction or messages"
        )
    return found
