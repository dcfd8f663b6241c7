"""The vocabulary in a GGUF file gives the ids of the tokenizer it was written from, or is refused by field."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from minimind.errors import TokenizerError
from minimind.interop.gguf_file import GgufFile
from minimind.interop.gguf_tokenizer import read_tokenizer
from minimind.text.conversation import Conversation, Message, parse_ids, render, render_prompt
from minimind.text.tokenizer import PATTERNS, Tokenizer

Write = Callable[..., Path]


def hostile_lines() -> list[str]:
    """Digits, code, JSON, Chinese, emoji, white space: where a wrong split pattern or merge shows."""
    generator = random.Random(0)
    parts = [
        *("hello", " world", "I'll", "don't", "'S", "\u2019s", "Straße", "naïve", "привет", " مرحبا", "हिन्दी", "ไทย"),
        *("2026年价格是12345元", "1,000,000", "3.14159", "½²٣④", "x1y22", " 7", "  8", "0x1F", "Ⅷ"),
        *("def f(x):\n\treturn {'a': [1, 2]}\n", "\n\n    # 注释", "for(;;){i++;}", '<div class="a">', "a_b.c->d"),
        *('{"name": "f", "arguments": {"x": "\\u4f60", "y": -1.5e10}}', "[1,2,3]", "\\n"),
        *("你好，世界。", "日本語かな", "각가", "👩\u200d🚀", "🏳️\u200d🌈", "e\u0301", "\ufeff", "\u200b"),
        *(" ", "  ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u3000", "\u00a0", "   \n\n\t "),
        *("!", "?!...", "$$$", "--", "<|im_end|>", "<think>"),
    ]
    mixed = ["".join(generator.choices(parts, k=generator.randrange(1, 12))) for _ in range(400)]
    prose = [line for page in sorted(topics.values())[:12] for line in page.splitlines()[:20]]
    return [*parts, *mixed, *prose]


LINES = hostile_lines()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_vocabulary_of_each_pattern_comes_back(pattern: str, write_gguf: Write) -> None:
    tokenizer = Tokenizer.train(["".join(LINES)], 330, pattern=pattern)

    found = read_tokenizer(GgufFile.open(write_gguf(tokenizer=tokenizer)))

    assert found.fingerprint == tokenizer.fingerprint
    assert found.control_names == tokenizer.control_names
    assert found.decode(range(36), skip_special=True) == tokenizer.decode(range(36), skip_special=True)
    assert found.encode_batch(LINES) == tokenizer.encode_batch(LINES)


TEXT, LIST, SWITCH = 8, 9, 7
REFUSED: list[tuple[str, Any, str]] = [
    ("model", None, "tokenizer.ggml.model is None; expected gpt2 or llama"),
    ("model", (TEXT, "t5"), "tokenizer.ggml.model is 't5'; expected gpt2 or llama"),
    ("model", (TEXT, "llama"), "tokenizer.ggml.scores is missing"),
    ("pre", None, "tokenizer.ggml.pre is None; expected llama3 or"),
    ("pre", (TEXT, "deepseek-llm"), "tokenizer.ggml.pre is 'deepseek-llm'"),
    ("tokens", None, "tokenizer.ggml.tokens is missing"),
    ("tokens", (TEXT, "abc"), "tokenizer.ggml.tokens is missing or another type"),
    ("tokens", (LIST, [1, 2]), "tokenizer.ggml.tokens is missing or another type; expected a list of str"),
    ("token_type", None, "tokenizer.ggml.token_type is missing"),
    ("token_type", (LIST, [1, 1]), "tokenizer.ggml.token_type has 2 items for 330 tokens"),
    ("merges", None, "tokenizer.ggml.merges is missing"),
    ("merges", (LIST, ["a b c"]), "tokenizer.ggml.merges 0 has 3 parts"),
    ("merges", (LIST, ["no thing"]), "merge 'no' + 'thing' uses or makes a token that is missing"),
    ("add_eos_token", (SWITCH, True), "tokenizer.ggml.add_eos_token is on"),
    ("add_space_prefix", (SWITCH, True), "tokenizer.ggml.add_space_prefix is on"),
]


@pytest.mark.parametrize(("name", "given", "words"), REFUSED)
def test_values_that_would_give_other_ids_are_refused(name: str, given: Any, words: str, write_gguf: Write) -> None:
    gguf = pytest.importorskip("gguf")
    path = write_gguf(values={f"tokenizer.ggml.{name}": given and (gguf.GGUFValueType(given[0]), given[1])})

    with pytest.raises(TokenizerError) as error:
        read_tokenizer(GgufFile.open(path))

    assert str(path) in str(error.value) and words in str(error.value)


def changed(tokenizer: Tokenizer, **places: Any) -> dict[str, Any]:
    """Tokens and types of a file with some of them changed: `tokens={5: "x"}`."""
    gguf = pytest.importorskip("gguf")
    known = tokenizer._vocabulary
    lists = {
        "tokens": list(known.tokens),
        "token_type": [1 if t not in known.control else 3 if t in known.special else 4 for t in known.tokens],
    }
    for name, changes in places.items():
        for place, value in changes.items():
            lists[name][place] = value
    return {f"tokenizer.ggml.{name}": (gguf.GGUFValueType.ARRAY, values) for name, values in lists.items()}


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"tokens": {299: "!"}}, "token '!' has more than one id"),
        ({"token_type": {7: 5}}, "token_type 7 is 5 for '<|quad_start|>'; expected a used token"),
        ({"token_type": {329: 6}}, "token_type 329 is 6"),
        ({"token_type": {40: 3}}, "has no token of text"),
        ({"token_type": {2: 1}}, "has no control token '<|im_end|>', the eos_token"),
        ({"tokens": {36: "€"}}, "byte 0x21 has no token"),
        ({"tokens": {329: "two words"}}, "token 'two words' is not spelled in byte symbols"),
    ],
)
def test_tokens_that_could_not_be_promised_are_refused(
    places: Any, words: str, write_gguf: Write, tokenizer: Tokenizer
) -> None:
    path = write_gguf(values=changed(tokenizer, **places))

    with pytest.raises(TokenizerError, match=re.escape(str(path))) as error:
        read_tokenizer(GgufFile.open(path))

    assert words in str(error.value)


def test_names_of_rows_without_a_token_are_left_out(write_gguf: Write, tokenizer: Tokenizer) -> None:
    known = tokenizer._vocabulary
    padded = Tokenizer(replace(known, tokens=(*known.tokens, "aaa", "bbb")))
    values = changed(padded, tokens={330: "[PAD330]", 331: "[PAD331]"}, token_type={330: 5, 331: 5})

    found = read_tokenizer(GgufFile.open(write_gguf(values=values)))

    assert found.vocab_size == 330 and found.fingerprint == tokenizer.fingerprint


@pytest.fixture(scope="module")
def real(smollm2: Path) -> Tokenizer:
    return read_tokenizer(GgufFile.open(smollm2))


def test_a_real_vocabulary_is_read(real: Tokenizer) -> None:
    assert (real.vocab_size, real.pattern, len(real.control_ids)) == (49152, "smollm", 17)
    assert (real.pad_id, real.bos_id, real.eos_id) == (0, 1, 2)
    assert "<think>" not in real.control_names


def test_a_real_vocabulary_gives_the_ids_of_transformers_reading_the_same_file(real: Tokenizer, smollm2: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import pre_tokenizers

    theirs = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    # transformers knows no pattern "smollm" and cuts as gpt2; this is the one in SmolLM2's own tokenizer.json.
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert len(LINES) > 600
    for line in LINES:
        assert real.encode_with_control(line) == theirs(line)["input_ids"], line
        assert real.decode(real.encode(line)) == line


def test_a_byte_without_a_token_is_refused_and_never_dropped(real: Tokenizer) -> None:
    lost = [character for character in map(chr, range(0x110000)) if not "\ud800" <= character <= "\udfff"]
    lost = [character for character in lost if set(character.encode()) & {4, 6, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2}]
    assert [*map(ord, lost[:7])] == [4, 6, 0x13, 0x14, 0x16, 0x1D, 0x40000]
    for character in lost[:8]:
        for encode in (real.encode, real.encode_with_control, lambda text: real.encode_batch([text])):
            with pytest.raises(TokenizerError, match=r"byte 2 of the text is 0x.*, for which this vocabulary has no"):
                encode(f"ab{character}")
    with pytest.raises(TokenizerError, match="0xff"):
        real.encode_bytes(b"a\xff")
    assert real.decode_bytes(real.encode_bytes(b"a\x80\xc3")) == b"a\x80\xc3"


def test_shared_conversations_are_rendered_with_a_real_vocabulary(real: Tokenizer, shared: Path) -> None:
    lines = (shared / "data" / "lora_identity.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        chat = Conversation.parse(json.loads(line), f"lora_identity.jsonl:{number}")
        rendered = render(chat, real)
        assert parse_ids(rendered.ids, real) == chat
        assert rendered.ids == real.encode_with_control(real.decode(rendered.ids)) and 1.0 in rendered.weights


def test_a_prompt_is_the_text_of_the_models_own_template(real: Tokenizer, smollm2: Path) -> None:
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template(GgufFile.open(smollm2).values["tokenizer.chat_template"])
    messages = [
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Yes?"),
        Message("user", "x"),
    ]

    text = template.render(messages=[message.to_dict() for message in messages], add_generation_prompt=True)

    assert real.decode(render_prompt(messages, (), real)) == text
