"""What a stranger's JSON schema asks of an answer, as a grammar can hold it.

Two things make a schema hold a small model. Silence means closed: an object that lists its properties has those and no
others, as in xgrammar and llama.cpp, for an object that may go on for ever does. And parts that say one thing together
(`allOf`, properties beside `anyOf`) are written as one. What would cost more work than an answer is worth is left free
and named, or refused where the schema is to be held strictly.
"""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["closed_schema"]

Schema = Mapping[str, Any]

# A pattern is compiled into states; that of a date or a code is short.
MAX_PATTERN = 256
# Each way to fill an object that has properties beside its alternatives is written out.
MAX_ALTERNATIVES = 32
MAX_DEPTH = 32
# Alternatives within alternatives multiply.
MAX_PARTS = 10_000
# Words that no grammar here holds.
UNHELD = ("not", "if", "then", "else", "dependentSchemas", "dependentRequired", "dependencies", "propertyNames")
UNHELD_NUMBERS = ("uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties")
# Beside one of these a pattern says nearly the same, and both at once are dear.
FORMATS = ("date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
ALTERNATIVES = ("anyOf", "oneOf")
# What says how a part looks to people, and nothing of what is in it.
WORDS = {"title", "description", "default", "example", "examples", "deprecated", "$comment", "$id", "$schema"}


def closed_schema(schema: Schema, *, strict: bool, plain: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The schema to hold, and what of it is left free.

    strict:  nothing may be left free
    plain:   leave patterns free, too
    Errors:  ValueError for what cannot be held, and for references that lead nowhere or only to themselves
    """
    reader = _Reader(schema, strict=strict, plain=plain)
    return reader.read(schema, 0), sorted(reader.left_free)


class _Reader:
    def __init__(self, root: Schema, *, strict: bool, plain: bool) -> None:
        self._root, self._strict, self._plain = root, strict, plain
        self.left_free: set[str] = set()
        self._num_parts = 0

    def read(self, node: Any, depth: int) -> Any:
        if not isinstance(node, Mapping):
            return node
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise ValueError(f"the schema comes to more than {MAX_PARTS:,} parts")
        if depth > MAX_DEPTH:
            raise ValueError(f"the schema is nested deeper than {MAX_DEPTH} levels")
        self._require_an_end(node)
        node = self._held(self._merged(node, depth))
        found = next((word for word in ALTERNATIVES if isinstance(node.get(word), list)), None)
        if found and ("properties" in node or "required" in node):
            node = self._distributed(node, found, depth)
        if isinstance(node.get("properties"), Mapping) and "unevaluatedProperties" not in node:
            # Who lists properties means an object, also where they forget to say so.
            node = {"type": "object", "additionalProperties": False, **node}
        return {key: self._inside(key, value, depth + 1) for key, value in node.items()}

    def _inside(self, key: str, value: Any, depth: int) -> Any:
        if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            return {name: self.read(part, depth) for name, part in value.items()}
        if key in ("anyOf", "oneOf", "prefixItems") and isinstance(value, list):
            return [self.read(part, depth) for part in value]
        if key in ("items", "additionalProperties", "additionalItems") and isinstance(value, Mapping):
            return self.read(value, depth)
        return value

    def _held(self, node: dict[str, Any]) -> dict[str, Any]:
        """Without the words that cannot be held."""
        for word in UNHELD:
            if word in node:
                self._leave_free(word)
        for word in UNHELD_NUMBERS:
            if node.get(word) not in (None, False, 0):
                self._leave_free(word)
        node = {key: value for key, value in node.items() if key not in (*UNHELD, *UNHELD_NUMBERS)}
        if isinstance(node.get("patternProperties"), Mapping):
            self._leave_free("patternProperties")
            node = {key: value for key, value in node.items() if key != "patternProperties"}
            node.setdefault("additionalProperties", True)
        pattern = node.get("pattern")
        is_doubled = node.get("format") in FORMATS and not self._strict
        is_free = is_doubled or (self._plain and not self._strict)
        if isinstance(pattern, str) and (is_free or len(pattern) > MAX_PATTERN):
            self._leave_free("pattern")
            node = {key: value for key, value in node.items() if key != "pattern"}
        return node

    def _leave_free(self, word: str) -> None:
        if self._strict:
            raise ValueError(f"the schema has {word!r}, which this server does not hold; leave it out, or strict")
        self.left_free.add(word)

    def _merged(self, node: Schema, depth: int) -> dict[str, Any]:
        """All parts of `allOf` and what stands beside them, as one."""
        merged = {key: value for key, value in node.items() if key != "allOf"}
        parts = node.get("allOf")
        if not isinstance(parts, list):
            return merged
        if depth > MAX_DEPTH:
            raise ValueError(f"the schema is nested deeper than {MAX_DEPTH} levels")
        for part in parts:
            if isinstance(part, Mapping):
                resolved = self._resolved(part) if len(parts) > 1 or set(merged) - WORDS else part
                merged = self._both(merged, self._merged(resolved, depth + 1))
        return merged

    def _both(self, first: Schema, second: Schema) -> dict[str, Any]:
        """What holds where both hold."""
        both = {**first}
        for key, value in second.items():
            if key not in both or both[key] == value or key in WORDS:
                both.setdefault(key, value)
            elif key == "properties":
                both[key] = {**both[key], **{n: _with(both[key].get(n), part) for n, part in value.items()}}
            elif key == "required":
                both[key] = [*both[key], *(name for name in value if name not in both[key])]
            elif key in ("minimum", "exclusiveMinimum", "minLength", "minItems"):
                both[key] = max(both[key], value)
            elif key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems"):
                both[key] = min(both[key], value)
            elif key in ("$defs", "definitions"):
                both[key] = {**both[key], **value}
            elif key == "additionalProperties" and isinstance(value, bool) and isinstance(both[key], bool):
                both[key] = both[key] and value
            else:
                self._leave_free("allOf")
        return both

    def _distributed(self, node: Schema, word: str, depth: int) -> dict[str, Any]:
        """Properties beside alternatives: each alternative with them."""
        alternatives = node[word]
        if len(alternatives) > MAX_ALTERNATIVES:
            self._leave_free(word)
            return {key: value for key, value in node.items() if key != word}
        rest = {key: value for key, value in node.items() if key not in (word, "$defs", "definitions")}
        parts = [self._resolved(part) for part in alternatives if isinstance(part, Mapping)]
        ways = [self._both(rest, self._merged(part, depth)) for part in parts]
        return {"anyOf": ways, **{key: node[key] for key in ("$defs", "definitions") if key in node}}

    def _resolved(self, node: Schema) -> Schema:
        """What a reference stands for, and what stands beside it."""
        seen = 0
        while isinstance(node.get("$ref"), str):
            target = self._target(node["$ref"])
            beside = {key: value for key, value in node.items() if key != "$ref"}
            node = self._both(beside, target)
            seen += 1
            if seen > MAX_DEPTH:
                raise ValueError("a reference of the schema leads only to itself")
        return node

    def _target(self, reference: str) -> Schema:
        if not reference.startswith("#"):
            raise ValueError(f"the schema refers to {reference!r:.100}; only its own parts can be referred to")
        found: Any = self._root
        for name in reference[1:].split("/")[1:]:
            name = name.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            raise ValueError(f"the schema refers to {reference!r:.100}, which is not there")
        return found

    def _require_an_end(self, node: Schema) -> None:
        """Refuse a part that can only be itself: no answer would ever begin."""
        waiting, seen = [node], 0
        passed: set[str] = set()
        while waiting and seen < 1000:
            part, seen = waiting.pop(), seen + 1
            if isinstance(part.get("$ref"), str):
                if part["$ref"] in passed and set(part) - WORDS == {"$ref"} and not waiting:
                    raise ValueError("a reference of the schema leads only to itself")
                if part["$ref"] not in passed:
                    passed.add(part["$ref"])
                    waiting.append(self._target(part["$ref"]))
            waiting += [*_choices(part)]


def _choices(node: Schema) -> Iterator[Schema]:
    """The parts that hold at the same place."""
    for word in ("allOf", *ALTERNATIVES):
        parts = node.get(word)
        yield from (part for part in parts if isinstance(part, Mapping)) if isinstance(parts, list) else ()


def _with(first: Any, second: Any) -> Any:
    """A property that two parts describe."""
    if first is None or first == second:
        return second
    return {"allOf": [first, second]}
