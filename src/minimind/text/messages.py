"""What was said: messages and tools, read from any of the shapes in which chat data comes.

A `Message` is always in one normal form, so that equal conversations compare equal however they were written down.
`conversation.py` turns them into ids and back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from minimind.errors import DataError
from minimind.text.flags import row_weight, weight_of
from minimind.text.rows import from_json, raw_messages
from minimind.text.shapes import REASONING, present

__all__ = ["ROLES", "Conversation", "Message", "ToolCall"]

# Names of roles in OpenAI's, ShareGPT's, ms-swift's and MiniMind's data, and what each is to us.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
# Messages whose content is the call itself.
CALLING = ("function_call", "tool_call")
TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHT_PARTS = ("thinking", "reasoning")


@dataclass(frozen=True)
class ToolCall:
    """A function that the assistant asks to be called, with JSON arguments by name.

    written:  arguments that came as text, as they were written, since a chat template cannot write them anew; of calls
              that are past also what is no JSON object. Empty where `arguments` say all.
    """

    name: str
    arguments: Mapping[str, Any]
    # However the arguments are spaced, it is the same call.
    written: str = field(default="", compare=False)

    @classmethod
    def parse(cls, raw: Any, *, is_past: bool = False) -> "ToolCall":
        """Read `{"name", "arguments"}`, also inside OpenAI's `{"function": ...}`.

        is_past:  arguments that are broken are kept as they are: what was said cannot be unsaid
        Errors:   ValueError says what is wrong
        """
        raw = from_json(raw)
        raw = raw.get("function", raw) if isinstance(raw, Mapping) else raw
        if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str) or not raw["name"]:
            raise ValueError("expected an object with a name and arguments")
        given = raw.get("arguments")
        try:
            arguments = from_json(given)
        except (ValueError, RecursionError):
            if not is_past:
                raise
            arguments = given
        arguments = {} if arguments is None else arguments
        if is_past and not isinstance(arguments, Mapping):
            return cls(raw["name"], {}, given if isinstance(given, str) else json.dumps(given, ensure_ascii=False))
        if not isinstance(arguments, Mapping):
            raise ValueError(f"arguments of {raw['name']!r} are a {type(arguments).__name__}, expected an object")
        call = cls(raw["name"], arguments)
        call.to_json().encode()
        is_said = isinstance(given, str) and given.strip() not in ("", "null")
        return replace(call, written=given) if is_said and given != call.arguments_text() else call

    @property
    def is_broken(self) -> bool:
        """Are the arguments no JSON object, so that only `written` says them?"""
        return bool(self.written) and not self.arguments and "".join(self.written.split()) != "{}"

    def arguments_text(self) -> str:
        return self.written or json.dumps(self.arguments, ensure_ascii=False, allow_nan=False)

    def to_json(self) -> str:
        return f'{{"name": {json.dumps(self.name, ensure_ascii=False)}, "arguments": {self.arguments_text()}}}'


@dataclass(frozen=True)
class Message:
    """One message; `role` is system, user, assistant or tool.

    weight:  of an answer: 1, or 0 where the data says that it is not to be learnt, and only stands before the next

    The format puts newlines of its own around reasoning and before an answer, so an assistant's newlines there
    cannot be told from them: they are no part of the normal form, and are dropped here.
    """

    role: str
    content: str = ""
    reasoning_content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    weight: int = 1

    def __post_init__(self) -> None:
        assert self.role in ROLES.values() and self.weight in (0, 1), self
        if self.role == "assistant":
            object.__setattr__(self, "content", self.content.lstrip("\n"))
            object.__setattr__(self, "reasoning_content", self.reasoning_content.strip("\n"))

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's shape. `reasoning_content` is always there, since without it readers look for it in `content`."""
        if self.role != "assistant":
            return {"role": self.role, "content": self.content}
        calls = [
            {"type": "function", "function": {"name": call.name, "arguments": call.written or dict(call.arguments)}}
            for call in self.tool_calls
        ]
        message = {"role": self.role, "content": self.content, "reasoning_content": self.reasoning_content}
        return message | ({"tool_calls": calls} if calls else {}) | ({} if self.weight else {"weight": 0})


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and the tools that were on offer."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def parse(cls, row: Mapping[str, Any], where: str, *, is_past: bool = False) -> "Conversation":
        """Read a row of chat data of any shape in `shapes.py`; `where` is its `path:line`, with which errors begin.

        is_past:  nothing of it is to be learnt, so that calls whose arguments are broken are kept as they are

        What is null is absent. `tools` (or OpenAI's older `functions`) stand beside the messages or on one of them.
        """
        row, place = present(row), f"{where}: the row"
        messages, offers = [], [_tools(row, place)]
        is_learnt = row_weight(row)
        for number, (raw, is_context) in enumerate(raw_messages(row, place), start=1):
            place = f"{where}: message {number}"
            if not isinstance(raw, Mapping):
                _fail(place, f"is a {type(raw).__name__}, expected an object with role and content")
            raw = present(raw)
            message = _message(raw, place, is_past)
            is_silent = message.role == "assistant" and (is_context or not is_learnt)
            messages.append(replace(message, weight=0) if is_silent else message)
            offers.append(_tools(raw, place))
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


def _message(raw: Mapping[str, Any], where: str, is_past: bool) -> Message:
    name = raw.get("role", raw.get("from"))
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        _fail(where, f"has role {name!r}; expected one of {', '.join(ROLES)}")
    content = next((raw[key] for key in ("content", "value", "text", "refusal") if key in raw), None)
    is_call = str(name).lower() in CALLING
    calls = _tool_calls(content, where, is_past) if is_call else _calls_beside(raw, where, is_past)
    if calls and role != "assistant":
        _fail(where, f"has role {name!r} and tool_calls; only an assistant calls tools")
    if role == "tool" and isinstance(content, Mapping):
        content = json.dumps(content, ensure_ascii=False)
    if role != "assistant":
        return Message(role, _text(content, where))
    thoughts = _thoughts(raw, content, where)
    # OpenAI leaves the content of a message that only calls tools null.
    content = "" if is_call or (content is None and (calls or any(thoughts))) else _text(_spoken(content), where)
    if thoughts:
        reasoning = next(filter(None, thoughts), "")
        if any(thought != reasoning for thought in filter(None, thoughts)):
            _fail(where, "has reasoning in two places that differ; keep one")
    else:
        reasoning, content = _split_reasoning(content)
    try:
        return Message(role, content, reasoning, calls, weight_of(raw))
    except ValueError as error:
        _fail(where, str(error))


def _calls_beside(raw: Mapping[str, Any], where: str, is_past: bool) -> tuple[ToolCall, ...]:
    """`tool_calls`, or the one `function_call` that OpenAI had before them; said in both ways it is one call."""
    calls = _tool_calls(raw.get("tool_calls"), where, is_past)
    legacy = raw.get("function_call")
    if isinstance(legacy, Mapping) and not present(legacy):
        return calls
    older = _tool_calls(legacy, where, is_past)
    if calls and older and calls != older:
        _fail(where, "has tool_calls and a function_call that differ; keep one")
    return calls or older


def _thoughts(raw: Mapping[str, Any], content: Any, where: str) -> list[str]:
    """What was thought, under each of its names; an empty one says that there was nothing to think."""
    found = [raw[key] for key in REASONING if key in raw and not isinstance(raw[key], bool)]
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, Mapping) and part.get("type") in THOUGHT_PARTS)
        found += [next((part[key] for key in (*REASONING, "text") if part.get(key)), "") for part in parts]
    return [_text(thought, where) for thought in found]


def _spoken(content: Any) -> Any:
    """Without the parts that are reasoning."""
    if not isinstance(content, list):
        return content
    return [part for part in content if not (isinstance(part, Mapping) and part.get("type") in THOUGHT_PARTS)]


def _split_reasoning(content: str) -> tuple[str, str]:
    """Find reasoning written into the answer; its opening tag may be missing, as prompts often provide it.

    A closing tag that the answer only tells of closes nothing: one behind an opening tag that does not begin the
    answer, or behind a space or a quotation mark in the midst of a line. The exported template has the same rule.
    """
    before, closed, after = content.partition("</think>")
    if closed and before.lstrip().startswith("<think>"):
        return before.partition("<think>")[2], after
    is_told_of = "<think>" in before or (before.endswith((" ", "`", '"', "'")) and not after.startswith("\n"))
    return (before, after) if closed and not is_told_of else ("", content)


def _text(content: Any, where: str) -> str:
    """Text given plainly or as OpenAI's list of parts."""
    if isinstance(content, list):
        for part in content:
            is_text = isinstance(part, Mapping) and part.get("type") in TEXT_PARTS and isinstance(part.get("text"), str)
            if not is_text:
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


def _tool_calls(raw: Any, where: str, is_past: bool) -> tuple[ToolCall, ...]:
    try:
        raw = from_json(raw)
        calls = [raw] if isinstance(raw, Mapping) else raw or []
        return tuple(ToolCall.parse(call, is_past=is_past) for call in calls if call is not None)
    except (ValueError, TypeError, RecursionError) as error:
        _fail(where, f"has a broken tool call: {error}")


def _tools(raw: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """`tools` as they stand, and `functions` as the tools that they became."""
    tools = _list_of_objects(raw.get("tools"), "tools", where)
    functions = _list_of_objects(raw.get("functions"), "functions", where)
    older = tuple({"type": "function", "function": function} for function in functions)
    if tools and older and tools != older:
        _fail(where, "offers tools and functions that differ; keep one list")
    return tools or older


def _list_of_objects(value: Any, name: str, where: str) -> tuple[Mapping[str, Any], ...]:
    if value is None:
        return ()
    try:
        found = from_json(value) or []
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        _fail(where, f"has {name} that are not JSON: {error}")
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        _fail(where, f"has {name} that are not a list of objects")
    return tuple(found)
