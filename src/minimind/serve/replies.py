"""What a client is sent: answers whole or in chunks, in OpenAI's shapes.

Both ways read the same events through the same reader, so a stream's pieces joined are the whole answer.
"""

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from minimind.generation.request import Event, Request, TokenScore
from minimind.serve.problems import Problem
from minimind.serve.schema import GenerationBody
from minimind.text.answers import CutCall, Delta
from minimind.text.tokenizer import StreamDecoder, Tokenizer

__all__ = ["DONE", "ChatChoice", "Envelope", "OpenAIReply", "TextChoice", "chunk", "usage"]

DONE = b"data: [DONE]\n\n"


class Envelope:
    """What all parts of one reply have in common."""

    def __init__(self, kind: str, model: str) -> None:
        prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
        self._kind = kind
        self._fields = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, choices: Sequence[Mapping[str, Any]], counted: Mapping[str, int]) -> dict[str, Any]:
        return {**self._fields, "object": self._kind, "choices": choices, "usage": counted}

    def part(self, choices: Sequence[Mapping[str, Any]], counted: Mapping[str, int] | None = None) -> bytes:
        """A chunk of a stream; `counted` in the last one, which has no choices."""
        kind = self._kind if self._kind == "text_completion" else f"{self._kind}.chunk"
        fields = {**self._fields, "object": kind, "choices": choices}
        return chunk(fields if counted is None else {**fields, "usage": counted})


def chunk(value: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def usage(num_prompt: int, num_drawn: int) -> dict[str, int]:
    return {"prompt_tokens": num_prompt, "completion_tokens": num_drawn, "total_tokens": num_prompt + num_drawn}


class OpenAIReply:
    """A `streams.ReplyShape` in the shape of chat completions, or of completions."""

    def __init__(
        self,
        envelope: Envelope,
        choices: Sequence["ChatChoice | TextChoice"],
        num_prompt: int,
        body: GenerationBody,
    ) -> None:
        self._envelope, self._choices, self._num_prompt = envelope, choices, num_prompt
        self._has_usage = bool(body.stream_options and body.stream_options.include_usage)

    def begin(self) -> bytes:
        begun = [begun for choice in self._choices if (begun := choice.begin()) is not None]
        return b"".join(self._envelope.part([choice]) for choice in begun)

    def push(self, index: int, events: Sequence[Event]) -> bytes:
        """Errors: Problem when the engine gave up"""
        return b"".join(self._envelope.part([part]) for part in self._choices[index].push(events))

    def fail(self, problem: Problem) -> bytes:
        return chunk(problem.body())

    def end(self) -> bytes:
        return (self._envelope.part([], self._counted()) if self._has_usage else b"") + DONE

    def whole(self) -> dict[str, Any]:
        return self._envelope.whole([choice.whole() for choice in self._choices], self._counted())

    def _counted(self) -> dict[str, int]:
        return usage(self._num_prompt, sum(choice.num_drawn for choice in self._choices))


class ChatChoice:
    """One answer of a chat, as it comes."""

    def __init__(self, request: Request, tokenizer: Tokenizer, index: int) -> None:
        self._tokenizer = tokenizer
        self._index = index
        self._has_scores = request.num_top is not None
        self._deltas: list[Delta] = []
        self._scores: list[dict[str, Any]] = []
        self._num_told_calls = 0
        self.num_drawn = 0
        self.finish_reason: str | None = None

    def begin(self) -> dict[str, Any]:
        """The first chunk's choice, which carries the role."""
        return {"index": self._index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}

    def push(self, events: Iterable[Event]) -> list[dict[str, Any]]:
        """The choices of the chunks that these events make. Errors: Problem when the engine gave up"""
        deltas: list[Delta] = []
        scores: list[dict[str, Any]] = []
        for event in events:
            _require_sound(event)
            self.num_drawn += event.id is not None
            deltas += event.deltas
            scores += [_chat_score(score, self._tokenizer) for score in event.scores]
            self.finish_reason = event.finish_reason
        self._deltas += deltas
        # A call behind a whole one may be what was cut.
        if self.finish_reason == "stop" and any(delta.call for delta in self._deltas):
            self.finish_reason = "tool_calls"
        self._scores += scores
        told = self._told(deltas)
        if scores and not told:
            told = [{}]
        choices: list[dict[str, Any]] = [
            {"index": self._index, "delta": delta, "finish_reason": None} for delta in told
        ]
        if scores:
            choices[0]["logprobs"] = {"content": scores, "refusal": None}
        if self.finish_reason is not None:
            choices.append({"index": self._index, "delta": {}, "finish_reason": self.finish_reason})
        return choices

    def whole(self) -> dict[str, Any]:
        """The choice of a reply that is not streamed."""
        texts = {part: "".join(delta.text for delta in self._deltas if delta.part == part) for part in _FIELDS}
        calls = [call for delta in self._deltas for call in _call(delta)]
        message: dict[str, Any] = {"role": "assistant", "content": texts["content"], "refusal": None}
        if calls:
            message |= {"content": texts["content"] or None, "tool_calls": calls}
        if texts["reasoning"]:
            message |= dict.fromkeys(_FIELDS["reasoning"], texts["reasoning"])
        return {
            "index": self._index,
            "message": message,
            "logprobs": {"content": self._scores, "refusal": None} if self._has_scores else None,
            "finish_reason": self.finish_reason,
        }

    def _told(self, deltas: Iterable[Delta]) -> list[dict[str, Any]]:
        """Pieces of one part as one; a call as its name, then its arguments."""
        told: list[dict[str, Any]] = []
        for part, group in groupby(deltas, key=lambda delta: delta.part):
            if part != "call":
                if text := "".join(delta.text for delta in group):
                    told.append(dict.fromkeys(_FIELDS[part], text))
                continue
            for call in (call for delta in group for call in _call(delta)):
                place, function = self._num_told_calls, call["function"]
                named = {**call, "index": place, "function": {"name": function["name"], "arguments": ""}}
                told.append({"tool_calls": [named]})
                rest = {"index": place, "function": {"arguments": function["arguments"]}}
                told.append({"tool_calls": [rest]})
                self._num_told_calls += 1
        return told


# Some clients read the one name, some the other.
_FIELDS = {"content": ("content",), "reasoning": ("reasoning_content", "reasoning")}


def _call(delta: Delta) -> Iterable[dict[str, Any]]:
    """A call; of one that was cut, what there is. Before its name is whole there is nothing to tell of it."""
    call = delta.cut or delta.call
    if call is not None:
        is_cut = isinstance(call, CutCall)
        arguments = call.arguments if is_cut else json.dumps(call.arguments, ensure_ascii=False)
        function = {"name": call.name, "arguments": arguments}
        yield {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


class TextChoice:
    """One continuation of a text, as it comes.

    echo:      the prompt's ids that are given back in front, where they are
    num_added: ids in front of the prompt that its sender did not write
    """

    def __init__(
        self, tokenizer: Tokenizer, index: int, *, echo: Sequence[int] | None, num_added: int, has_scores: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._index = index
        self._scores = _TextScores(tokenizer, 0 if echo is None else len(echo) - num_added) if has_scores else None
        self._num_skipped = num_added if echo is not None else 0
        self._echo = "" if echo is None else tokenizer.decode(echo[num_added:])
        self._texts: list[str] = []
        self.num_drawn = 0
        self.finish_reason: str | None = None

    def begin(self) -> None:
        return None

    def push(self, events: Iterable[Event]) -> list[dict[str, Any]]:
        """The choice of the chunk that these events make. Errors: Problem when the engine gave up"""
        text, self._echo = self._echo, ""
        scores: list[TokenScore] = []
        for event in events:
            _require_sound(event)
            self.num_drawn += event.id is not None
            text += event.text
            scores += event.scores
            self.finish_reason = event.finish_reason
        skipped, self._num_skipped = min(self._num_skipped, len(scores)), max(self._num_skipped - len(scores), 0)
        self._texts.append(text)
        if not (text or scores or self.finish_reason):
            return []
        told = None if self._scores is None else self._scores.push(scores[skipped:])
        return [{"index": self._index, "text": text, "logprobs": told, "finish_reason": self.finish_reason}]

    def whole(self) -> dict[str, Any]:
        logprobs = None if self._scores is None else self._scores.whole
        text = "".join(self._texts)
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": self.finish_reason}


class _TextScores:
    """OpenAI's older shape of log-probabilities: lists side by side.

    num_echoed:  ids of the prompt in front; its special tokens are in the text, and those that are drawn are not
    """

    def __init__(self, tokenizer: Tokenizer, num_echoed: int) -> None:
        self._tokenizer = tokenizer
        self._num_echoed = num_echoed
        self._decoder = StreamDecoder(tokenizer, skip_special=num_echoed == 0)
        self._offset = 0
        self.whole: dict[str, list[Any]] = {
            name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }

    def push(self, scores: Iterable[TokenScore]) -> dict[str, list[Any]]:
        part: dict[str, list[Any]] = {name: [] for name in self.whole}
        for score in scores:
            top = None
            if score.logprob is not None:
                pairs = [*score.top, (score.id, score.logprob)]
                top = {_spelled(index, self._tokenizer): value for index, value in pairs} if score.top else {}
            part["tokens"].append(_spelled(score.id, self._tokenizer))
            part["token_logprobs"].append(score.logprob)
            part["top_logprobs"].append(top)
            part["text_offset"].append(self._offset)
            self._offset += len(self._decoder.push(score.id))
            self._num_echoed -= 1
            if self._num_echoed == 0:
                self._offset += len(self._decoder.finish())
                self._decoder = StreamDecoder(self._tokenizer, skip_special=True)
        for name, values in part.items():
            self.whole[name] += values
        return part


def _require_sound(event: Event) -> None:
    if event.finish_reason == "error":
        code = "invalid_value" if event.is_refused else "generation_failed"
        raise Problem(400 if event.is_refused else 500, event.error, code=code)


def _chat_score(score: TokenScore, tokenizer: Tokenizer) -> dict[str, Any]:
    top = [_token_score(index, logprob, tokenizer) for index, logprob in score.top]
    return {**_token_score(score.id, score.logprob, tokenizer), "top_logprobs": top}


def _token_score(index: int, logprob: float | None, tokenizer: Tokenizer) -> dict[str, Any]:
    data = tokenizer.decode_bytes([index])
    return {"token": _spelled(index, tokenizer), "logprob": logprob, "bytes": list(data)}


def _spelled(index: int, tokenizer: Tokenizer) -> str:
    """The text of a token; as OpenAI has it, `bytes:\\xe4\\xbd` where it is a part of a character."""
    data = tokenizer.decode_bytes([index])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
