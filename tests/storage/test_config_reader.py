"""A field of the wrong type or size is an error that names it; one that is not there has its default."""

from typing import Any

import pytest

from minimind.errors import CheckpointError
from minimind.storage.config_reader import LARGEST_SIZE, Reader

FIELDS: dict[str, Any] = {"size": 3, "number": 0.5, "on": True, "none": None, "table": {"inner": 1}, "text": "a"}


def test_fields_of_the_right_type_are_read_and_absent_ones_have_their_default() -> None:
    read = Reader(FIELDS, "x")
    assert (read.size("size"), read.number("number"), read.switch("on")) == (3, 0.5, True)
    assert (read.size("none", 7), read.number("gone", 2), read.switch("gone", default=True)) == (7, 2.0, True)
    assert read.choice("text", ("a", "b")) == "a"
    assert read.table("table").size("inner") == 1 and not read.table("gone")


@pytest.mark.parametrize(
    ("method", "name", "words"),
    [
        ("size", "number", "number is 0.5; expected a whole number from 1"),
        ("size", "on", "on is True; expected a whole number"),
        ("size", "none", "none is missing; expected a whole number"),
        ("number", "on", "on is True; expected a number above 0"),
        ("number", "text", "text is 'a'; expected a number above 0"),
        ("switch", "size", "size is 3; expected true or false"),
        ("table", "text", "text is 'a'; expected an object"),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(method: str, name: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=f"^x: {words}"):
        getattr(Reader(FIELDS, "x"), method)(name)


def test_a_size_that_no_model_has_is_refused() -> None:
    with pytest.raises(CheckpointError, match="expected a whole number from 1 to"):
        Reader({"size": LARGEST_SIZE + 1}, "x").size("size")
