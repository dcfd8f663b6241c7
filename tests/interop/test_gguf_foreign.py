"""A vocabulary that others put into a GGUF file gives the ids of `tokenizers` and of SentencePiece's rule."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tests.interop.hostile_lines import hostile_lines
from tests.interop.tiny_models import tiny_model
from tokenizers import Regex, models, pre_tokenizers, trainers

from minimind.errors import CheckpointError, TokenizerError
from minimind.interop.gguf_file import GgufFile
from minimind.interop.gguf_foreign import BYTE_LEVEL_NAMES
from minimind.interop.gguf_tokenizer import read_tokenizer
from minimind.interop.gguf_writer import export_gguf
from minimind.text.tokenizer import Tokenizer
from minimind.text.vocabulary import BYTE_SYMBOLS

Write = Callable[..., Path]
LINES = hostile_lines()
CONTROL = ["<|begin|>", "<|end|>"]


def byte_level(use_regex: bool) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(digits: str, marks: str = "", also: str = "") -> Any:
    # As the makers' own tokenizer.json files have it.
    words = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}{marks}]+|{digits}"
    rest = rf"| ?[^\s\p{{L}}{also}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words + rest), "isolated"), byte_level(False)])


CUTS = {
    "llama-bpe": split(r"\p{N}{1,3}"),
    "qwen2": split(r"\p{N}"),
    "qwen35": split(r"\p{N}", r"\p{M}", r"\p{M}"),
    "starcoder": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
    "gpt-2": byte_level(True),
}


def values(**given: Any) -> dict[str, Any]:
    gguf = pytest.importorskip("gguf")
    kinds = {int: "UINT32", str: "STRING", bool: "BOOL", list: "ARRAY"}
    return {
        f"tokenizer.ggml.{name}": value if value is None else (gguf.GGUFValueType[kinds[type(value)]], value)
        for name, value in given.items()
    }


@pytest.mark.parametrize("pre", CUTS)
def test_ids_of_a_byte_level_vocabulary_are_those_of_tokenizers(pre: str, write_gguf: Write, tmp_path: Path) -> None:
    theirs = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    theirs.pre_tokenizer = CUTS[pre]
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=BYTE_SYMBOLS, show_progress=False)
    theirs.train_from_iterator(LINES, trainer)
    spec = json.loads(theirs.to_str())["model"]
    tokens = [*sorted(spec["vocab"], key=spec["vocab"].__getitem__), *CONTROL]
    types = [1] * (len(tokens) - 2) + [3, 3]
    merges = [" ".join(pair) for pair in spec["merges"]]
    roles = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "add_bos_token": pre == "llama-bpe"}
    given = values(pre=pre, tokens=tokens, token_type=types, merges=merges, unknown_token_id=None, **roles)

    found = read_tokenizer(GgufFile.open(write_gguf(values=given)))

    assert [found.encode(line) for line in LINES] == [theirs.encode(line).ids for line in LINES]
    assert found.control_names == {*CONTROL} and found.encode(CONTROL[0]) == theirs.encode(CONTROL[0]).ids
    assert found.eos_id == len(tokens) - 1
    assert (found.text_start == [found.control(CONTROL[0])]) or pre != "llama-bpe"
    found.save(tmp_path / "saved")
    loaded = Tokenizer.load(tmp_path / "saved")
    assert loaded.fingerprint == found.fingerprint

    export_gguf(tmp_path / "again", tiny_model(loaded), loaded, kind="F32")
    file = GgufFile.open(tmp_path / "again" / "again-F32.gguf")
    assert file.values["tokenizer.ggml.add_bos_token"] is (pre == "llama-bpe")
    again = read_tokenizer(file)
    assert again.encode_batch(LINES) == found.encode_batch(LINES)
    assert (again.fingerprint, again.eos_id, again.bos_id) == (found.fingerprint, found.eos_id, found.bos_id)


def test_a_vocabulary_that_does_more_than_a_name_says_is_not_written(write_gguf: Write, tmp_path: Path) -> None:
    found = read_tokenizer(GgufFile.open(write_gguf(values=pieces())))

    with pytest.raises(CheckpointError, match="does more to a text than"):
        export_gguf(tmp_path / "again", tiny_model(found), found, kind="F32")
    assert not (tmp_path / "again").exists()


def test_names_of_one_cut_are_read_alike(write_gguf: Write, tokenizer: Tokenizer) -> None:
    for pre in BYTE_LEVEL_NAMES:
        found = read_tokenizer(GgufFile.open(write_gguf(values=values(pre=pre))))
        assert found.decode(found.encode("12 one\n\n  two'S")) == "12 one\n\n  two'S"


PIECES = ["▁", "a", "b", "c", "ab", "▁a", "bc", "abc", "▁ab", "cc", "▁▁", "你", "▁你"]


def pieces() -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    types = [2, 3, 3, *[6] * 256, *[1] * len(PIECES)]
    scores = [0.0] * 259 + [-float(place * 7 % len(PIECES)) for place in range(len(PIECES))]
    roles = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "add_bos_token": None, "merges": None}
    return values(model="llama", pre="default", tokens=tokens, token_type=types, scores=scores, **roles)


def joined(text: str) -> list[str]:
    """SentencePiece's rule: the neighbours that make the piece of the highest score, the first of equal ones, join."""
    scores = {piece: -(place * 7 % len(PIECES)) for place, piece in enumerate(PIECES)}
    parts = [*("▁" + text).replace(" ", "▁")]
    while True:
        pairs = [(scores.get(left + right), -at) for at, (left, right) in enumerate(pairwise(parts))]
        known = [pair for pair in pairs if pair[0] is not None]
        if not known:
            return parts
        at = -max(known)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def test_pieces_join_by_their_scores_and_the_rest_is_bytes(write_gguf: Write, tmp_path: Path) -> None:
    file = GgufFile.open(write_gguf(values=pieces()))
    found = read_tokenizer(file)
    tokens = file.values["tokenizer.ggml.tokens"]

    for text in ("abc", "a b", "cab abc", "bc cc", "aabbcc abcabc", "你 你", "x", "é a", "a  bc", "</s>", "a\nb"):
        spelled = [
            piece
            for part in joined(text)
            for piece in ([part] if part in PIECES else [f"<0x{byte:02X}>" for byte in part.encode()])
        ]
        assert [tokens[index] for index in found.encode(text)] == spelled, text
        assert found.decode(found.encode(text)) == text
    assert found.text_start == [1] and found.control_names == {"<unk>", "<s>", "</s>"}
    found.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").fingerprint == found.fingerprint


def test_without_the_space_before_a_text_none_is_added(write_gguf: Write) -> None:
    found = read_tokenizer(GgufFile.open(write_gguf(values=pieces() | values(add_space_prefix=False))))

    assert [found.tokens[index] for index in found.encode("a bc")] == ["a", "▁", "bc"]
    assert found.decode(found.encode(" a")) == " a"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": [0.0]}, "tokenizer.ggml.scores has another number of items than tokens"),
        ({"token_type": [1] * (259 + len(PIECES))}, "lacks an unknown token or one of 256 bytes"),
        ({"tokens": ["<unk>"] * (259 + len(PIECES))}, "has a token twice"),
        ({"remove_extra_whitespaces": True}, "tokenizer.ggml.remove_extra_whitespaces is on"),
    ],
)
def test_pieces_that_would_give_other_ids_are_refused(changes: Any, words: str, write_gguf: Write) -> None:
    path = write_gguf(values=pieces() | values(**changes))

    with pytest.raises(TokenizerError, match=re.escape(words)) as error:
        read_tokenizer(GgufFile.open(path))

    assert str(path) in str(error.value)
