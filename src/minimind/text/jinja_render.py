"""A model's own chat template -> text, exactly as transformers 5.23 renders it, in bounded time and memory.

The template runs in a process of its own (`jinja_process.py`), started when it is first needed and again when a
template has cost its life. `template_pieces.py` takes the text apart; a prompt is made there, never from this text.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any

from minimind.errors import DataError, TokenizerError

__all__ = ["TemplateFacts", "plain", "render_chat_text", "render_texts", "template_facts", "with_reasoning"]

# A template in time ends by its processor time; this is for a machine that is very busy.
PATIENCE_SECONDS = 60
REASONING = ("reasoning_content", "thinking", "reasoning")
# What the process needs of ours: no secret is there to be found.
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TZ", "LANG", "SYSTEMROOT")
# Templates of real models have at most 20 kB.
MAX_TEMPLATE_CHARACTERS = 1_000_000


def render_chat_text(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    now: datetime | None = None,
    **variables: Any,
) -> str:
    """The text that transformers 5.23 renders of messages with a Jinja chat template.

    now:        what `strftime_now` tells; the time of the call unless given
    variables:  `bos_token`, `eos_token`, `enable_thinking` and whatever else the template reads
    Errors:     DataError with the template's own words where it refuses the messages or cannot render them;
                TokenizerError for a template that is no Jinja, or costs too much

    For reading and comparing: what somebody said may spell control tokens in it.
    """
    given = {"messages": messages, "tools": tools, "documents": documents}
    [text] = render_texts(template, [{**variables, **given, "add_generation_prompt": add_generation_prompt}], now)
    if isinstance(text, DataError):
        raise text
    return text


def render_texts(
    template: str, inputs: Sequence[Mapping[str, Any]], now: datetime | None = None
) -> list[str | DataError]:
    """A text for each set of variables, or the error that the template answers it with."""
    clock = now.isoformat() if now else None
    texts = []
    for variables in inputs:
        known = {**{name: None for name in ("tools", "documents")}, **plain(variables)}
        known["messages"] = [with_reasoning(message) for message in known["messages"]]
        texts.append({"variables": known, "now": clock, "size": len(json.dumps(known, ensure_ascii=False))})
    return [_text_or_error(result) for result in _process(os.getpid()).ask(template, texts)] if texts else []


@dataclass(frozen=True)
class TemplateFacts:
    """What a template looks for in messages, such as `</think>`, and the variables that it reads."""

    words: tuple[str, ...]
    variables: frozenset[str]


@lru_cache(maxsize=64)
def template_facts(template: str) -> TemplateFacts:
    """Errors: TokenizerError for a template that is no Jinja"""
    [result] = _process(os.getpid()).ask(template, [])
    if "broken" in result:
        raise TokenizerError(f"the chat template is no Jinja that can be read: {result['broken']}")
    return TemplateFacts(tuple(result["value"]["words"]), frozenset(result["value"]["variables"]))


def plain(value: Any) -> Any:
    """The same in JSON's types alone, rebuilt: a template gets no object with methods of its own."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return f"<{type(value).__name__}>"


def with_reasoning(message: Any) -> Any:
    """Reasoning has three names in the world; a template reads the first or the second."""
    if not isinstance(message, dict):
        raise DataError(f"a message is a {type(message).__name__}; expected an object with role and content")
    reasoning = next((message[name] for name in REASONING if message.get(name) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _text_or_error(result: Mapping[str, Any]) -> str | DataError:
    if "refused" in result:
        return DataError(f"the model's chat template refuses the conversation: {result['refused']}")
    if "broken" in result:
        return DataError(f"the model's chat template cannot render the conversation: {result['broken']}")
    return result["value"]


class _Process:
    """The process that renders, for one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[str] | None = None

    def ask(self, template: str, texts: Sequence[Any]) -> list[dict[str, Any]]:
        if len(template) > MAX_TEMPLATE_CHARACTERS:
            raise TokenizerError(f"a chat template of {len(template):,} characters; expected a few thousand")
        with self._lock:
            process = self._start()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps({"template": template, "texts": texts}) + "\n")
                process.stdin.flush()
                line = _line(process.stdout)
            except BrokenPipeError:
                line = ""
            if line:
                results = json.loads(line)
                if any(result.get("is_over") for result in results):
                    self.stop()
                return results
            how = self.stop()
        raise TokenizerError(f"the chat template was stopped: {how}")

    def _start(self) -> "subprocess.Popen[str]":
        if self._running is None or self._running.poll() is not None:
            self._running = subprocess.Popen(
                # -P: the file's folder holds modules with names of the standard library's.
                [sys.executable, "-P", str(Path(__file__).with_name("jinja_process.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                encoding="ascii",
            )
        return self._running

    def stop(self) -> str:
        """Why it ended, or that it did not answer."""
        process, self._running = self._running, None
        if process is None:
            return "it had not begun"
        # One that has ended leaves its reason first.
        for _ in range(2):
            try:
                code = process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                process.kill()
        else:
            code = process.wait()
        for pipe in (process.stdin, process.stdout):
            _close(pipe)
        if code == -signal.SIGPROF:
            return "it takes too long, more than 0.7 s of the processor's time"
        return f"it did not answer (its process ended with {code})"


def _line(pipe: IO[str]) -> str:
    ready, _, _ = select.select([pipe], [], [], PATIENCE_SECONDS)
    return pipe.readline() if ready else ""


def _close(pipe: IO[str] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except BrokenPipeError:
        # What was still to be written has no reader any more.
        return


@cache
def _process(_: int) -> _Process:
    """Of this process: after a fork, the child starts one of its own."""
    process = _Process()
    atexit.register(process.stop)
    return process
