"""OpenAI's Responses API (`POST /v1/responses`), as a translation onto chats: a body becomes a `ChatBody`.

Stateless: nothing is kept, so `previous_response_id` is refused and all that was said comes with each request. Items of
the input that the assistant said one after the other (reasoning, text, calls) are one message of a chat.
`responses_reply.py` tells the answer.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from minimind.serve.problems import Problem
from minimind.serve.schema import AskBody, ChatBody, Strict, Tokens

__all__ = ["ResponsesBody", "chat_of_responses"]


class _TextPart(Strict):
    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal"]
    text: str = ""
    annotations: Annotated[list[Any], Field(max_length=1024)] | None = None
    logprobs: Annotated[list[Any], Field(max_length=1_000_000)] | None = None


_Parts = Annotated[list[_TextPart], Field(max_length=1024, fail_fast=True)]


class _Item(Strict):
    """Any item of an input: a message, a call, what a tool answered, or reasoning."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    id: str | None = Field(None, max_length=256)
    status: str | None = Field(None, max_length=64)
    phase: str | None = Field(None, max_length=64)
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | _Parts | None = None
    call_id: str | None = Field(None, max_length=256)
    name: str | None = Field(None, max_length=256)
    arguments: str | None = None
    output: str | _Parts | None = None
    summary: _Parts | None = None
    encrypted_content: Literal[""] | None = None


class _Tool(Strict):
    type: Literal["function"]
    name: str = Field(max_length=64)
    description: str | None = Field(None, max_length=65536)
    parameters: dict[str, Any] | None = Field(None, max_length=256)
    strict: bool | None = None


class _ToolChoice(Strict):
    type: Literal["function"]
    name: str = Field(max_length=64)


class _Format(Strict):
    type: Literal["text", "json_object", "json_schema"]
    name: str = Field("answer", max_length=64)
    description: str | None = Field(None, max_length=65536)
    schema_: dict[str, Any] | None = Field(None, alias="schema", max_length=256)
    strict: bool | None = None


class _Text(Strict):
    format: _Format | None = None
    verbosity: Literal["medium"] | None = None


class _Reasoning(Strict):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    # How much of it is told: here always all.
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesBody(AskBody):
    """POST /v1/responses"""

    input: str | Annotated[list[_Item], Field(min_length=1, max_length=4096, fail_fast=True)]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    tools: Annotated[list[_Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    # All that can be included is there anyway, or belongs to tools of OpenAI's own.
    include: Annotated[list[Literal["reasoning.encrypted_content"]], Field(max_length=16)] | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None


def chat_of_responses(body: ResponsesBody) -> ChatBody:
    """The same as a chat. Errors: Problem, and pydantic's for what no chat may have"""
    first = [{"role": "system", "content": body.instructions}] if body.instructions else []
    given = (
        [_Item.model_validate({"role": "user", "content": body.input})] if isinstance(body.input, str) else body.input
    )
    settings = body.model_dump(exclude_unset=True, include=set(AskBody.model_fields))
    text = body.text.format if body.text else None
    return ChatBody.model_validate(
        {
            **settings,
            "messages": [*first, *_messages(given)],
            "max_completion_tokens": body.max_output_tokens,
            "tools": [_chat_tool(tool) for tool in body.tools] if body.tools else None,
            "tool_choice": _chat_choice(body.tool_choice),
            "parallel_tool_calls": body.parallel_tool_calls,
            "response_format": None if text is None else _chat_format(text),
            "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        }
    )


def _messages(items: list[_Item]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        if item.type == "function_call_output":
            if item.call_id is None or item.output is None:
                raise Problem(400, f"input.{place}: a tool's output needs call_id and output", param="input")
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _plain(item.output)})
        elif item.type == "message" and item.role != "assistant":
            if item.role is None or item.content is None:
                raise Problem(400, f"input.{place}: a message needs role and content", param="input")
            messages.append({"role": item.role, "content": _plain(item.content)})
        else:
            _say(messages, item, place)
    return messages


def _say(messages: list[dict[str, Any]], item: _Item, place: int) -> None:
    """Add what the assistant said to its message: reasoning begins one, a second text as well."""
    is_open = bool(messages) and messages[-1]["role"] == "assistant"
    if not is_open or item.type == "reasoning" or (item.type == "message" and "content" in messages[-1]):
        messages.append({"role": "assistant"})
    message = messages[-1]
    if item.type == "message":
        message["content"] = _plain(item.content or "")
    elif item.type == "reasoning":
        message["reasoning_content"] = _plain(item.content or item.summary or "")
    elif item.name is None or item.call_id is None:
        raise Problem(400, f"input.{place}: a function_call needs name and call_id", param="input")
    else:
        function = {"name": item.name, "arguments": item.arguments or ""}
        message.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})


def _plain(content: str | list[_TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _chat_tool(tool: _Tool) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(exclude_unset=True, exclude={"type"})}


def _chat_choice(choice: Any) -> Any:
    return {"type": "function", "function": {"name": choice.name}} if isinstance(choice, _ToolChoice) else choice


def _chat_format(wanted: _Format) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    named = wanted.model_dump(exclude_unset=True, by_alias=True, exclude={"type"})
    return {"type": "json_schema", "json_schema": {"name": wanted.name, **named}}
