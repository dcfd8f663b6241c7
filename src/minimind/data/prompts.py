"""Prompts for reinforcement learning, read from chat data: what to ask, which tools to offer, what is right.

Rows are those of SFT, or prompts alone; a last assistant message only holds the place and is dropped. What rewards
compare with is a string, a number, or a list of them: `gt` or `ground_truth` beside the prompt, verl's
`reward_model.ground_truth`, or the last box or `####` of an answer or solution in a column of its own, as GSM8K has it.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.data.chunks import BadRow, Row
from minimind.data.columns import renamed
from minimind.data.corpus import NO_COLUMNS, BadRows, read_chunks
from minimind.data.files import find_files
from minimind.errors import ConfigError, DataError
from minimind.text.conversation import Conversation, Message
from minimind.text.final_answer import final_answer
from minimind.text.shapes import find_shape, present

__all__ = ["Prompt", "fingerprint_of", "parse_prompt", "read_prompts"]

# Columns that hold what is right where a question has a column of its own; an `output` or `response` is only an answer.
ANSWERS = ("answer", "solution")


@dataclass(frozen=True)
class Prompt:
    """A question to roll out.

    tools:     schemas on offer, as the data gives them
    gt:        what is right, one text for each expected value; empty where nobody knows
    thinking:  is the answer asked for with an open think block?
    where:     `path:line` of its row, for messages
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    gt: tuple[str, ...] = ()
    thinking: bool = False
    where: str = ""


def read_prompts(
    sources: Iterable[str | Path],
    *,
    thinking_share: float = 0.0,
    seed: int = 0,
    problem: Callable[[Prompt], str] = lambda prompt: "",
    columns: Mapping[str, str] = NO_COLUMNS,
    max_bad_rows: int = 0,
    observe: Callable[[BadRow], None] = lambda bad: None,
) -> list[Prompt]:
    """The prompts of all sources in order.

    thinking_share:  of the prompts that are asked for thinking; each is decided by (seed, its place in the list) alone
    problem:         why a prompt cannot be used, such as `Rewards.problem`, or ""; it is a bad row then
    columns:         see `columns_by_name`
    observe:         told each bad row that `max_bad_rows` allows
    Errors:          ConfigError for a share that is none; DataError for a file that cannot be read, at the first bad
                     row over the limit, and where no prompt is left.
    """
    if not 0 <= thinking_share <= 1:
        raise ConfigError(f"thinking_share is {thinking_share}; expected a share from 0 to 1")
    names = [str(source) for source in sources]
    bad_rows = BadRows(max_bad_rows, observe)
    prompts: list[Prompt] = []
    for chunk in read_chunks(find_files(names), columns=columns):
        for row in chunk.rows():
            if isinstance(row, Row) and columns:
                row = Row(row.path, row.line, renamed(row.value, columns))
            thinking = _draw(seed, len(prompts)) < thinking_share
            found = _prompt(row, thinking, problem) if isinstance(row, Row) else row
            if isinstance(found, BadRow):
                bad_rows.add(found)
            else:
                prompts.append(found)
    if not prompts:
        raise DataError(f"{', '.join(names)}: all {bad_rows.count} rows are bad, so no prompt is left")
    return prompts


def parse_prompt(where: str, row: Mapping[str, Any], thinking: bool = False) -> Prompt:
    """One row; `where` is its `path:line`. Errors: DataError, which begins with it"""
    asked = Conversation.parse(row, where).prompt_part()
    if not asked.messages or asked.messages[-1].role not in ("user", "tool"):
        last = asked.messages[-1].role if asked.messages else "no message"
        raise DataError(f"{where}: ends with {last} before the answer; expected a message of the user or a tool")
    return Prompt(asked.messages, asked.tools, _ground_truth(_what_is_right(row), where), thinking, where)


def fingerprint_of(prompts: Iterable[Prompt]) -> str:
    """sha256 (hex) of what is asked, offered and right: equal fingerprints, equal prompts in equal order."""
    digest = hashlib.sha256()
    for prompt in prompts:
        asked = [[message.to_dict() for message in prompt.messages], prompt.tools, prompt.gt, prompt.thinking]
        # Of each its own hash, so that no two lists of prompts run together into the same text.
        digest.update(hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest())
    return digest.hexdigest()


def _draw(seed: int, index: int) -> float:
    # Text seeds go through SHA-512, so neighbouring seeds and places have nothing in common.
    return random.Random(f"thinking {seed} {index}").random()


def _prompt(row: Row, thinking: bool, problem: Callable[[Prompt], str]) -> Prompt | BadRow:
    where = f"{row.path}:{row.line}"
    try:
        prompt = parse_prompt(where, row.value, thinking)
    except DataError as error:
        return BadRow(row.path, row.line, str(error).removeprefix(f"{where}: "))
    reason = problem(prompt)
    return BadRow(row.path, row.line, reason) if reason else prompt


def _what_is_right(row: Mapping[str, Any]) -> Any:
    row = present(row)
    rule = row.get("reward_model")
    given = (row.get("gt"), row.get("ground_truth"), rule.get("ground_truth") if isinstance(rule, Mapping) else None)
    if (found := next((value for value in given if value is not None), None)) is not None:
        return found
    shape = find_shape(row, "conversation", "prompt")
    if shape is None or not (shape.question or shape.kind == "prompt"):
        return None
    text = next((row[name] for name in ANSWERS if name in row), None)
    return (final_answer(text) or text) if isinstance(text, str) else text


def _ground_truth(raw: Any, where: str) -> tuple[str, ...]:
    values = raw if isinstance(raw, list) else [] if raw is None else [raw]
    for value in values:
        # A bool is an int to Python, but no number to anybody else.
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise DataError(f"{where}: gt holds {str(value)[:50]!r}; expected text or numbers")
    return tuple(str(value).strip() for value in values)
