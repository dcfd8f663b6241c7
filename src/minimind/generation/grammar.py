"""Answers that cannot be wrong in form: before each draw, ids that would break a JSON schema are left out.

A `Guide` says when a grammar begins to hold: at once, or behind a control id such as `<tool_call>`. What follows a call
is free again; what follows an answer that is JSON as a whole can only be its end. Schemas come from strangers, so their
depth, their size and the work that they may cause are bounded. The grammars themselves are llguidance's.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import llguidance
import numpy as np

from minimind.generation.json_schema import closed_schema
from minimind.text.chat_template import CALL_MARKS
from minimind.text.tokenizer import Tokenizer

__all__ = ["Grammars", "Guide", "Guided"]

log = logging.getLogger(__name__)

MAX_CHARACTERS = 65536
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 20_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 50_000,
    "verbose_errors": False,
}
# What a tool takes that names none, as OpenAI has it.
NO_PARAMETERS: dict[str, Any] = {"properties": {}, "additionalProperties": False}
# As `json.dumps` writes, which is what models are trained on.
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class Guide:
    """A grammar, compiled once for all choices of a request.

    trigger:  the id behind which it holds; None when it holds from the start
    repeats:  whether the answer is free before and behind it
    """

    matcher: llguidance.LLMatcher
    eos_id: int
    trigger: int | None = None
    repeats: bool = False

    def begin(self) -> "Guided":
        return Guided(self)


class Guided:
    """One answer on its way through a guide."""

    def __init__(self, guide: Guide) -> None:
        self._guide = guide
        self._matcher = guide.matcher.deep_copy() if guide.trigger is None else None
        self._is_over = False

    def allowed(self) -> np.ndarray | None:
        """[V] bool, the ids that may follow; None when all may."""
        if self._matcher is not None:
            return np.frombuffer(self._matcher.compute_logit_bias(), np.uint8) > 0
        if not self._is_over:
            return None
        end = np.zeros(self._guide.eos_id + 1, bool)
        end[-1] = True
        return end

    def accept(self, index: int) -> None:
        """Told each id that was drawn. Errors: ValueError when the grammar took more work than it may"""
        if self._matcher is None:
            if index == self._guide.trigger and not self._is_over:
                self._matcher = self._guide.matcher.deep_copy()
            return
        if not self._matcher.consume_token(index):
            raise ValueError("the grammar does not go on")
        if self._matcher.is_stopped():
            self._matcher = None
            self._is_over = not self._guide.repeats


class Grammars:
    """Makes guides for one tokenizer. Errors of its methods: ValueError for a schema that cannot be used"""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def for_answer(
        self,
        schema: Mapping[str, Any],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        thinking: bool = False,
        parallel: bool = True,
        strict: bool = False,
    ) -> Guide:
        """The whole answer is JSON of this schema, or calls of the tools; behind the reasoning if there is some.

        strict:  the schema is held to the letter, or refused
        """
        calls = "" if not tools else ' | marked ("\\n" marked)*' if parallel else " | marked"
        first = 'start: "\\n\\n" answer' if thinking else "start: answer"
        trigger = self._tokenizer.control("</think>") if thinking else None

        def lark(plain: bool) -> str:
            rules = [f"json: {_json(schema, strict=strict, plain=plain)}"]
            if tools:
                mark = self._tokenizer.control(CALL_MARKS[0])
                rules += [f"marked: <[{mark}]> call", *self._call_rules(tools, plain)]
            return "\n".join([first, f"answer: json{calls}", *rules])

        return self._guide(lark, trigger=trigger)

    def for_calls(
        self, tools: Iterable[Mapping[str, Any]], forced: Sequence[int] | None = None, *, parallel: bool = True
    ) -> Guide:
        """Calls of these tools are JSON of their parameters' schemas.

        forced:    what a call begins with that the prompt has opened already; the answer is then this one call
        parallel:  more may follow the first one; else it ends the answer
        """
        tools = [*tools]

        def lark(plain: bool) -> str:
            return "\n".join(["start: call", *self._call_rules(tools, plain)])

        if forced is None:
            return self._guide(lark, trigger=self._tokenizer.control(CALL_MARKS[0]), repeats=parallel)
        guide = self._guide(lark)
        if not guide.matcher.consume_tokens(list(forced)):
            raise ValueError("no call begins so")
        return guide

    def _call_rules(self, tools: Iterable[Mapping[str, Any]], plain: bool) -> list[str]:
        """The rule `call`: what stands behind the opening mark, the closing one included."""
        close = self._tokenizer.control(CALL_MARKS[1])
        rules, names = [], []
        for place, tool in enumerate(tools):
            function = tool["function"]
            head = json.dumps(f'\n{{"name": {json.dumps(function["name"])}, "arguments": ')
            given = function.get("parameters")
            parameters = {"type": "object", **(NO_PARAMETERS if given is None else given)}
            strict = function.get("strict") is True
            names.append(f"call{place}")
            rules.append(f'call{place}: {head} {_json(parameters, strict=strict, plain=plain)} "}}\\n" <[{close}]>')
        return [f"call: {' | '.join(names)}", *rules]

    def _guide(self, lark: Callable[[bool], str], **when: Any) -> Guide:
        """lark: whether patterns are left free -> the grammar, which is tried with them first"""
        try:
            return self._compiled(lark(False), **when)
        except ValueError as error:
            relaxed = lark(True)
            if relaxed == lark(False):
                raise
            log.warning("a schema's patterns are left free: %s", error)
            return self._compiled(relaxed, **when)

    def _compiled(self, lark: str, **when: Any) -> Guide:
        limits = llguidance.LLParserLimits(**LIMITS)
        grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        matcher = llguidance.LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise ValueError(f"the schema cannot be used: {matcher.get_error().splitlines()[0][:300]}")
        return Guide(matcher, self._tokenizer.eos_id, **when)

    @cached_property
    def _vocabulary(self) -> llguidance.LLTokenizer:
        return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes(self._tokenizer)))


class _Bytes:
    """A tokenizer as llguidance wants one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id = tokenizer.eos_id
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.decode_bytes([index]) for index in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.control_ids)
        self._tokenizer = tokenizer

    def __call__(self, data: bytes) -> list[int]:
        return self._tokenizer.encode_bytes(data)


def _json(schema: Mapping[str, Any], *, strict: bool, plain: bool) -> str:
    """A schema inside a grammar. Errors: ValueError"""
    closed, left_free = closed_schema(schema, strict=strict, plain=plain)
    if left_free:
        log.warning("a schema's %s cannot be held and is left free", ", ".join(left_free))
    # Lenient: words of JSON Schema that are not known leave their part of the answer free.
    text = json.dumps({**closed, "x-guidance": SPACING | {"lenient": not strict}})
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"the schema has {len(text):,} characters; expected at most {MAX_CHARACTERS:,}")
    return f"%json {text}"
