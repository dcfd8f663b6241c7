"""What a client of the Responses API is told: items of output, whole or as events; see `responses.py`."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from minimind.generation.request import Event
from minimind.serve.problems import Problem
from minimind.serve.replies import ChatChoice
from minimind.serve.responses import ResponsesBody

__all__ = ["ResponsesReply"]


class ResponsesReply:
    """A `streams.ReplyShape`: the deltas of a chat's answer as items that are added, grow and are done."""

    def __init__(self, body: ResponsesBody, choice: ChatChoice, num_prompt: int) -> None:
        self._choice, self._num_prompt, self._number = choice, num_prompt, 0
        self._items: list[dict[str, Any]] = []
        self._fields = _response_fields(body)

    def begin(self) -> bytes:
        response = self._response("in_progress")
        return self._tell("response.created", response=response) + self._tell("response.in_progress", response=response)

    def push(self, index: int, events: Sequence[Event]) -> bytes:
        """Errors: Problem when the engine gave up"""
        return b"".join(self._take(choice["delta"]) for choice in self._choice.push(events))

    def fail(self, problem: Problem) -> bytes:
        error = problem.body()["error"]
        return self._tell("error", code=error.get("code"), message=error["message"], param=error.get("param"))

    def end(self) -> bytes:
        if self._choice.finish_reason is None:
            return b""
        told = self._close()
        response = self.whole()
        return told + self._tell(f"response.{response['status']}", response=response)

    def whole(self) -> dict[str, Any]:
        self._close()
        is_cut = self._choice.finish_reason == "length"
        details = {"reason": "max_output_tokens"} if is_cut else None
        used = {
            "input_tokens": self._num_prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self._choice.num_drawn,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self._num_prompt + self._choice.num_drawn,
        }
        return self._response("incomplete" if is_cut else "completed") | {"incomplete_details": details, "usage": used}

    def _response(self, status: str) -> dict[str, Any]:
        return {**self._fields, "status": status, "output": list(self._items), "usage": None}

    def _take(self, delta: Mapping[str, Any]) -> bytes:
        told = b""
        if text := delta.get("reasoning_content"):
            told += self._grow("reasoning", text)
        if text := delta.get("content"):
            told += self._grow("message", text)
        for call in delta.get("tool_calls") or ():
            function = call["function"]
            if "id" in call:
                told += self._close() + self._add(_call_item(call["id"], function["name"]))
            if piece := function.get("arguments"):
                self._items[-1]["arguments"] += piece
                told += self._of_item("response.function_call_arguments.delta", delta=piece)
        return told

    def _grow(self, kind: str, text: str) -> bytes:
        """More of a text, in the item that is open or in a new one."""
        told = b""
        if not self._items or self._items[-1]["type"] != kind or self._items[-1]["status"] != "in_progress":
            told = self._close() + self._add(_text_item(kind))
            part = _part(kind, "")
            self._items[-1]["content"].append(part)
            if kind == "message":
                told += self._of_item("response.content_part.added", content_index=0, part={**part})
        self._items[-1]["content"][0]["text"] += text
        name = "output_text" if kind == "message" else "reasoning_text"
        scores: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        return told + self._of_item(f"response.{name}.delta", content_index=0, delta=text, **scores)

    def _add(self, item: dict[str, Any]) -> bytes:
        self._items.append(item)
        return self._tell(
            "response.output_item.added", output_index=len(self._items) - 1, item=json.loads(json.dumps(item))
        )

    def _close(self) -> bytes:
        """The open item is done."""
        if not self._items or self._items[-1]["status"] != "in_progress":
            return b""
        item = self._items[-1]
        told = b""
        if item["type"] == "function_call":
            told += self._of_item(
                "response.function_call_arguments.done", arguments=item["arguments"], name=item["name"]
            )
        elif item["type"] == "message":
            part = item["content"][0]
            told += self._of_item("response.output_text.done", content_index=0, text=part["text"], logprobs=[])
            told += self._of_item("response.content_part.done", content_index=0, part=part)
        else:
            told += self._of_item("response.reasoning_text.done", content_index=0, text=item["content"][0]["text"])
        item["status"] = "incomplete" if self._choice.finish_reason == "length" else "completed"
        return told + self._tell("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _of_item(self, kind: str, **fields: Any) -> bytes:
        return self._tell(kind, item_id=self._items[-1]["id"], output_index=len(self._items) - 1, **fields)

    def _tell(self, kind: str, **fields: Any) -> bytes:
        """A server-sent event; each has the next number."""
        value = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def _response_fields(body: ResponsesBody) -> dict[str, Any]:
    """What a response repeats of its request."""
    given = body.model_dump(exclude_none=True, by_alias=True)
    return {
        "id": f"resp_{secrets.token_hex(16)}",
        "object": "response",
        "created_at": int(time.time()),
        "model": body.model,
        "error": None,
        "incomplete_details": None,
        "previous_response_id": None,
        "store": False,
        "truncation": "disabled",
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "reasoning": {"effort": None, "summary": None, **given.get("reasoning", {})},
        "temperature": body.temperature,
        "text": {"format": {"type": "text"}, **given.get("text", {})},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": [{"parameters": None, "strict": None, **tool} for tool in given.get("tools", [])],
        "top_p": body.top_p,
        "user": body.user,
    }


def _text_item(kind: str) -> dict[str, Any]:
    if kind == "reasoning":
        fields: dict[str, Any] = {"id": f"rs_{secrets.token_hex(12)}", "summary": []}
    else:
        fields = {"id": f"msg_{secrets.token_hex(12)}", "role": "assistant"}
    return {**fields, "type": kind, "content": [], "status": "in_progress"}


def _call_item(call_id: str, name: str) -> dict[str, Any]:
    item_id = f"fc_{secrets.token_hex(12)}"
    fields = {"id": item_id, "type": "function_call", "call_id": call_id, "name": name}
    return {**fields, "arguments": "", "status": "in_progress"}


def _part(kind: str, text: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
