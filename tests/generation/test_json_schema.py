"""A schema that is held says what its sender meant: closed where silent, and nothing is left free without a word."""

import json
import random
from typing import Any

import pytest
from tests.serve.tiny_server import TOKENIZER

from minimind.generation.grammar import Grammars
from minimind.generation.json_schema import closed_schema

jsonschema_rs = pytest.importorskip("jsonschema_rs")
GRAMMARS = Grammars(TOKENIZER)
NUMBER, TEXT = {"type": "integer", "maximum": 9}, {"type": "string", "maxLength": 3}
PERSON = {"type": "object", "properties": {"name": TEXT, "age": NUMBER}, "required": ["name"]}


def take(schema: dict[str, Any], text: str) -> bool:
    """Is this a whole answer?"""
    matcher = GRAMMARS.for_answer(schema).matcher.deep_copy()
    ids = TOKENIZER.encode(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def babble(schema: dict[str, Any], seed: int) -> Any:
    """An answer of random ids that the grammar allows."""
    rng, guided, said = random.Random(seed), GRAMMARS.for_answer(schema).begin(), []
    for _ in range(400):
        allowed = guided.allowed()
        assert allowed is not None
        index = rng.choice([int(place) for place in allowed.nonzero()[0]])
        if index == TOKENIZER.eos_id:
            return json.loads(TOKENIZER.decode(said))
        said.append(index)
        guided.accept(index)
    return None


def test_an_object_that_lists_its_properties_has_no_others() -> None:
    assert take(PERSON, '{"name": "ab", "age": 3}') and take(PERSON, '{"name": "ab"}')
    assert not take(PERSON, '{"name": "ab", "more": 1}') and not take(PERSON, '{"name": "ab", "name": "c"}')
    open_one = PERSON | {"additionalProperties": True}
    assert take(open_one, '{"name": "ab", "more": 1}')
    assert not take({"properties": {"a": NUMBER}}, "5")


def test_every_level_is_closed() -> None:
    nested = {"type": "array", "items": {"anyOf": [PERSON, {"$ref": "#/$defs/b"}]}, "$defs": {"b": {"properties": {}}}}
    closed, free = closed_schema(nested, strict=False)
    assert closed["items"]["anyOf"][0]["additionalProperties"] is False
    assert closed["$defs"]["b"]["additionalProperties"] is False and free == []


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"allOf": [PERSON, {"properties": {"town": TEXT}}]}, {"name": "a", "town": "b"}, {"town": "b"}),
        ({"allOf": [{"$ref": "#/$defs/p"}], "$defs": {"p": PERSON}}, {"name": "a"}, {"age": 1}),
        (
            {"allOf": [{"$ref": "#/$defs/p"}, {"required": ["age"]}], "$defs": {"p": PERSON}},
            {"name": "a", "age": 1},
            {"name": "a"},
        ),
        (
            {**PERSON, "anyOf": [{"required": ["age"]}, {"properties": {"x": NUMBER}, "required": ["x"]}]},
            {"name": "a", "x": 1},
            {"name": "a"},
        ),
        ({"allOf": [{"minimum": 2, "type": "integer"}, {"maximum": 5}]}, 3, 7),
        (
            {"properties": {"pattern": TEXT, "not": NUMBER}, "required": ["not"]},
            {"pattern": "a", "not": 1},
            {"pattern": "a"},
        ),
    ],
)
def test_parts_that_hold_together_are_held_as_one(schema: dict[str, Any], right: Any, wrong: Any) -> None:
    jsonschema_rs.validate(schema, right)
    assert take(schema, json.dumps(right)) and not take(schema, json.dumps(wrong))


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_said_is_valid(seed: int) -> None:
    schema = {
        "properties": {
            "who": {"allOf": [{"$ref": "#/$defs/person"}, {"properties": {"town": TEXT}}]},
            "when": {"type": "string", "pattern": "^[0-9]{2}$"},
            "what": {"oneOf": [{"type": "null"}, {"type": "array", "items": NUMBER, "maxItems": 2}]},
        },
        "required": ["who", "when"],
        "$defs": {"person": PERSON},
    }
    said = babble(schema, seed)
    if said is not None:
        jsonschema_rs.validate(schema, said)
        assert set(said) <= {"who", "when", "what"}


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "string", "not": {"const": "a"}}, "not"),
        ({"type": "array", "items": NUMBER, "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "pattern": "a" * 300}, "pattern"),
        ({"type": "object", "patternProperties": {"^a": NUMBER}}, "patternProperties"),
        ({"if": PERSON, "then": PERSON}, "if"),
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, "allOf"),
    ],
)
def test_what_cannot_be_held_is_left_free_by_name_and_refused_where_strict(schema: dict[str, Any], word: str) -> None:
    _, free = closed_schema(schema, strict=False)
    assert word in free
    with pytest.raises(ValueError, match=f"the schema has '{word}'"):
        closed_schema(schema, strict=True)
    GRAMMARS.for_answer(schema)


def test_a_pattern_beside_a_format_is_left_to_the_format() -> None:
    schema = {"type": "string", "format": "date", "pattern": "^[0-9-]+$"}
    assert closed_schema(schema, strict=False) == ({"type": "string", "format": "date"}, ["pattern"])
    assert take(schema, '"2026-01-31"') and not take(schema, '"2026"')


def test_a_format_that_nobody_knows_leaves_its_text_free() -> None:
    assert take({"type": "string", "format": "binary"}, '"x"')


def test_switches_that_ask_for_nothing_are_read_past() -> None:
    schema = {"type": "array", "items": NUMBER, "uniqueItems": False, "minItems": 1}
    assert closed_schema(schema, strict=True) == ({"type": "array", "items": NUMBER, "minItems": 1}, [])


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}])
def test_a_reference_that_leads_only_to_itself_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leads only to itself"):
        closed_schema(schema, strict=False)


def test_a_tree_may_refer_to_itself() -> None:
    tree = {
        "properties": {"value": NUMBER, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["value"],
    }
    assert take(tree, '{"value": 1, "next": {"value": 2, "next": null}}')


def test_alternatives_within_alternatives_are_bounded() -> None:
    schema: dict[str, Any] = {"properties": {"a": NUMBER}}
    for _ in range(12):
        schema = {"properties": {"a": schema}, "anyOf": [{"required": ["a"]}] * 8}
    with pytest.raises(ValueError, match="comes to more than 10,000 parts"):
        closed_schema(schema, strict=False)
