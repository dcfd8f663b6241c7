"""A small real tokenizer, and a way to write down rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minimind.text.tokenizer import Tokenizer

WORDS = "the cat sat on a mat and looked at the sun while 今天天气很好，我们去公园散步。 numbers like 12 and 345 "


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([WORDS * 20], 320)


@pytest.fixture(scope="session")
def other_tokenizer() -> Tokenizer:
    return Tokenizer.train([WORDS * 20], 310)


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write objects as lines of JSON to a file of a name, which is returned."""

    def write(name: str, values: list[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
        return path

    return write
