"""Whatever a model would like to say, a guided answer has the form that was asked for."""

import json
import random
import time
from typing import Any

import numpy as np
import pytest
from tests.tiny import TOKENIZER

from minimind.generation.grammar import Grammars, Guide, Guided

GRAMMARS = Grammars(TOKENIZER)
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "kind": {"enum": ["a", "b"]}},
    "required": ["x", "kind"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "add", "parameters": POINT}},
    {"type": "function", "function": {"name": 'n"ow'}},
]


def babble(guide: Guide, seed: int, *, start: tuple[int, ...] = (), most: int = 400) -> list[int]:
    """Any allowed ids, but digits and quotes seldom, until the end."""
    chance, guided, ids = random.Random(seed), Guided(guide), list(start)
    for index in start:
        guided.accept(index)
    while len(ids) < most:
        allowed = guided.allowed()
        assert allowed is not None and allowed.any()
        places = np.flatnonzero(allowed[: TOKENIZER.vocab_size]).tolist()
        closing = [place for place in places if TOKENIZER.decode([place]) in ('"', "}", ' "', "}\n", "\n", ",")]
        index = chance.choice(closing if closing and chance.random() < 0.5 else places)
        ids.append(index)
        if index == TOKENIZER.eos_id:
            return ids[:-1]
        guided.accept(index)
    return ids


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_is_json_of_the_schema(seed: int) -> None:
    value = json.loads(TOKENIZER.decode(babble(GRAMMARS.for_answer(POINT), seed)))
    assert type(value["x"]) is int and value["kind"] in ("a", "b") and len(value) == 2


def test_reasoning_is_free_and_what_follows_it_is_not() -> None:
    guide = GRAMMARS.for_answer(POINT, thinking=True)
    guided = Guided(guide)
    assert guided.allowed() is None
    guided.accept(100)
    assert guided.allowed() is None
    said = babble(guide, 3, start=(TOKENIZER.control("</think>"),))
    assert json.loads(TOKENIZER.decode(said[1:]))["kind"] in ("a", "b")


@pytest.mark.parametrize("seed", range(5))
def test_a_call_is_one_of_the_tools_and_then_all_is_free_again(seed: int) -> None:
    guided, chance = Guided(GRAMMARS.for_calls(TOOLS[:1])), random.Random(seed)
    assert guided.allowed() is None
    guided.accept(TOKENIZER.control("<tool_call>"))
    said = []
    while (allowed := guided.allowed()) is not None and len(said) < 300:
        said.append(chance.choice(np.flatnonzero(allowed).tolist()))
        guided.accept(said[-1])
    text, end = TOKENIZER.decode(said[:-1]), said[-1]
    assert end == TOKENIZER.control("</tool_call>") and text.startswith("\n{") and text.endswith("}\n")
    assert json.loads(text)["name"] == "add" and set(json.loads(text)["arguments"]) == {"x", "kind"}


@pytest.mark.parametrize("head", ['\n{"name":', '\n{"name": "add", "arguments":', '\n{"name": "n\\"ow", "arguments":'])
def test_a_forced_call_goes_on_where_the_prompt_ends(head: str) -> None:
    said = babble(GRAMMARS.for_calls(TOOLS, TOKENIZER.encode(head)), 1)
    assert said[-1] == TOKENIZER.control("</tool_call>")
    assert json.loads(head + TOKENIZER.decode(said[:-1]))["name"] in ("add", 'n"ow')


def told(ids: list[int]) -> tuple[str, list[dict[str, Any]]]:
    """The text of an answer outside of its calls, and the calls."""
    text, *calls = TOKENIZER.decode(ids).split("<tool_call>")
    assert all(call.removesuffix("\n").endswith("</tool_call>") for call in calls)
    return text, [json.loads(call.partition("</tool_call>")[0]) for call in calls]


@pytest.mark.parametrize("parallel", [True, False])
def test_an_answer_is_json_or_calls_where_there_are_tools(parallel: bool) -> None:
    guide = GRAMMARS.for_answer(POINT, TOOLS, parallel=parallel)
    open_call = TOKENIZER.control("<tool_call>")
    allowed = Guided(guide).allowed()
    assert allowed is not None
    assert set(np.flatnonzero(allowed)) == {open_call, *TOKENIZER.encode("{")}
    found = [told(babble(guide, seed, start=(open_call,), most=5000)) for seed in range(12)]
    assert all(not text.strip() and calls for text, calls in found)
    assert {call["name"] for _, calls in found for call in calls} == {"add", 'n"ow'}
    assert (max(len(calls) for _, calls in found) > 1) is parallel
    thought = babble(GRAMMARS.for_answer(POINT, TOOLS, thinking=True), 1, start=(TOKENIZER.control("</think>"),))
    assert TOKENIZER.decode(thought[1:]).startswith(("\n\n{", "\n\n<tool_call>"))


@pytest.mark.parametrize("parallel", [True, False])
def test_only_the_end_follows_a_call_where_there_may_be_one_alone(parallel: bool) -> None:
    guided = Guided(GRAMMARS.for_calls(TOOLS, parallel=parallel))
    call = '<tool_call>\n{"name": "n\\"ow", "arguments": {}}\n</tool_call>'
    for index in TOKENIZER.encode_with_control(call):
        guided.accept(index)
    allowed = guided.allowed()
    assert allowed is None if parallel else np.flatnonzero(allowed).tolist() == [TOKENIZER.eos_id]  # type: ignore


def test_a_tool_without_parameters_is_given_no_arguments() -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    head = '\n{"name": "now", "arguments":'
    for seed in range(3):
        said = babble(GRAMMARS.for_calls(tools, TOKENIZER.encode(head)), seed)
        assert json.loads(head + TOKENIZER.decode(said[:-1]))["arguments"] == {}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        deep(100),
        {"type": "nothing"},
        {"enum": ["a" * 70_000]},
        {"$ref": "#/nowhere"},
        {"$ref": "http://localhost/schema.json"},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
    ],
)
def test_hostile_schemas_are_refused_in_bounded_time(schema: dict[str, Any]) -> None:
    begin = time.process_time()
    with pytest.raises(ValueError, match="schema"):
        GRAMMARS.for_answer(schema)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(" * 50},
        {"type": "string", "pattern": "a" * 300},
        {"allOf": [{"type": "string", "pattern": f".*a.{{{n}}}b.*"} for n in range(40, 60)]},
    ],
)
def test_dear_patterns_are_left_free_or_refused_where_the_schema_is_strict(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="schema"):
        GRAMMARS.for_answer(schema, strict=True)
    GRAMMARS.for_answer(schema)
