"""Prompts from texts, lines and rows of any shape; what is none is named with its line."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from minimind.errors import DataError
from minimind.stages.generate.prompts import GivenPrompt, read_prompts

QUESTION = {"role": "user", "content": "你好"}
ANSWER = {"role": "assistant", "content": "hello"}


def read(path: Path, *rows: Any, chat: bool = False) -> list[GivenPrompt]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_prompts([], [str(path)], chat=chat))


def test_rows_of_every_shape_are_prompts(tmp_path: Path) -> None:
    alpaca = {"instruction": "你好", "output": "hello"}
    talks = [{"messages": [QUESTION]}, {"conversations": [QUESTION, ANSWER], "text": "rendered"}, alpaca]
    found = read(tmp_path / "in.jsonl", {"prompt": "a"}, {"text": ""}, *talks)
    assert [prompt.row for prompt in found] == [{"prompt": "a"}, {"prompt": ""}, *[{"messages": [QUESTION]}] * 3]
    assert [prompt.conversation is None for prompt in found] == [True, True, False, False, False]
    assert found[3].where == f"{tmp_path}/in.jsonl:4"


def test_the_tools_of_a_row_are_offered_again(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    [prompt] = read(tmp_path / "in.jsonl", {"messages": [QUESTION], "tools": [tool]})
    assert prompt.row["tools"] == [tool] and prompt.conversation and prompt.conversation.tools == (tool,)


def test_a_text_is_a_question_in_a_chat(tmp_path: Path) -> None:
    [prompt] = read(tmp_path / "in.jsonl", {"text": "hi"}, chat=True)
    assert prompt.row == {"prompt": "hi"} and prompt.conversation and prompt.conversation.messages[0].role == "user"


def test_several_sources_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(tmp_path / "in.jsonl", {"prompt": "c"})
    (tmp_path / "in.txt").write_text("\ufeffa\n\nb\n")
    sources = [str(tmp_path / name) for name in ("in.txt", "in.jsonl")]
    assert [prompt.row["prompt"] for prompt in read_prompts([], sources, chat=False)] == ["a", "b", "c"]
    monkeypatch.setattr("sys.stdin", io.StringIO("d\n"))
    assert [prompt.where for prompt in read_prompts([], [], chat=False)] == ["standard input:1"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"body": "why?"}, "has 'body'; expected a prompt or a text"),
        ({"prompt": 5, "text": None}, "message 1 has content of type int"),
        ({"chosen": [], "rejected": []}, "has 'chosen', 'rejected'; expected"),
        ({}, "has nothing; expected"),
        ({"messages": [ANSWER]}, "there is nothing to answer"),
        ({"messages": [QUESTION, ANSWER, ANSWER]}, "there is nothing to answer"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "message 1 has role 'robot'"),
        ("text", "expected an object"),
    ],
)
def test_a_row_that_is_no_prompt_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"in\.jsonl:2: .*{message}"):
        read(tmp_path / "in.jsonl", {"prompt": "a"}, row)


def test_a_conversation_beside_a_prompt_is_what_is_answered(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "prompt_id": "x", "messages": turns}))
    [prompt] = read_prompts([], [str(path)], chat=False)
    assert prompt.conversation is not None and [m.content for m in prompt.conversation.messages] == ["Hi"]
