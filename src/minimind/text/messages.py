"""What was said: messages and tools, read from any of the shapes in which chat data comes.

A `Message` is always in one normal form, so that equal conversations compare equal however they were written down.
`conversation.py` turns them into ids and back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from minimind.errors import DataError

__all__ = ["Conversation", "Message", "ToolCall"]

# Names of roles in OpenAI's, ShareGPT's and MiniMind's data, and what each is to us.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


@dataclass(frozen=True)
class ToolCall:
    """A function that the assistant asks to be called, with JSON arguments by name."""

    name: str
    arguments: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: Any) -> "ToolCall":
        """Read `{"name", "arguments"}`, also inside OpenAI's `{"function": ...}`; ValueError says what is wrong."""
        raw = _from_json(raw)
        raw = raw.get("function", raw) if isinstance(raw, Mapping) else raw
        if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str) or not raw["name"]:
            raise ValueError("expected an object with a name and arguments")
        arguments = _from_json(raw.get("arguments"))
        arguments = {} if arguments is None else arguments
        if not isinstance(arguments, Mapping):
            raise ValueError(f"arguments of {raw['name']!r} are a {type(arguments).__name__}, expected an object")
        call = cls(raw["name"], arguments)
        call.to_json().encode()
        return call

    def to_json(self) -> str:
        return json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Message:
    """One message; `role` is system, user, assistant or tool.

    The format puts newlines of its own around reasoning and before an answer, so an assistant's newlines there
    cannot be told from them: they are no part of the normal form, and are dropped here.
    """

    role: str
    content: str = ""
    reasoning_content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def __post_init__(self) -> None:
        assert self.role in ROLES.values(), self.role
        if self.role == "assistant":
            object.__setattr__(self, "content", self.content.lstrip("\n"))
            object.__setattr__(self, "reasoning_content", self.reasoning_content.strip("\n"))

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's shape. `reasoning_content` is always there, since without it readers look for it in `content`."""
        if self.role != "assistant":
            return {"role": self.role, "content": self.content}
        calls = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in self.tool_calls
        ]
        message = {"role": self.role, "content": self.content, "reasoning_content": self.reasoning_content}
        return message | ({"tool_calls": calls} if calls else {})


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and the tools that were on offer."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def parse(cls, row: Mapping[str, Any], where: str) -> "Conversation":
        """Read a row of chat data; `where` is its `path:line`, with which every error begins.

        Shapes: `conversations` or `messages` with role and content (MiniMind, OpenAI) or from and value (ShareGPT);
        or `instruction`, `input`, `output` (Alpaca). `tools` stand beside them or on a message.
        """
        messages, offers = [], [_tools(row.get("tools"), f"{where}: the row")]
        for number, raw in enumerate(_raw_messages(row, f"{where}: the row"), start=1):
            place = f"{where}: message {number}"
            if not isinstance(raw, Mapping):
                _fail(place, f"is a {type(raw).__name__}, expected an object with role and content")
            messages.append(_message(raw, place))
            offers.append(_tools(raw.get("tools"), place))
        offered = [offer for offer in offers if offer]
        if any(offer != offered[0] for offer in offered):
            _fail(f"{where}: the row", "offers tools in two places that differ; keep one list")
        return cls(tuple(messages), offered[0] if offered else ())

    def prompt_part(self) -> "Conversation":
        """Without a last assistant message, which in data for reinforcement learning only holds the place."""
        if self.messages and self.messages[-1].role == "assistant":
            return replace(self, messages=self.messages[:-1])
        return self

    def to_dict(self) -> dict[str, Any]:
        """The row `{"messages", "tools"?}`, which `parse` reads back as an equal conversation."""
        row: dict[str, Any] = {"messages": [message.to_dict() for message in self.messages]}
        return row | ({"tools": [dict(tool) for tool in self.tools]} if self.tools else {})


def _fail(where: str, problem: str) -> NoReturn:
    raise DataError(f"{where} {problem}")


def _raw_messages(row: Mapping[str, Any], where: str) -> Sequence[Any]:
    """The messages of a row as they stand in it, a system prompt kept beside them put first."""
    if "instruction" in row and "output" in row:
        raws: Any = _alpaca_messages(row, where)
    else:
        raws = row.get("messages", row.get("conversations"))
    if not isinstance(raws, list) or not raws:
        keys = ", ".join(map(repr, row)) or "none"
        _fail(where, f"has no list 'messages' or 'conversations' nor 'instruction' and 'output'; its keys are {keys}")
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return system + raws


def _alpaca_messages(row: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    turns = row.get("history") or []
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        _fail(where, "has a history that is not a list of [question, answer] pairs")
    question = _text(row["instruction"], where)
    given = _text(row.get("input") or "", where)
    turns = [*turns, [f"{question}\n{given}" if given else question, row["output"]]]
    return [
        {"role": role, "content": said}
        for turn in turns
        for role, said in zip(("user", "assistant"), turn, strict=True)
    ]


def _message(raw: Mapping[str, Any], where: str) -> Message:
    name = raw.get("role", raw.get("from"))
    if not isinstance(name, str) or name not in ROLES:
        _fail(where, f"has role {name!r}; expected one of {', '.join(ROLES)}")
    role, content = ROLES[name], raw.get("content", raw.get("value"))
    calls = _tool_calls(content if name == "function_call" else raw.get("tool_calls"), where)
    if calls and role != "assistant":
        _fail(where, f"has role {name!r} and tool_calls; only an assistant calls tools")
    if role == "tool" and isinstance(content, Mapping):
        content = json.dumps(content, ensure_ascii=False)
    # OpenAI leaves the content of a message that only calls tools null.
    content = "" if name == "function_call" or (content is None and calls) else _text(content, where)
    if role != "assistant":
        return Message(role, content)
    reasoning = next((raw[key] for key in ("reasoning_content", "reasoning") if isinstance(raw.get(key), str)), None)
    if reasoning is None:
        reasoning, content = _split_reasoning(content)
    return Message(role, content, _text(reasoning, where), calls)


def _split_reasoning(content: str) -> tuple[str, str]:
    """Find reasoning written into the answer; its opening tag may be missing, as prompts often provide it."""
    before, closed, after = content.partition("</think>")
    if not closed:
        return "", content
    return (before.partition("<think>")[2] if before.lstrip().startswith("<think>") else before), after


def _text(content: Any, where: str) -> str:
    """Text given plainly or as OpenAI's list of parts."""
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                _fail(where, f"has a content part of type {kind!r}; only 'text' is supported")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        _fail(where, f"has content of type {type(content).__name__}; expected text")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        _fail(where, f"has the lone surrogate U+{ord(content[error.start]):04X}, which is no text")
    return content


def _tool_calls(raw: Any, where: str) -> tuple[ToolCall, ...]:
    try:
        raw = _from_json(raw)
        return tuple(ToolCall.parse(call) for call in ([raw] if isinstance(raw, Mapping) else raw or []))
    except (ValueError, TypeError, RecursionError) as error:
        _fail(where, f"has a broken tool call: {error}")


def _tools(raw: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    try:
        tools = _from_json(raw) or []
        json.dumps(tools, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        _fail(where, f"has tools that are not JSON: {error}")
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        _fail(where, "has tools that are not a list of objects")
    return tuple(tools)


def _from_json(value: Any) -> Any:
    """MiniMind's data has tools and calls as JSON inside JSON; other data has not. Blank means absent."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.strip() else None
