"""Both sides of a pair answer one prompt, only the last answer counts, and what cannot teach is dropped and counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimind.data.chunks import BadRow
from minimind.data.pairs import Pairs, read_pairs, split_pairs
from minimind.errors import DataError
from minimind.text.conversation import Conversation, Message, parse_ids, render, render_prompt
from minimind.text.tokenizer import Tokenizer

WriteRows = Callable[[str, list[Any]], Path]
CONTEXT = 200


def said(*contents: str) -> list[dict[str, str]]:
    """User and assistant in turn."""
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]


def pair(prompt: str = "the cat?", chosen: str = "sat", rejected: str = "looked") -> dict[str, Any]:
    return {"chosen": said(prompt, chosen), "rejected": said(prompt, rejected)}


def read(path: Path, tokenizer: Tokenizer, **settings: Any) -> Pairs:
    return read_pairs([path], tokenizer, **{"context": CONTEXT, **settings})


def answer(pairs: Pairs, row: int, tokenizer: Tokenizer) -> str:
    side = pairs.rows[row]
    return tokenizer.decode(side.ids[side.weights == 1].tolist())


def test_a_side_is_the_conversation_as_it_is_rendered_anywhere(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    """Up to the end of the answer: the newline after it is the format's, and nothing follows that would read it."""
    pairs = read(write_rows("pairs.jsonl", [pair()]), tokenizer)
    for row, content in enumerate(("sat", "looked")):
        conversation = Conversation((Message("user", "the cat?"), Message("assistant", content)))
        rendered = render(conversation, tokenizer)
        newline = tokenizer.encode("\n")
        assert [*pairs.rows[row].ids.tolist(), *newline] == rendered.ids
        assert [*pairs.rows[row].weights.tolist(), *[0.0] * len(newline)] == rendered.weights
        assert answer(pairs, row, tokenizer) == f"{content}<|im_end|>"
    assert pairs.lengths.tolist() == [len(side.ids) for side in pairs.rows] and len(pairs) == 1


def test_only_the_last_answer_has_weight(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    rows = [{"chosen": said("a", "b", "the cat?", "sat"), "rejected": said("a", "b", "the cat?", "12")}]
    pairs = read(write_rows("pairs.jsonl", rows), tokenizer)
    assert [answer(pairs, row, tokenizer) for row in (0, 1)] == ["sat<|im_end|>", "12<|im_end|>"]


SHAPES = {
    "texts": {"prompt": "the cat?", "chosen": "sat", "rejected": "looked"},
    "a prompt of messages": {"prompt": said("the cat?"), "chosen": "sat", "rejected": "looked"},
    "answers as messages": {
        "prompt": "the cat?",
        "chosen": [{"role": "assistant", "content": "sat"}],
        "rejected": [{"role": "assistant", "content": "looked"}],
    },
    "answers as one message": {
        "prompt": said("the cat?"),
        "chosen": {"role": "assistant", "content": "sat"},
        "rejected": {"from": "gpt", "value": "looked"},
    },
    "the prompt in a column and again in each side": {"prompt": "the cat?", **pair()},
    "the prompt in front of each answer, and as messages": {"prompt": said("the cat?"), **pair()},
    "a column of something else": {"source": "somewhere", **pair()},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_row_says_the_same(shape: str, write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    plain = read(write_rows("plain.jsonl", [pair()]), tokenizer)
    pairs = read(write_rows("pairs.jsonl", [SHAPES[shape]]), tokenizer)
    assert pairs.fingerprint == plain.fingerprint and pairs.prompt_hashes == plain.prompt_hashes


def test_a_system_prompt_tools_reasoning_and_calls_are_those_of_conversations(
    write_rows: WriteRows, tokenizer: Tokenizer
) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    calls = [{"name": "add", "arguments": {"a": 12}}]
    chosen = {"role": "assistant", "content": "", "reasoning_content": "numbers", "tool_calls": calls}
    rejected = {"role": "assistant", "content": "345", "reasoning_content": "sun"}
    row = {"system": "look", "tools": tools, "prompt": "12?", "chosen": [chosen], "rejected": [rejected]}
    pairs = read(write_rows("pairs.jsonl", [row]), tokenizer, context=2000)
    newline = tokenizer.encode("\n")
    for side, expected in zip(pairs.rows, (chosen, rejected), strict=True):
        found = parse_ids([*side.ids.tolist(), *newline], tokenizer)
        messages = [{"role": "system", "content": "look"}, {"role": "user", "content": "12?"}, expected]
        assert found == Conversation.parse({"messages": messages, "tools": tools}, "here")
        prompt = render_prompt(found.messages[:-1], found.tools, tokenizer, thinking=True)
        assert not side.weights[: len(prompt)].any() and side.weights[len(prompt) :].all()


# ---- dropped and counted


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair(rejected="sat"), "equal_answers"),
        (pair(rejected=""), "empty_answer"),
        (pair(chosen=" \n"), "empty_answer"),
        (pair(chosen="numbers " * 90), "too_long"),
        (pair(prompt="numbers " * 90), "too_long"),
    ],
)
def test_what_cannot_teach_is_dropped_and_counted(
    row: dict[str, Any], reason: str, write_rows: WriteRows, tokenizer: Tokenizer
) -> None:
    pairs = read(write_rows("pairs.jsonl", [pair(), row, pair("sun?")]), tokenizer)
    clean = read(write_rows("clean.jsonl", [pair(), pair("sun?")]), tokenizer)
    assert pairs.dropped == {reason: 1} and pairs.fingerprint == clean.fingerprint


def test_a_side_as_long_as_the_context_still_fits(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    path = write_rows("pairs.jsonl", [pair()])
    longest = int(read(path, tokenizer).lengths.max())
    # n ids are n − 1 positions.
    assert len(read(path, tokenizer, context=longest - 1)) == 1
    with pytest.raises(DataError, match=r"pairs.jsonl: no pair is left to learn from: too_long 1, 0 bad rows"):
        read(path, tokenizer, context=longest - 2)


def test_a_file_without_a_usable_pair_is_refused(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    path = write_rows("pairs.jsonl", [{"text": "the cat"}])
    with pytest.raises(DataError, match=r"no pair is left to learn from: no pair read, 1 bad rows"):
        read(path, tokenizer, max_bad_rows=1)


# ---- bad rows

USER, BOTH = [{"role": "user", "content": "sun?"}], said("the cat?", "sat")
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "other prompts": (
        {"chosen": said("a cat?", "sat"), "rejected": said("the cat?", "looked")},
        r"the prompts of chosen and rejected differ at message 1; a pair needs two answers to one prompt",
    ),
    "a longer prompt": (
        {"chosen": said("the cat?", "sat"), "rejected": said("the cat?", "sat", "more?", "no")},
        r"the prompts of chosen and rejected differ in length",
    ),
    "another system prompt": (
        {"chosen": BOTH, "rejected": [{"role": "system", "content": "look"}, *said("the cat?", "looked")]},
        r"the prompts of chosen and rejected differ at message 1",
    ),
    "tools on one side": (
        {"chosen": [{**BOTH[0], "tools": [{"name": "add"}]}, BOTH[1]], "rejected": said("the cat?", "looked")},
        r"the prompts of chosen and rejected differ in their tools",
    ),
    "reasoning on one side": (
        {
            "prompt": "the cat?",
            "chosen": [{"role": "assistant", "content": "sat", "reasoning_content": "sun"}],
            "rejected": "looked",
        },
        r"the prompts of chosen and rejected differ: one answer has reasoning and the other none",
    ),
    "no rejected side": (
        {"chosen": BOTH},
        r"has no 'rejected'; expected 'chosen' and 'rejected', got the keys 'chosen'",
    ),
    "text": ({"text": "the cat"}, r"has no 'chosen'; .* got the keys 'text'"),
    "no answer": (
        {"chosen": USER + USER, "rejected": USER + USER},
        r"chosen has the roles user, user; expected a prompt and an answer of the assistant at the end",
    ),
    "no prompt": ({"chosen": "sat", "rejected": "looked"}, r"chosen has the roles assistant; expected a prompt and"),
    "an unknown role": (
        {"chosen": [{"role": "cat", "content": "a"}, BOTH[1]], "rejected": BOTH},
        r"chosen: message 1 has role 'cat'",
    ),
    "a number": ({"prompt": "sun?", "chosen": 12, "rejected": "looked"}, r"chosen: message 1 is a int"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_an_error_with_its_place_or_counted_on_request(
    kind: str, write_rows: WriteRows, tokenizer: Tokenizer
) -> None:
    row, problem = BAD[kind]
    path = write_rows("pairs.jsonl", [pair(), row, pair("sun?")])
    with pytest.raises(DataError, match=rf"pairs.jsonl:2: {problem}.*bad row 1, max_bad_rows allows 0"):
        read(path, tokenizer)
    seen: list[BadRow] = []
    pairs = read(path, tokenizer, max_bad_rows=1, observe=seen.append)
    assert (len(pairs), pairs.bad_rows, [bad.line for bad in seen]) == (2, 1, [2])


def test_lines_that_are_no_json_count_with_the_other_bad_rows(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    path = write_rows("pairs.jsonl", [pair(), {"text": "the cat"}])
    path.write_text(path.read_text() + "{broken\n", encoding="utf-8")
    assert read(path, tokenizer, max_bad_rows=2).bad_rows == 2
    with pytest.raises(DataError, match=r"pairs.jsonl:3: not JSON.*bad row 2, max_bad_rows allows 1"):
        read(path, tokenizer, max_bad_rows=1)


# ---- the split


def test_pairs_with_one_prompt_are_on_one_side_of_the_split(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    rows = [pair(f"{number}?", "sat", other) for number in range(40) for other in ("looked", "12")]
    pairs = read(write_rows("pairs.jsonl", rows), tokenizer)
    train, valid = split_pairs(pairs, 0.3)
    assert len(train) + len(valid) == 80 and 10 < len(valid) < 40
    assert not set(train.prompt_hashes) & set(valid.prompt_hashes)
    assert len(valid) % 2 == 0, "both pairs of a prompt went the same way"


def test_more_data_moves_no_pair_across_the_split(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    few, many = (
        read(write_rows(f"{size}.jsonl", [pair(f"{number}?") for number in range(size)]), tokenizer)
        for size in (20, 60)
    )
    before, after = (set(split_pairs(pairs, 0.3)[1].prompt_hashes) for pairs in (few, many))
    assert before == after & set(few.prompt_hashes)


def test_a_split_keeps_rows_together_and_in_order(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    rows = [pair(f"{number}?", f"sat {number}", f"looked {number}") for number in range(20)]
    for part in split_pairs(read(write_rows("pairs.jsonl", rows), tokenizer), 0.5):
        answers = [answer(part, row, tokenizer) for row in range(2 * len(part))]
        numbers = [text.split()[1].removesuffix("<|im_end|>") for text in answers]
        assert numbers[::2] == numbers[1::2] and list(map(int, numbers)) == sorted(map(int, numbers))
        assert all(text.startswith(("sat", "looked")[place % 2]) for place, text in enumerate(answers))


def test_the_fingerprint_is_of_ids_and_weights(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    def fingerprint(*rows: dict[str, Any]) -> str:
        return read(write_rows("pairs.jsonl", list(rows)), tokenizer).fingerprint

    first = fingerprint(pair(), pair("sun?"))
    assert first == fingerprint(pair(), pair("sun?"))
    others = [(pair("sun?"), pair()), (pair(), pair("mat?")), (pair(),), (pair(chosen="looked", rejected="sat"),)]
    assert len({first, *(fingerprint(*rows) for rows in others)}) == 5
    pairs = read(write_rows("pairs.jsonl", [pair(), pair("sun?")]), tokenizer)
    pairs.rows[3].weights[-1] = 0.5
    assert pairs.fingerprint != first


@pytest.mark.parametrize("name", ["dpo_train.jsonl", "dpo_valid.jsonl"])
def test_real_pairs_are_read_without_a_bad_row(name: str, shared: Path, tokenizer: Tokenizer) -> None:
    pairs = read(shared / "data" / name, tokenizer, context=4096)
    assert pairs.bad_rows == 0 and len(pairs) > 70
    for side in pairs.rows[:20]:
        assert side.weights[-1] == 1 and side.ids[-1] == tokenizer.eos_id and side.weights[0] == 0
    first = pairs.rows[0].ids
    assert np.array_equal(first[:3], pairs.rows[1].ids[:3])


def test_pairs_flagged_off_are_dropped_and_columns_that_could_matter_are_named(
    write_rows: WriteRows, tokenizer: Tokenizer
) -> None:
    row = {"prompt": "the cat", "chosen": "sat", "rejected": "sun", "id": 1, "margin_mask": 2}
    off = {**row, "chosen": [{"role": "assistant", "content": "mat", "weight": 0}]}
    pairs = read_pairs([write_rows("pairs.jsonl", [row, off, {**row, "weight": 0}])], tokenizer, context=64)
    assert len(pairs) == 1 and pairs.dropped == {"not_to_be_learnt": 2} and pairs.unread == {"margin_mask": 3}


def test_columns_of_pairs_are_read_by_the_names_they_are_given(write_rows: WriteRows, tokenizer: Tokenizer) -> None:
    rows = [{"prompt": "the cat", "chosen": "sat", "rejected": "sun"}]
    other = [{"frage": "the cat", "gut": "sat", "schlecht": "sun"}]
    columns = {"prompt": "frage", "chosen": "gut", "rejected": "schlecht"}
    found = read_pairs([write_rows("b.jsonl", other)], tokenizer, context=64, columns=columns)
    assert found.fingerprint == read_pairs([write_rows("a.jsonl", rows)], tokenizer, context=64).fingerprint
