"""Vocabularies from elsewhere: what they may lack is refused when it is needed, and never made up."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers

from minimind.errors import TokenizerError
from minimind.tokenizer import RESERVED, Tokenizer, Vocabulary
from minimind.tokenizer_files import BYTE_SYMBOLS, make_pre_tokenizer, read_vocabulary

KNOWN = Tokenizer.train(["hello world 12 12 12 12   5" * 20], 300, pattern="smollm")._vocabulary


def less(known: Vocabulary, names: Iterable[str]) -> Vocabulary:
    """The same vocabulary without some of its tokens."""
    left_out = {*names}
    tokens = tuple(token for token in known.tokens if token not in left_out)
    control = {token: index for index, token in enumerate(tokens) if token in known.control}
    merges = tuple(pair for pair in known.merges if not left_out & {*pair, "".join(pair)})
    return replace(known, tokens=tokens, control=control, special=known.special - left_out, merges=merges)


def symbols(*numbers: int) -> list[str]:
    return [BYTE_SYMBOLS[byte] for byte in numbers]


def test_digits_stand_alone_and_white_space_before_them_stays_whole() -> None:
    cut = {pattern: make_pre_tokenizer(pattern, False) for pattern in ("gpt2", "smollm")}
    pieces = {pattern: [piece for piece, _ in found.pre_tokenize_str("a 12x  7½")] for pattern, found in cut.items()}

    assert pieces["smollm"] == ["a", "Ġ", "1", "2", "x", "ĠĠ", "7", "Â½"]
    assert pieces["gpt2"] == ["a", "Ġ12", "x", "Ġ", "Ġ7Â½"]


def test_the_pattern_is_read_from_the_file_that_its_makers_publish(tmp_path: Path) -> None:
    Tokenizer(KNOWN).save(tmp_path)
    file = tmp_path / "tokenizer.json"
    spec = json.loads(file.read_text(encoding="utf-8"))
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, level]}
    file.write_text(json.dumps(spec), encoding="utf-8")

    assert read_vocabulary(file) == KNOWN
    for wrong in ([level, digits], [{**digits, "individual_digits": False}, level], [digits]):
        spec["pre_tokenizer"]["pretokenizers"] = wrong
        file.write_text(json.dumps(spec), encoding="utf-8")
        with pytest.raises(TokenizerError, match="pre_tokenizer is"):
            read_vocabulary(file)


def test_a_vocabulary_without_our_control_tokens_is_read(tmp_path: Path) -> None:
    foreign = less(KNOWN, RESERVED[3:])
    Tokenizer(foreign).save(tmp_path)

    tokenizer = Tokenizer.load(tmp_path)

    assert tokenizer.control_names == {*RESERVED[:3]} and tokenizer.vocab_size == 300 - 33
    assert tokenizer.decode(tokenizer.encode("".join(RESERVED))) == "".join(RESERVED)
    assert not tokenizer.control_ids & {*tokenizer.encode("".join(RESERVED))}
    with pytest.raises(TokenizerError, match="no control token '<think>'"):
        tokenizer.control("<think>")


@pytest.mark.parametrize("name", RESERVED[:3])
def test_one_without_the_tokens_of_every_conversation_is_refused(name: str) -> None:
    with pytest.raises(TokenizerError, match=f"lacks {name!r}".replace("|", r"\|")):
        Tokenizer(less(KNOWN, [name]))


def test_padding_may_be_another_control_token_but_has_to_be_one(tmp_path: Path) -> None:
    Tokenizer(KNOWN).save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"pad_token": "<|im_end|>"}))

    assert Tokenizer.load(tmp_path).pad_id == 0

    path.write_text(json.dumps(config | {"pad_token": "<pad>"}))
    with pytest.raises(TokenizerError, match="has pad_token '<pad>'"):
        Tokenizer.load(tmp_path)


def test_text_with_a_byte_that_has_no_token_is_refused(tmp_path: Path) -> None:
    lost = [0x04, 0xC0, 0xE4, 0xFF]
    Tokenizer(less(KNOWN, symbols(*lost))).save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)

    assert tokenizer._vocabulary.missing_bytes == {*lost}
    assert tokenizer.decode(tokenizer.encode("héllo 12 ☃")) == "héllo 12 ☃"
    for text, words in (("ab\x04", "byte 2 of the text is 0x04"), ("é你", "byte 2 of the text is 0xe4")):
        for encode in (
            tokenizer.encode,
            tokenizer.encode_with_control,
            lambda text: tokenizer.encode_batch(["", text]),
        ):
            with pytest.raises(TokenizerError, match=words):
                encode(text)
        with pytest.raises(TokenizerError, match=words):
            tokenizer.encode_bytes(text.encode())
    with pytest.raises(TokenizerError, match="0xff"):
        tokenizer.encode_bytes(b"\xff")
    for byte in {*range(256)} - {*lost}:
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(bytes([byte]))) == bytes([byte])


@pytest.mark.parametrize("byte", [0x0A, 0x20, 0x21, 0x61, 0x7E])
def test_a_vocabulary_without_plain_ascii_is_refused(byte: int) -> None:
    with pytest.raises(TokenizerError, match=f"byte 0x{byte:02x} has no token of text"):
        Tokenizer(less(KNOWN, symbols(byte)))


def test_a_byte_may_not_be_a_control_token() -> None:
    symbol = BYTE_SYMBOLS[0xF1]
    index = KNOWN.tokens.index(symbol)

    with pytest.raises(TokenizerError, match="byte 0xf1 has no token of text"):
        Tokenizer(replace(KNOWN, control={**KNOWN.control, symbol: index}))


def test_a_token_with_two_ids_is_refused() -> None:
    with pytest.raises(TokenizerError, match="token 'h' has more than one id"):
        Tokenizer(replace(KNOWN, tokens=(*KNOWN.tokens, "h")))


def test_only_gpt2_takes_a_prefix_space() -> None:
    with pytest.raises(TokenizerError, match="add_prefix_space needs pattern 'gpt2', got 'smollm'"):
        Tokenizer.train(["text"], 292, pattern="smollm", add_prefix_space=True)


def test_a_normalizer_stays_refused(tmp_path: Path) -> None:
    Tokenizer(KNOWN).save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"normalizer": {"type": "NFC"}}))

    with pytest.raises(TokenizerError, match=r"normalizer is .*NFC.*; expected none"):
        read_vocabulary(file)


def test_byte_symbols_are_those_of_the_library() -> None:
    assert sorted(BYTE_SYMBOLS) == sorted(pre_tokenizers.ByteLevel.alphabet())
