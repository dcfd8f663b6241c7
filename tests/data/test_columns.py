"""Columns of any name are read as the reader says what they are, and no others."""

import pytest
from pydantic import ValidationError

from minimind.data.columns import columns_by_name, renamed
from minimind.data.options import PrepareOptions


def test_only_the_named_columns_are_read() -> None:
    columns = columns_by_name(["prompt=question", "answer=reply", "system=who"])
    row = {"question": "q", "reply": "a", "messages": [], "note": 1}
    assert renamed(row, columns) == {"prompt": "q", "answer": "a"}
    assert renamed(row, {}) is row


@pytest.mark.parametrize("words", [["prompt"], ["prompt="], ["colour=x"], ["prompt=a", "prompt=b"]])
def test_a_word_that_names_no_column_is_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match=words[-1].partition("=")[0]):
        columns_by_name(words)
    with pytest.raises(ValidationError):
        PrepareOptions(columns=words)
