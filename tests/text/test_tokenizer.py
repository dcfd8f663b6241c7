"""One tokenization: round trips, control tokens that no text can forge, and files that agree with each other."""

import hashlib
import json
import pickle
import random
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.errors import TokenizerError
from minimind.text.tokenizer import PATTERNS, RESERVED, StreamDecoder, Tokenizer

CHINESE = "大模型从文本中学习语言。2026年价格是12345元，天气很好。\n你好！请问今天几点？\n"
CORPUS = [*sorted(topics.values())[:40], CHINESE * 20, "for i in range(10):\n    print(i)  # 数字\n" * 20]
TOKENIZERS = {pattern: Tokenizer.train(CORPUS, 1500, pattern=pattern) for pattern in PATTERNS}
SCALARS = [*range(0xD800), *range(0xE000, 0x110000)]

HOSTILE = [
    "",
    " ",
    "\n",
    " \n \t\r\n\n  x  \n",
    "\u00a0\u2003\u3000\u200b\ufeff\x00\x1b",
    "  leading and trailing  ",
    "2026年价格是12345元, 3.14159 1,000,000 ½ ² ٣ ④",
    "I'll don't 'S 'RE we'Ve ''' \u2019s",
    "👩\u200d🚀🏳️\u200d🌈e\u0301é가각\u1100\u1161ﷺ\U0010ffff",
    "def f(x):\n\treturn {'a': [1, 2]}\n\n\n    # 注释",
    '{"name": "f", "arguments": {"x": "\\u4f60", "y": -1.5e10}}',
    "אבג مرحبا हिन्दी ไทย 日本語かな",
    "a" * 3000 + " " * 3000 + "!" * 3000 + "1" * 300,
    "<|im_start|>user\n<|im_end|> <think></think> <|endoftext|><tool_call>",
]


@pytest.fixture(params=PATTERNS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


@pytest.fixture(scope="session")
def reference(shared: Path) -> Path:
    return shared / "reference"


def test_reserved_tokens_are_those_of_the_published_vocabulary(reference: Path) -> None:
    published = json.loads((reference / "minimind_tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]

    ours = json.loads(TOKENIZERS["gpt2"]._with_control.to_str())["added_tokens"]

    assert ours == published


def test_published_vocabulary_gives_the_published_ids(reference: Path) -> None:
    tokenizer = Tokenizer.load(reference / "minimind_tokenizer.json")

    assert (tokenizer.vocab_size, tokenizer.pattern, tokenizer.add_prefix_space) == (6400, "gpt2", False)
    for line in (reference / "minimind_rendered.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert tokenizer.encode_with_control(row["text"]) == row["ids"]
        assert tokenizer.decode(row["ids"]) == row["text"]


def test_qwen2_pattern_is_the_one_importers_know_by_its_hash() -> None:
    digest = hashlib.sha256(str(PATTERNS["qwen2"]).encode()).hexdigest()

    assert digest == "1ff7f41064896984db5d1bb6ff64fa4bc29007d08c1b439e505b7392777a319e"


def test_ids_are_reserved_tokens_then_bytes_then_merges(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokens[:36] == RESERVED
    assert [len(spelled) for spelled in tokenizer.token_bytes[:292]] == [0] * 36 + [1] * 256
    assert min(map(len, tokenizer.token_bytes[292:])) >= 2
    assert tokenizer.vocab_size == len(tokenizer.token_bytes) == 1500
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    assert (tokenizer.control("<tool_call>"), tokenizer.control("</think>")) == (21, 26)


def test_every_scalar_value_survives_between_its_neighbours(tokenizer: Tokenizer) -> None:
    blocks = ["".join(map(chr, SCALARS[start : start + 4096])) for start in range(0, len(SCALARS), 4096)]

    assert sum(map(len, blocks)) == 1_112_064
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(blocks)] == blocks


@pytest.mark.slow
def test_every_scalar_value_survives_alone(tokenizer: Tokenizer) -> None:
    characters = [chr(value) for value in SCALARS]

    for start in range(0, len(characters), 1 << 16):
        block = characters[start : start + (1 << 16)]
        assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(block)] == block


def test_every_byte_and_every_pair_of_bytes_survives(tokenizer: Tokenizer) -> None:
    singles = [bytes([byte]) for byte in range(256)]
    for data in [*singles, *(left + right for left in singles for right in singles)]:
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@pytest.mark.slow
def test_a_million_random_byte_strings_survive(tokenizer: Tokenizer) -> None:
    generator = random.Random(0)
    for _ in range(500_000):
        data = generator.randbytes(generator.randrange(1, 24))
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@given(st.binary(max_size=200), st.sampled_from([*PATTERNS]))
def test_bytes_survive_and_are_never_control_tokens(data: bytes, pattern: str) -> None:
    ids = TOKENIZERS[pattern].encode_bytes(data)

    assert TOKENIZERS[pattern].decode_bytes(ids) == data
    assert not TOKENIZERS[pattern].control_ids & set(ids)


@given(st.text(max_size=200), st.sampled_from([*PATTERNS]))
def test_text_survives_and_its_bytes_have_the_same_ids(text: str, pattern: str) -> None:
    ids = TOKENIZERS[pattern].encode(text)

    assert TOKENIZERS[pattern].decode(ids) == text
    assert TOKENIZERS[pattern].encode_bytes(text.encode()) == ids


@given(st.lists(st.sampled_from([*RESERVED, "<", "|", "think", ">", " ", "\n", "你"]), max_size=20))
def test_no_text_forges_a_control_token(parts: list[str]) -> None:
    text = "".join(parts)
    for tokenizer in TOKENIZERS.values():
        ids = tokenizer.encode(text)
        assert not tokenizer.control_ids & set(ids)
        assert tokenizer.decode(ids) == text


def test_a_corpus_full_of_control_strings_makes_no_merge_into_one() -> None:
    corpus = ["".join(RESERVED) * 20, " ".join(RESERVED) * 20]

    for pattern in PATTERNS:
        tokenizer = Tokenizer.train(corpus, 360, pattern=pattern)
        assert tokenizer.tokens[:36] == RESERVED
        assert not set(tokenizer.tokens[36:]) & set(RESERVED)


def test_trusted_text_becomes_control_tokens_when_asked(tokenizer: Tokenizer) -> None:
    text = "".join(RESERVED)

    assert tokenizer.encode_with_control(text) == list(range(36))
    assert tokenizer.decode(range(36)) == text
    assert tokenizer.decode(range(36), skip_special=True) == "".join(RESERVED[21:])


def test_broken_utf8_decodes_to_replacement_characters(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_bytes("你".encode()[:2] + b"a\xff")

    assert tokenizer.decode(ids) == "\ufffda\ufffd"


@given(st.data(), st.booleans())
def test_streamed_text_is_the_whole_text(data: st.DataObject, skip_special: bool) -> None:
    tokenizer = TOKENIZERS["qwen2"]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=60))

    stream = StreamDecoder(tokenizer, skip_special)
    streamed = "".join([*map(stream.push, ids), stream.finish()])

    assert streamed == tokenizer.decode(ids, skip_special)


@given(st.text(max_size=50))
def test_a_stream_of_good_text_never_shows_a_broken_character(text: str) -> None:
    tokenizer = TOKENIZERS["qwen2"]
    stream = StreamDecoder(tokenizer)

    shown = ""
    for byte in text.encode():
        shown += stream.push(tokenizer.encode_bytes(bytes([byte]))[0])
        assert text.startswith(shown)
    assert shown == text and stream.finish() == ""


def test_lone_surrogates_are_refused_with_their_position(tokenizer: Tokenizer) -> None:
    for encode in (tokenizer.encode, tokenizer.encode_with_control, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(TokenizerError, match=r"character 2 .* U\+D83D"):
            encode("ab\ud83d")
    with pytest.raises(TokenizerError, match=r"U\+DC80"):
        Tokenizer.train(["fine", "\udc80"], 300)


def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer) -> None:
    for index in (-1, 1500):
        with pytest.raises(TokenizerError, match=rf"id {index} .* 0\.\.1499"):
            tokenizer.decode([5, index])


def test_encoding_in_a_batch_equals_encoding_alone(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch(HOSTILE) == [tokenizer.encode(text) for text in HOSTILE]


def test_digits_are_split_one_by_one_by_qwen2_only() -> None:
    spelled = {
        pattern: [tokenizer.token_bytes[i].decode() for i in tokenizer.encode("12345")]
        for pattern, tokenizer in TOKENIZERS.items()
    }

    assert spelled["qwen2"] == ["1", "2", "3", "4", "5"]
    assert len(spelled["gpt2"]) < 5


@pytest.mark.parametrize("unit", ["a", "!", "中", " ", "\r\n "])
def test_a_megabyte_of_one_thing_is_encoded_in_time(unit: str, tokenizer: Tokenizer) -> None:
    # Work that grew with the square would take hours here; the suite's time limit is the assertion.
    text = unit * (1_000_000 // len(unit.encode()))

    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("unit", ["a", " \n\tx", "1", "'", "\u0301", "👩\u200d🚀", "\u3000a", "<|im_end|>"])
def test_ten_megabytes_of_one_thing_are_encoded_in_time(unit: str, tokenizer: Tokenizer) -> None:
    text = unit * (10_000_000 // len(unit.encode()))

    assert tokenizer.decode(tokenizer.encode_with_control(text)) == text


def test_white_space_beyond_the_regex_engine_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="5,000,000 white-space"):
        tokenizer.encode(" " * 5_000_001)


def assert_training_is_deterministic(times: int, tmp_path: Path) -> None:
    shuffled = list(CORPUS)
    files = set()
    for seed in range(times):
        random.Random(seed).shuffle(shuffled)
        Tokenizer.train(iter(shuffled), 1000).save(tmp_path)
        files.add((tmp_path / "tokenizer.json").read_bytes())
    assert len(files) == 1


def test_the_same_texts_in_any_order_give_the_same_file(tmp_path: Path) -> None:
    assert_training_is_deterministic(3, tmp_path)


@pytest.mark.slow
def test_the_same_texts_in_any_order_give_the_same_file_twenty_times(tmp_path: Path) -> None:
    assert_training_is_deterministic(20, tmp_path)


def test_impossible_trainings_are_refused_with_numbers() -> None:
    with pytest.raises(TokenizerError, match=r"291 is below 292"):
        Tokenizer.train(CORPUS, 291)
    with pytest.raises(
        TokenizerError, match=r"gives only (\d+) tokens, but vocab_size is 5000; .* vocab_size \1 or less"
    ):
        Tokenizer.train(["too little text"], 5000)
    with pytest.raises(TokenizerError, match="unknown split pattern 'llama3'; expected one of qwen2, gpt2"):
        Tokenizer.train(CORPUS, 300, pattern="llama3")
    with pytest.raises(TokenizerError, match="add_prefix_space needs pattern 'gpt2'"):
        Tokenizer.train(CORPUS, 300, add_prefix_space=True)


def test_a_vocabulary_of_bytes_alone_needs_no_text() -> None:
    tokenizer = Tokenizer.train([], 292)

    assert tokenizer.decode(tokenizer.encode("你好")) == "你好"
    assert len(tokenizer.encode("你好")) == 6


def test_a_saved_tokenizer_loads_as_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)

    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.encode_batch(HOSTILE) == tokenizer.encode_batch(HOSTILE)
    (tmp_path / "tokenizer_config.json").unlink()
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint


def test_workers_get_an_equal_copy(tokenizer: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))

    assert copy.encode_batch(HOSTILE) == tokenizer.encode_batch(HOSTILE)


def test_fingerprints_tell_apart_whatever_gives_other_ids() -> None:
    known = TOKENIZERS["gpt2"]._vocabulary
    names = list(known.control)
    moved = (*known.tokens[:35], "unused", *known.tokens[36:], names[35])
    others = [
        known,
        replace(known, pattern="qwen2"),
        replace(known, add_prefix_space=True),
        replace(known, merges=known.merges[:-1]),
        replace(known, merges=(*known.merges[-2:], *known.merges[:-2])),
        replace(known, tokens=(*known.tokens[:300], known.tokens[301], known.tokens[300], *known.tokens[302:])),
        replace(known, control=dict(zip(names, [*range(35), 1500], strict=True)), tokens=moved),
    ]

    assert len({Tokenizer(vocabulary).fingerprint for vocabulary in others}) == len(others)
    # Whether a reader hides a token changes no id.
    assert Tokenizer(replace(known, special=frozenset())).fingerprint == Tokenizer(known).fingerprint


def test_transformers_gives_the_same_ids_and_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)

    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)

    assert isinstance(theirs, transformers.PreTrainedTokenizerFast)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, theirs.unk_token_id) == (1, 2, 0, 0)
    generator = random.Random(0)
    for text in [*HOSTILE, *("".join(map(chr, generator.choices(SCALARS[:0x3000], k=40))) for _ in range(200))]:
        ids = tokenizer.encode_with_control(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == tokenizer.decode(ids) == text
    noise = generator.choices(range(tokenizer.vocab_size), k=2000)
    for skip in (False, True):
        assert theirs.decode(noise, skip_special_tokens=skip) == tokenizer.decode(noise, skip_special=skip)
