"""What a client of Anthropic's Messages API is told: blocks of content, whole or as events; see `anthropic.py`."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from minimind.generation.request import Event
from minimind.serve.problems import Problem
from minimind.serve.replies import ChatChoice

__all__ = ["AnthropicReply", "anthropic_error"]

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
ERRORS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large"}
ERRORS |= {429: "rate_limit_error", 500: "api_error", 503: "overloaded_error"}


class AnthropicReply:
    """A `streams.ReplyShape`: the deltas of a chat's answer as blocks that start, grow and stop."""

    def __init__(self, model: str, choice: ChatChoice, num_prompt: int) -> None:
        self._model, self._choice, self._num_prompt = model, choice, num_prompt
        self._id = f"msg_{secrets.token_hex(12)}"
        self._blocks: list[dict[str, Any]] = []
        self._arguments: list[str] = []
        self._is_open = False

    def begin(self) -> bytes:
        return _tell("message_start", message=self._message([], None))

    def push(self, index: int, events: Sequence[Event]) -> bytes:
        """Errors: Problem when the engine gave up"""
        return b"".join(self._take(choice["delta"]) for choice in self._choice.push(events))

    def fail(self, problem: Problem) -> bytes:
        return _tell("error", **{key: value for key, value in anthropic_error(problem).items() if key != "type"})

    def end(self) -> bytes:
        if self._choice.finish_reason is None:
            return b""
        delta = {"stop_reason": STOP_REASONS[self._choice.finish_reason], "stop_sequence": None}
        used = {"output_tokens": self._choice.num_drawn}
        return self._close() + _tell("message_delta", delta=delta, usage=used) + _tell("message_stop")

    def whole(self) -> dict[str, Any]:
        self._close()
        return self._message(self._blocks, STOP_REASONS.get(self._choice.finish_reason or ""))

    def _message(self, blocks: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        used = {"input_tokens": self._num_prompt, "output_tokens": self._choice.num_drawn}
        cached = dict.fromkeys(("cache_creation_input_tokens", "cache_read_input_tokens"), 0)
        fields = {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": blocks}
        return {**fields, "stop_reason": reason, "stop_sequence": None, "usage": used | cached}

    def _take(self, delta: Mapping[str, Any]) -> bytes:
        told = b""
        if text := delta.get("reasoning_content"):
            told += self._grow("thinking", text)
        if text := delta.get("content"):
            told += self._grow("text", text)
        for call in delta.get("tool_calls") or ():
            function = call["function"]
            if "id" in call:
                self._arguments = []
                told += self._start({"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}})
            if piece := function.get("arguments"):
                self._arguments.append(piece)
                told += self._delta({"type": "input_json_delta", "partial_json": piece})
        return told

    def _grow(self, kind: str, text: str) -> bytes:
        told = b""
        if not self._is_open or self._blocks[-1]["type"] != kind:
            signed = {"signature": ""} if kind == "thinking" else {}
            told = self._start({"type": kind, kind: "", **signed})
        self._blocks[-1][kind] += text
        return told + self._delta({"type": f"{kind}_delta", kind: text})

    def _start(self, block: dict[str, Any]) -> bytes:
        told = self._close()
        self._blocks.append(block)
        self._is_open = True
        return told + _tell("content_block_start", index=len(self._blocks) - 1, content_block=dict(block))

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return _tell("content_block_delta", index=len(self._blocks) - 1, delta=delta)

    def _close(self) -> bytes:
        if not self._is_open:
            return b""
        self._is_open = False
        block = self._blocks[-1]
        if block["type"] == "tool_use":
            block["input"] = _object("".join(self._arguments))
        return _tell("content_block_stop", index=len(self._blocks) - 1)


def anthropic_error(problem: Problem) -> dict[str, Any]:
    """A problem in Anthropic's shape."""
    kind = ERRORS.get(problem.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": problem.body()["error"]["message"]}}


def _object(arguments: str) -> dict[str, Any]:
    """The arguments of a call. One that was cut has only the beginning of them, which no object can hold."""
    try:
        found = json.loads(arguments or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _tell(kind: str, **fields: Any) -> bytes:
    value = json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {value}\n\n".encode()
