"""Anthropic's Messages API (`POST /v1/messages`), as a translation onto chats: a body becomes a `ChatBody`.

A user's blocks that are results of tools become messages of their own, in front of what else the user says in the same
turn, as chats have it. `anthropic_reply.py` tells the answer.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from minimind.serve.problems import Problem
from minimind.serve.schema import AskBody, ChatBody, Stops, Strict, Tokens

__all__ = ["AnthropicBody", "CountBody", "chat_of_anthropic"]


class _Cache(Strict):
    """Where a prompt may be cached. Here all of it is, so there is nothing to say."""

    type: Literal["ephemeral"]
    ttl: str | None = Field(None, max_length=16)


class _Block(Strict):
    """Any block of a message: text, reasoning, a call or what a tool answered. Pictures are not known here."""

    type: Literal["text", "thinking", "tool_use", "tool_result"]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = Field(None, max_length=256)
    name: str | None = Field(None, max_length=256)
    input: dict[str, Any] | None = Field(None, max_length=1024)
    tool_use_id: str | None = Field(None, max_length=256)
    content: "str | _Blocks | None" = None
    is_error: bool | None = None
    citations: Annotated[list[Any], Field(max_length=0)] | None = None
    cache_control: _Cache | None = None


_Blocks = Annotated[list[_Block], Field(max_length=1024, fail_fast=True)]


class _Message(Strict):
    role: Literal["user", "assistant"]
    content: str | _Blocks


class _Tool(Strict):
    name: str = Field(max_length=64)
    type: Literal["custom"] | None = None
    description: str | None = Field(None, max_length=65536)
    input_schema: dict[str, Any] = Field(max_length=256)
    strict: bool | None = None
    cache_control: _Cache | None = None


class _ToolChoice(Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = Field(None, max_length=64)
    disable_parallel_tool_use: bool | None = None


class _Thinking(Strict):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Tokens | None = None
    display: str | None = Field(None, max_length=64)


class CountBody(AskBody):
    """POST /v1/messages/count_tokens"""

    messages: Annotated[list[_Message], Field(min_length=1, max_length=2048, fail_fast=True)]
    system: str | _Blocks | None = None
    tools: Annotated[list[_Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: _Thinking | None = None


class AnthropicBody(CountBody):
    """POST /v1/messages"""

    max_tokens: Tokens
    stop_sequences: Stops | None = None


def chat_of_anthropic(body: CountBody) -> ChatBody:
    """The same as a chat. Errors: Problem, and pydantic's for what no chat may have"""
    first = [{"role": "system", "content": _plain(body.system, "system")}] if body.system else []
    said = [message for number, given in enumerate(body.messages) for message in _messages(given, number)]
    settings = body.model_dump(exclude_unset=True, include=set(AskBody.model_fields))
    choice = body.tool_choice
    if body.thinking is not None:
        settings["chat_template_kwargs"] = {"enable_thinking": body.thinking.type != "disabled"}
    if isinstance(body, AnthropicBody):
        settings |= {"max_completion_tokens": body.max_tokens, "stop": body.stop_sequences}
    return ChatBody.model_validate(
        {
            **settings,
            "messages": [*first, *said],
            "tools": [_chat_tool(tool) for tool in body.tools] if body.tools else None,
            "tool_choice": _chat_choice(choice) if choice else None,
            "parallel_tool_calls": not choice.disable_parallel_tool_use if choice else None,
        }
    )


def _messages(given: _Message, number: int) -> list[dict[str, Any]]:
    if isinstance(given.content, str):
        return [{"role": given.role, "content": given.content}]
    place = f"messages.{number}.content"
    if given.role == "assistant":
        return [_answer(given.content, place)]
    results = [block for block in given.content if block.type == "tool_result"]
    texts = [block for block in given.content if block.type != "tool_result"]
    told: list[dict[str, Any]] = []
    for block in results:
        if block.tool_use_id is None:
            raise Problem(400, f"{place}: a tool_result needs tool_use_id", param=place)
        content = _plain(block.content or "", place)
        told.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
    return told + ([{"role": "user", "content": _plain(texts, place)}] if texts or not results else [])


def _answer(blocks: list[_Block], place: str) -> dict[str, Any]:
    calls = [block for block in blocks if block.type == "tool_use"]
    message: dict[str, Any] = {"role": "assistant"}
    message["content"] = _plain([block for block in blocks if block.type == "text"], place)
    if thoughts := "".join(block.thinking or "" for block in blocks if block.type == "thinking"):
        message["reasoning_content"] = thoughts
    if any(block.name is None or block.id is None for block in calls):
        raise Problem(400, f"{place}: a tool_use needs id and name", param=place)
    if calls:
        functions = [(block.id, {"name": block.name, "arguments": block.input or {}}) for block in calls]
        message["tool_calls"] = [{"id": name, "type": "function", "function": function} for name, function in functions]
    return message


def _plain(content: "str | list[_Block]", place: str) -> str:
    if isinstance(content, str):
        return content
    for block in content:
        if block.type != "text" or block.text is None:
            raise Problem(400, f"{place}: a block of type {block.type!r} stands where only text can", param=place)
    return "".join(block.text or "" for block in content)


def _chat_tool(tool: _Tool) -> dict[str, Any]:
    given = {"description": tool.description, "strict": tool.strict}
    return {"type": "function", "function": {"name": tool.name, "parameters": tool.input_schema, **given}}


def _chat_choice(choice: _ToolChoice) -> Any:
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return {"any": "required"}.get(choice.type, choice.type)
