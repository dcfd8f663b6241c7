"""Arrays and objects over several lines are cut as a whole parse would cut them, wherever blocks end."""

import io
import json
import random
from typing import Any

import pytest

from minimind.data.chunks import BadRow, JsonValues, Row
from minimind.data.json_values import JsonCutter, is_cut_by_lines


def cut(data: bytes, size: int = 1 << 20, max_bytes: int = 1 << 20) -> tuple[list[tuple[int, bytes | int]], bool]:
    stream = io.BytesIO(data)
    cutter = JsonCutter(lambda _: stream.read(size), max_bytes)
    return [value for block in cutter.blocks() for value in block], cutter.is_cut


def anything(generator: random.Random, depth: int = 0) -> Any:
    kinds = ["text", "number", "null"] + ["list", "object"] * (depth < 3)
    kind = generator.choice(kinds)
    if kind == "list":
        return [anything(generator, depth + 1) for _ in range(generator.randrange(4))]
    if kind == "object":
        return {f"k{n}": anything(generator, depth + 1) for n in range(generator.randrange(4))}
    return {"text": "".join(generator.choices('a\\"[]{},:\n é', k=6)), "number": 1.5, "null": None}[kind]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("is_array", [True, False])
def test_values_are_those_of_a_whole_parse_wherever_blocks_end(indent: int | None, is_array: bool) -> None:
    generator = random.Random(f"{indent} {is_array}")
    for _ in range(50):
        values = [{"n": n, "v": anything(generator)} for n in range(generator.randrange(1, 6))]
        data = (
            json.dumps(values, indent=indent) if is_array else "\n".join(json.dumps(v, indent=indent) for v in values)
        )
        for size in (1, 2, 7, 1000):
            found, is_cut = cut(data.encode(), size)
            assert [json.loads(value) for _, value in found if isinstance(value, bytes)] == values and not is_cut


def test_a_value_has_the_number_of_its_first_line() -> None:
    found, _ = cut(b'\n[\n {"a":\n 1},\n\n {"b": 2}\n]\n[{"c": 3}]')
    assert found == [(3, b'{"a":\n 1}'), (6, b'{"b": 2}'), (8, b'{"c": 3}')]


def test_a_broken_value_is_bad_alone() -> None:
    found, is_cut = cut(b'[{"a": 1}, {"b": nope}, {"c": 3},]')
    rows = list(JsonValues("f", 0, tuple(found), is_cut).rows())
    assert [type(row) for row in rows] == [Row, BadRow, Row]


@pytest.mark.parametrize("data", [b'[{"a": 1}', b'[{"a": 1},\n{"b', b'[{"a": 1},'])
def test_an_array_that_is_not_closed_is_said(data: bytes) -> None:
    found, is_cut = cut(data)
    *_, last = JsonValues("f", 0, tuple(found), is_cut).rows()
    assert is_cut and isinstance(last, BadRow) and "the file ends within this line" in last.reason


def test_a_value_over_the_limit_is_counted_and_not_held() -> None:
    data = json.dumps([{"a": "x" * 5000}, {"b": 1}]).encode()
    assert cut(data, 100, max_bytes=1000)[0] == [(1, 5009), (1, b'{"b": 1}')]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b'{"a": 1}\n{"b": 2}\n', True),
        (b'{"a": 1, "b": [\n', True),
        (b"{\n", True),
        (b'{"a":\n{"b": 2}\n', True),
        (b"[1]\n[2]\n", True),
        (b'[{"a": 1}]', False),
        (b' [\n  {"a": 1}', False),
        (b"[]", False),
        (b'{\n  "a": 1\n}\n', False),
        (b'{"a": [\n  1\n]}', False),
    ],
)
def test_lines_are_told_from_arrays_and_from_objects_over_several_lines(start: bytes, expected: bool) -> None:
    assert is_cut_by_lines(start) is expected
