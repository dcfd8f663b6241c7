"""Files that disagree are refused, and what a vocabulary from elsewhere may lack is refused when it is needed."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from tokenizers import pre_tokenizers

from minimind.errors import TokenizerError
from minimind.text.foreign import read_vocabulary
from minimind.text.tokenizer import RESERVED, Tokenizer, Vocabulary
from minimind.text.vocabulary import BYTE_SYMBOLS, make_pre_tokenizer

CORPUS = sorted(topics.values())[:10]
GPT2 = Tokenizer.train(CORPUS, 400, pattern="gpt2")
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


def test_readers_are_told_which_inputs_the_model_has() -> None:
    # Left to itself, transformers 4 adds token_type_ids, which `generate` refuses.
    assert GPT2._vocabulary.config_json()["model_input_names"] == ["input_ids", "attention_mask"]


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
        assert Tokenizer.load(tmp_path).is_foreign


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

    assert Tokenizer.load(tmp_path).pad_id == Tokenizer.load(tmp_path).eos_id == 2

    path.write_text(json.dumps(config | {"pad_token": {"content": "<|im_end|>", "special": True}}))
    Tokenizer.load(path.parent)
    path.write_text(json.dumps(config | {"pad_token": "<pad>"}))
    with pytest.raises(TokenizerError, match="no control token '<pad>', the pad_token"):
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


def test_byte_symbols_are_those_of_the_library() -> None:
    assert sorted(BYTE_SYMBOLS) == sorted(pre_tokenizers.ByteLevel.alphabet())


def test_prefix_space_is_written_to_both_files_and_read_by_both_readers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer.train(CORPUS, 400, pattern="gpt2", add_prefix_space=True)
    tokenizer.save(tmp_path)

    files = [json.loads((tmp_path / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json")]
    assert files[0]["pre_tokenizer"]["add_prefix_space"] is files[1]["add_prefix_space"] is True
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path)("Hello")["input_ids"]
    assert Tokenizer.load(tmp_path).encode("Hello") == ids == tokenizer.encode(" Hello")
    # This is why it is off by default: what comes back is not what went in.
    assert tokenizer.decode(ids) == " Hello"


@pytest.mark.parametrize(
    ("key", "said", "holds"),
    [
        ("add_prefix_space", True, False),
        ("added_tokens_decoder", {"25": {"content": "<thought>"}}, "<think>"),
    ],
)
def test_two_files_that_disagree_are_refused(key: str, said: object, holds: object, tmp_path: Path) -> None:
    GPT2.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: said}))

    with pytest.raises(TokenizerError) as error:
        Tokenizer.load(tmp_path)

    shown = "<thought>" if isinstance(said, dict) else said
    for part in (path.name, str(tmp_path / "tokenizer.json"), repr(shown), repr(holds)):
        assert part in str(error.value)


@pytest.mark.parametrize("role", ["bos_token", "eos_token", "pad_token", "unk_token"])
def test_a_role_has_to_be_a_control_token_of_the_vocabulary(role: str, tmp_path: Path) -> None:
    GPT2.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), role: {"content": "<s>"}}))

    with pytest.raises(TokenizerError, match=f"no control token '<s>', the {role} of the settings"):
        Tokenizer.load(tmp_path)


def test_the_roles_are_those_that_the_settings_name(tmp_path: Path) -> None:
    GPT2.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    said = {"bos_token": None, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": None}
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))

    tokenizer = Tokenizer.load(tmp_path)

    assert (tokenizer.text_start, tokenizer.eos_id, tokenizer.pad_id) == ([], 0, 0)
    # A first token is predicted from the end of another text, and an answer still ends as it is written.
    assert tokenizer.begin([]) == [0] and tokenizer.begin([50]) == [50] and tokenizer.end_ids == {0, 2}
    assert tokenizer.fingerprint == GPT2.fingerprint
    tokenizer.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").text_start == []


def test_what_transformers_saved_again_is_read_as_it_was(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    GPT2.save(tmp_path / "first")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")

    again = Tokenizer.load(tmp_path / "second")

    assert not again.is_foreign and again.fingerprint == GPT2.fingerprint
    assert (again.bos_id, again.eos_id, again.pad_id) == (GPT2.bos_id, GPT2.eos_id, GPT2.pad_id)


def test_settings_for_batches_and_processors_that_add_nothing_are_read_past(tmp_path: Path) -> None:
    GPT2.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    spec = json.loads(file.read_text())
    spec["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    spec["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    file.write_text(json.dumps(spec))

    assert Tokenizer.load(tmp_path).encode("hello there") == GPT2.encode("hello there")
    assert not Tokenizer.load(tmp_path).is_foreign


def test_a_config_silent_about_prefix_space_contradicts_a_file_that_has_it(tmp_path: Path) -> None:
    Tokenizer.train(CORPUS, 400, pattern="gpt2", add_prefix_space=True).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")

    with pytest.raises(TokenizerError, match="add_prefix_space False"):
        Tokenizer.load(tmp_path)


def edit(spec: dict, path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        spec = spec[int(name)] if isinstance(spec, list) else spec[name]
    spec[last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.type", "WordPiece", "BPE"),
        ("model.vocab", [], "malformed"),
        ("model.vocab.!", 1_000_000, "ids are 0..N-1"),
        ("model.vocab.plain words", 400, "byte symbols"),
        ("model.merges", [["a"]], "malformed"),
        ("model.merges", [["<", "nothing"]], "merge '<' + 'nothing'"),
        ("model.merges", [["<think", ">"]], "merge"),
        ("model.dropout", 0.1, "dropout"),
        ("added_tokens", None, "added_tokens"),
        ("added_tokens", [{"id": 1}], "malformed"),
        ("added_tokens", [], "no control token '<|im_start|>', the bos_token"),
        ("added_tokens.25.id", "25", "malformed"),
        ("added_tokens.25.id", 25.0, "ids are 0..N-1"),
        ("added_tokens.25.content", "!", "0x21"),
        ("added_tokens.2.content", "<|stop|>", "ids of added tokens leave a gap"),
    ],
)
def test_files_whose_ids_we_could_not_promise_are_refused(path: str, value: object, words: str, tmp_path: Path) -> None:
    GPT2.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    spec = json.loads(file.read_text())
    edit(spec, path, value)
    file.write_text(json.dumps(spec))

    with pytest.raises(TokenizerError) as error:
        Tokenizer.load(tmp_path)

    assert str(file) in str(error.value) and words in str(error.value)


def test_a_merge_into_a_control_token_is_refused(tmp_path: Path) -> None:
    GPT2.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    spec = json.loads(file.read_text())
    names = {"<think>": "<t", "<tool_call>": "<to"}
    for name, merged in names.items():
        spec["added_tokens"][spec["model"]["vocab"][name]]["content"] = merged
        spec["model"]["vocab"][merged] = spec["model"]["vocab"].pop(name)
    spec["model"]["merges"] = [["<", "t"], ["<t", "o"]]
    file.write_text(json.dumps(spec))

    with pytest.raises(TokenizerError, match="merge '<' \\+ 't' uses or makes a token that is missing or a control"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'"' + b"x" * 100, b"[" * 100_000, b"null"])
def test_files_that_are_no_json_object_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)

    with pytest.raises(TokenizerError, match=str(tmp_path)):
        Tokenizer.load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=str(tmp_path / "tokenizer.json")):
        Tokenizer.load(tmp_path)
