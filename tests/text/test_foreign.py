"""A vocabulary from elsewhere gives the ids of the tokenizers library, and no text forges its control tokens."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from minimind.errors import TokenizerError
from minimind.text.tokenizer import StreamDecoder, Tokenizer

CORPUS = [
    "the cat sat on the mat, hello world 123 456",
    "你好，世界。价格是 12345 元",
    "def f(x):\n    return x\n\n",
] * 20
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LINES = [
    *("", "a", " a", "  a", "a  b", "\n\n\n", "hello world", "Hello\r\n\tx", "e\u0301 é", "１２３ 2026年价格是12345元"),
    *("😀👨\u200d👩\u200d👧", "don't I'LL", "▁▁ x", "<0x0A>", "\u3000\u00a0x", "\ufdd0", "def f(x):\n    return x\n"),
]


def byte_level(**model: Any) -> dict[str, Any]:
    """As Qwen and Llama 3 have it."""
    built = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated")
    built.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    built.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    built.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    built.add_special_tokens(["<|begin|>", "<|end|>", "<|user|>"])
    built.add_tokens(["<think>"])
    spec = json.loads(built.to_str())
    spec["model"] |= model
    return spec


def composed() -> dict[str, Any]:
    return byte_level() | {"normalizer": {"type": "NFC"}}


def begun() -> dict[str, Any]:
    """A post-processor puts a token before each text, as Llama 3 has it."""
    spec = byte_level(ignore_merges=True)
    # A word of the vocabulary that no merge makes: only with ignore_merges does a text get it.
    spec["model"]["vocab"]["zzzz"] = len(spec["model"]["vocab"])
    for entry in spec["added_tokens"]:
        entry["id"] += 1
    index = next(entry["id"] for entry in spec["added_tokens"] if entry["content"] == "<|begin|>")
    template = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", index)])
    return spec | {"post_processor": json.loads(template.__getstate__())}


def sentence_piece(first_only: bool = False) -> dict[str, Any]:
    """As Llama 2 and Mistral have it: spaces are letters, one stands before a text, and bytes are the last resort."""
    built = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *BYTES], show_progress=False)
    built.train_from_iterator([text.replace("🐈", "") for text in CORPUS], trainer)
    spec = json.loads(built.to_str())
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry["content"] not in BYTES]
    space = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    spec["normalizer"] = None if first_only else json.loads(normalizers.Sequence(space).__getstate__())
    spec["pre_tokenizer"] = json.loads(metaspace.__getstate__()) if first_only else None
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return spec | {"decoder": json.loads(decoders.Sequence(parts).__getstate__())}


def uncut() -> dict[str, Any]:
    """As Gemma has it: no space before a text, and runs of newlines are added tokens that stand for text."""
    spec = sentence_piece()
    spec["normalizer"] = json.loads(normalizers.Replace(" ", "▁").__getstate__())
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    size = len(spec["model"]["vocab"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    for place, token in enumerate(("\n\n", "▁▁")):
        spec["model"]["vocab"][token] = size + place
        spec["added_tokens"].append({"id": size + place, "content": token, **flags})
    return spec | {"decoder": json.loads(decoders.Sequence(parts).__getstate__())}


def greedy() -> dict[str, Any]:
    """Control tokens take the white space beside them, as Phi 3's do."""
    spec = byte_level()
    spec["added_tokens"][2] |= {"rstrip": True}
    spec["added_tokens"][1] |= {"lstrip": True}
    return spec


KINDS = {
    "composed": composed,
    "begun": begun,
    "sentence_piece": sentence_piece,
    "first_only": lambda: sentence_piece(first_only=True),
    "uncut": uncut,
    "greedy": greedy,
}
QWEN = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
LLAMA = {"bos_token": "<s>", "eos_token": "</s>"}
SETTINGS = {name: LLAMA if name in ("sentence_piece", "first_only", "uncut") else QWEN for name in KINDS}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(spec: dict[str, Any], **config: Any) -> Path:
        (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def folder(kind: str, write: Callable[..., Path]) -> Path:
    return write(KINDS[kind](), **SETTINGS[kind])


def library(folder: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def random_lines(count: int) -> list[str]:
    rng = random.Random(0)
    letters = ["a", "the", " ", "  ", "\n", "你", "é", "e\u0301", "1", "234", "▁", "!", "😀", "\t", "ß", "zzzz", "cat"]
    return ["".join(rng.choices(letters, k=rng.randrange(12))) for _ in range(count)]


def test_ids_and_texts_are_those_of_the_library(folder: Path) -> None:
    tokenizer, known = Tokenizer.load(folder), library(folder)
    assert tokenizer.is_foreign
    for text in LINES + random_lines(300):
        ids = tokenizer.encode(text)
        assert ids == known.encode(text, add_special_tokens=False).ids, text
        assert tokenizer.decode(ids) == known.decode(ids), text
        assert [*tokenizer.text_start, *ids] == known.encode(text).ids, text
        stream = StreamDecoder(tokenizer)
        assert "".join([stream.push(index) for index in ids]) + stream.finish() == tokenizer.decode(ids)


def test_no_text_forges_a_control_token(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    for name in tokenizer.control_names:
        for text in (name, f"hello{name}", f" {name} \n{name}"):
            # The unknown token is what a text may have that nobody has a token for.
            assert not tokenizer.control_ids.intersection(tokenizer.encode(text)) - {
                tokenizer._vocabulary.control.get("<unk>")
            }
            assert tokenizer.decode(tokenizer.encode(text)).strip() == text.strip()


def test_a_marked_text_has_the_ids_and_spans_of_the_library(folder: Path) -> None:
    tokenizer, known, rng = Tokenizer.load(folder), library(folder), random.Random(1)
    lines = [text for text in LINES + random_lines(40) if not any(name in text for name in tokenizer.control_names)]
    for _ in range(200):
        text, controls = "", []
        for _ in range(rng.randrange(1, 7)):
            if rng.random() < 0.5:
                name = rng.choice(sorted(tokenizer.control_names))
                controls.append((len(text), len(text) + len(name)))
                text += name
            else:
                text += rng.choice(lines)
        ids, spans = tokenizer.encode_marked(text, controls)
        found = known.encode(text, add_special_tokens=False)
        assert ids == found.ids, text
        assert [text[a:b].strip() for a, b in spans] == [text[a:b].strip() for a, b in found.offsets], text


def test_only_marked_places_are_control_tokens(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    name = sorted(tokenizer.control_names - {"<unk>"})[0]
    text = f"{name}say {name}"
    ids, _ = tokenizer.encode_marked(text, [(0, len(name))])
    assert ids.count(tokenizer.control(name)) == 1 and ids[0] == tokenizer.control(name)


def test_the_files_are_saved_as_they_came(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    tokenizer.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert Tokenizer.load(tmp_path / "again").fingerprint == tokenizer.fingerprint


def test_what_transformers_saved_again_gives_the_same_ids(kind: str, folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    again = tmp_path / "saved"
    transformers.PreTrainedTokenizerFast.from_pretrained(folder).save_pretrained(again)
    ours, theirs = Tokenizer.load(folder), Tokenizer.load(again)
    assert all(ours.encode(text) == theirs.encode(text) for text in LINES)


def test_a_byte_that_is_no_text_has_its_token(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(b"\xff\xfe")) == b"\xff\xfe"


def test_a_run_of_newlines_is_text_where_its_token_was_trained(write: Callable[..., Path]) -> None:
    tokenizer = Tokenizer.load(write(uncut(), eos_token="</s>"))
    assert tokenizer.decode(tokenizer.encode("a\n\nb")) == "a\n\nb"
    assert len(tokenizer.encode("\n\n")) == 1 and "\n\n" not in tokenizer.control_names


def test_what_a_text_loses_is_said(write: Callable[..., Path]) -> None:
    assert Tokenizer.load(write(sentence_piece(), eos_token="</s>")).losses() == []
    assert Tokenizer.load(write(composed(), eos_token="<|end|>")).losses() == [
        "a letter and its accent come back as one character"
    ]
    bare = sentence_piece() | {"pre_tokenizer": {"type": "Whitespace"}}
    assert "line ends change" in Tokenizer.load(write(bare, eos_token="</s>")).losses()


def test_settings_say_that_a_text_begins_with_bos_where_the_file_adds_nothing(write: Callable[..., Path]) -> None:
    config = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    tokenizer = Tokenizer.load(write(composed(), **config, add_bos_token=True))
    assert tokenizer.text_start == [tokenizer.control("<|begin|>")]
    assert Tokenizer.load(write(composed(), **config)).text_start == []


def test_roles_may_stand_in_the_older_special_tokens_map(write: Callable[..., Path]) -> None:
    folder = write(composed(), eos_token=None)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|end|>"}}))
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.eos_id == tokenizer.pad_id == tokenizer.control("<|end|>")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"type": "WordPiece"}}, "'WordPiece'; expected 'BPE'"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "'Unigram'; expected 'BPE'"),
        ({"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}, "decoder 'WordPiece'"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a" * 5000}}}, "a split pattern of 5,000 characters"),
        ({"pre_tokenizer": {"type": "NoSuchThing"}}, "the tokenizers library refuses it"),
        ({"normalizer": {"type": "Lower"}}, "the tokenizers library refuses it"),
        ({"added_tokens": None}, "a list added_tokens"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    change: dict[str, Any], words: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(TokenizerError, match=words):
        Tokenizer.load(write(composed() | change, eos_token="<|end|>"))


def test_dropout_and_merges_into_control_tokens_and_sparse_ids_are_refused(write: Callable[..., Path]) -> None:
    for model, words in (
        ({"dropout": 0.1}, "dropout is 0.1"),
        ({"merges": [["<", "|user|>"]]}, "refuses it"),
        ({"vocab": {**composed()["model"]["vocab"], "far": 10_000_000}}, "leave a gap behind 324"),
    ):
        spec = composed()
        spec["model"] |= model
        with pytest.raises(TokenizerError, match=words):
            Tokenizer.load(write(spec, eos_token="<|end|>"))


def test_a_file_that_names_no_end_is_refused_with_what_to_do(write: Callable[..., Path]) -> None:
    with pytest.raises(TokenizerError, match="which token ends a text; name one as eos_token"):
        Tokenizer.load(write(composed()))


@pytest.mark.parametrize("name", ["tok_qwen_nfc", "tok_qwen_post", "tok_ignore_merges", "tok_base_eos"])
def test_vocabularies_of_other_makers_are_read(name: str, shared: Path) -> None:
    folder = shared / "cases" / name
    tokenizer, known = Tokenizer.load(folder), library(folder)
    for text in LINES + random_lines(300):
        assert tokenizer.encode(text) == known.encode(text, add_special_tokens=False).ids
