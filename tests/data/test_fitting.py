"""What does not fit the context is split, dropped or cut, as asked; every part has weight, and all is counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimind.data.fitting import FittedDocuments, Long, fitted
from minimind.data.loader import PackedRows
from minimind.data.options import PrepareOptions
from minimind.data.prepare import prepare
from minimind.data.shards import ShardSet
from minimind.errors import DataError
from minimind.text.tokenizer import Tokenizer

CONTEXT = 64


def chat(*turns: tuple[int, int]) -> dict[str, Any]:
    """Turns of so many words asked and answered."""
    return {
        "messages": [
            {"role": role, "content": "the cat " * count}
            for turn in turns
            for role, count in zip(("user", "assistant"), turn, strict=True)
        ]
    }


@pytest.fixture
def opened(write_rows: Callable[..., Path], tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., ShardSet]:
    def open_rows(*rows: dict[str, Any]) -> ShardSet:
        prepare([write_rows("x.jsonl", [*rows])], tokenizer, tmp_path / "out", PrepareOptions(valid_fraction=0))
        return ShardSet.open(tmp_path / "out" / "train", tokenizer)

    return open_rows


def test_documents_that_fit_and_texts_are_the_very_same(opened: Callable[..., ShardSet]) -> None:
    documents = opened(chat((1, 1)), chat((2, 2)))
    assert fitted(documents, CONTEXT, "drop") is documents
    texts = opened({"text": "the cat " * 500})
    assert fitted(texts, CONTEXT, "drop") is texts


@pytest.mark.parametrize("long", ["split", "drop", "truncate_prompt"])
def test_every_step_has_weight_and_every_part_fits(opened: Callable[..., ShardSet], long: Long) -> None:
    rows = [chat((1, 2))] * 3 + [chat((400, 3))] * 5 + [chat((300, 1), (1, 2))] * 5 + [chat((2, 300))]
    documents = fitted(opened(*rows), CONTEXT, long)
    source = PackedRows(documents, context=CONTEXT, batch_tokens=CONTEXT, seed=0)
    for step in range(source.steps_per_epoch):
        [batch] = source.micro_batches(step)
        assert batch.weight > 0
    assert all(len(row) and sum(piece.size for piece in row) <= CONTEXT for row in source.rows)


def test_split_learns_each_weighted_id_once(opened: Callable[..., ShardSet]) -> None:
    documents = opened(chat((1, 2)), chat((400, 3)), chat((2, 300)))
    parts = fitted(documents, CONTEXT, "split")
    assert isinstance(parts, FittedDocuments)
    learnt = [
        sum(float(weights[1:].sum()) for _, weights in map(some.__getitem__, range(len(some))))
        for some in (documents, parts)
    ]
    assert learnt[0] == learnt[1]
    assert parts.counts["longer than the context, split"] == 2
    assert parts.counts["pieces in which nothing is learnt, left out"] > 3
    assert parts.counts["pieces that begin within an answer, without its question"] > 3


def test_dropped_conversations_are_counted(opened: Callable[..., ShardSet]) -> None:
    parts = fitted(opened(chat((1, 2)), chat((400, 3))), CONTEXT, "drop")
    assert isinstance(parts, FittedDocuments)
    assert len(parts) == 1 and parts.counts == {"longer than the context, dropped": 1}
    with pytest.raises(DataError, match="no conversation fits the context of 64 tokens: 1 longer than the context"):
        fitted(opened(chat((400, 3))), CONTEXT, "drop")


def test_a_prompt_is_cut_at_its_beginning_and_the_last_answer_is_whole(
    opened: Callable[..., ShardSet], tokenizer: Tokenizer
) -> None:
    documents = opened(chat((400, 3)), chat((1, 40), (1, 2)), chat((2, 300)))
    parts = fitted(documents, CONTEXT, "truncate_prompt")
    assert isinstance(parts, FittedDocuments)
    assert parts.counts == {
        "longer than the context, prompts cut at their beginning": 2,
        "answers longer than the context, dropped": 1,
    }
    answers = [3, 2]
    for number, count in enumerate(answers):
        ids, weights = parts[number]
        assert len(ids) <= CONTEXT + 1
        # An earlier answer that is cut itself is context.
        assert tokenizer.decode(ids[weights == 1].tolist()) == "the cat " * count + "<|im_end|>"


def test_fingerprints_tell_what_was_done(opened: Callable[..., ShardSet]) -> None:
    documents = opened(chat((1, 2)), chat((400, 3)))
    found = {fitted(documents, CONTEXT, long).fingerprint for long in ("split", "drop", "truncate_prompt")}
    assert len(found) == 3 and documents.fingerprint not in found
    assert isinstance(fitted(documents, CONTEXT).lengths, np.ndarray)
