"""A row of data -> its messages as they stand in it, in order, whatever shape the row has (`shapes.py`).

A turn whose question and answer stand in columns of their own becomes two messages. What a prompt quotes of earlier
answers is context: the prompt weighs nothing. Nothing is read here but who says what; `messages.py` does the rest.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from minimind.errors import DataError
from minimind.text.flags import FLAGS, UNFOLLOWED
from minimind.text.shapes import MESSAGE_LISTS, REASONING, SYSTEMS, TOOLS, RowShape, find_shape

__all__ = ["RawMessage", "dialogue", "from_json", "is_message", "raw_messages", "said_in", "unread_keys"]

# Anthropic's layout of a dialogue in one text, as HH-RLHF has it.
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_SPEAKERS = re.compile(r"\n\n(Human|Assistant):")
# What is read of a message, or is there to tell messages apart.
_SAID = ("role", "from", "content", "value", "text", "refusal", "tool_calls", "function_call")
_READ_KEYS = frozenset((*_SAID, "name", "id", "tool_call_id", *TOOLS, *REASONING, *FLAGS, *UNFOLLOWED))
_TURN_KEYS = frozenset(("input", "output"))


class RawMessage(NamedTuple):
    """A message as it stands in its row. is_context: it belongs to a prompt, and is not learnt."""

    value: Any
    is_context: bool = False


def raw_messages(row: Mapping[str, Any], where: str) -> list[RawMessage]:
    """The messages of a row without nulls; `where` begins every error. A prompt without an answer has its question.

    Errors: DataError for a row of no such shape
    """
    shape = find_shape(row, "conversation") or find_shape(row, "prompt")
    if shape is None:
        keys = ", ".join(map(repr, list(row)[:20])) or "none"
        _fail(where, f"has no list 'messages' or 'conversations' nor 'instruction' and 'output'; its keys are {keys}")
    if shape.kind == "prompt":
        found = _said(_question(row, shape.needs[0], shape, where), "user")
    elif shape.question:
        found = [*_history(row, where), *_turn(row, shape, where)]
    else:
        found = [RawMessage(raw) for raw in _listed(row, where)]
    return [*_system(row, found, where), *found]


def said_in(value: Any, role: str) -> list[Any]:
    """Messages as they stand, or a text as one message of `role`; texts in Anthropic's layout are taken apart."""
    if isinstance(value, str):
        whole = f"\n\n{value.lstrip()}"
        is_dialogue = value.startswith(_HUMAN) or (whole.startswith(_HUMAN) and _ASSISTANT in value)
        return dialogue(whole) if is_dialogue else [{"role": role, "content": value}]
    if isinstance(value, list) and (not value or is_message(value[0])):
        return value
    return [value] if is_message(value) else [{"role": role, "content": value}]


def dialogue(text: str) -> list[dict[str, str]]:
    """`\\n\\nHuman: ...\\n\\nAssistant: ...` as messages; an answer that is opened and not given is left out."""
    before, *parts = _SPEAKERS.split(text)
    roles = ["user" if name == "Human" else "assistant" for name in parts[::2]]
    messages = [{"role": role, "content": said.strip()} for role, said in zip(roles, parts[1::2], strict=True)]
    if messages and messages[-1] == {"role": "assistant", "content": ""}:
        messages.pop()
    return [{"role": "system", "content": before.strip()}, *messages] if before.strip() else messages


def is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def from_json(value: Any) -> Any:
    """MiniMind's data has tools and calls as JSON inside JSON; other data has not. Blank means absent."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.strip() else None


def unread_keys(row: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a row's messages that say something and are not read, each as often as it is there."""
    for value in row.values():
        if isinstance(value, list):
            for message in value:
                if is_message(message) and not message.keys() <= _READ_KEYS:
                    yield from (key for key in message.keys() - _READ_KEYS if message[key] is not None)


def _fail(where: str, problem: str) -> NoReturn:
    raise DataError(f"{where} {problem}")


def _listed(row: Mapping[str, Any], where: str) -> list[Any]:
    """A list of messages, also as JSON in a text, as tables have it."""
    name = next(name for name in MESSAGE_LISTS if row.get(name))
    raws = row[name]
    if isinstance(raws, str) and raws.lstrip().startswith("["):
        try:
            raws = json.loads(raws)
        except (ValueError, RecursionError) as error:
            _fail(where, f"has {name} as a text that is not JSON: {error}")
    if not isinstance(raws, list) or not raws:
        _fail(where, f"has no list 'messages' or 'conversations': {name} is a {type(raws).__name__}")
    if isinstance(raws[0], Mapping) and raws[0].keys() >= _TURN_KEYS:
        return [message for turn in raws for message in _exchange(turn, where)]
    return raws


def _exchange(turn: Any, where: str) -> list[dict[str, Any]]:
    """Capybara's `{"input", "output"}`."""
    if not isinstance(turn, Mapping) or not turn.keys() >= _TURN_KEYS:
        _fail(where, "mixes turns of input and output with other messages")
    return [{"role": "user", "content": turn["input"]}, {"role": "assistant", "content": turn["output"]}]


def _turn(row: Mapping[str, Any], shape: RowShape, where: str) -> list[RawMessage]:
    question = [RawMessage(raw.value, True) for raw in _said(_question(row, shape.question, shape, where), "user")]
    answer = row[shape.answer]
    # What is right is often a number, above all in tables.
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    answers = _said(answer, "assistant")
    thought = [name for name in REASONING if isinstance(row.get(name), str)]
    if thought and len(answers) == 1 and not is_message(answer):
        answers = [RawMessage({**answers[0].value, **{name: row[name] for name in thought}})]
    return [*question, *answers]


def _said(value: Any, role: str) -> list[RawMessage]:
    return [RawMessage(raw) for raw in said_in(value, role)]


def _question(row: Mapping[str, Any], name: str, shape: RowShape, where: str) -> Any:
    """What is asked, with what it is asked of behind it, as Alpaca's input."""
    question = row[name]
    given = [row[column] for column in ("input", "context") if column in shape.reads and row.get(column)]
    if given and not all(isinstance(text, str) for text in (question, *given)):
        _fail(where, f"has a {name} and an input or context that are not both texts")
    return "\n".join([question, *given]) if given else question


def _history(row: Mapping[str, Any], where: str) -> list[RawMessage]:
    """Earlier turns: `[question, answer]` pairs, or messages."""
    try:
        turns = from_json(row.get("history")) or []
    except ValueError:
        turns = None
    if isinstance(turns, list) and turns and all(map(is_message, turns)):
        return [RawMessage(turn) for turn in turns]
    if not isinstance(turns, list) or not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in turns):
        _fail(where, "has a history that is not a list of [question, answer] pairs")
    pairs = (zip(("user", "assistant"), turn, strict=True) for turn in turns)
    return [RawMessage({"role": role, "content": said}) for pair in pairs for role, said in pair]


def _system(row: Mapping[str, Any], found: list[RawMessage], where: str) -> list[RawMessage]:
    """A system prompt that stands beside the messages; said twice, it is there once."""
    prompts = [row[name] for name in SYSTEMS if row.get(name)]
    first = found[0].value if found and isinstance(found[0].value, Mapping) else {}
    is_said = first.get("role", first.get("from")) == "system"
    known = [*prompts, first.get("content", first.get("value"))] if prompts and is_said else prompts
    if any(prompt != prompts[0] for prompt in known):
        _fail(where, "has system prompts in two places that differ; keep one")
    return [RawMessage({"role": "system", "content": prompts[0]})] if prompts and not is_said else []
