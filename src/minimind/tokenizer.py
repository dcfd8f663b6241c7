"""Byte-level BPE: text or bytes <-> ids, one tokenization in training, in serving and in every exported file.

Simplified on purpose: no normalizer, no post-processor, no unknown token. All 256 byte symbols are always in the
alphabet, so every text has ids, and decoding gives back exactly what was encoded. Control tokens (`<|im_end|>`,
`<think>`, ...) are no part of the text encoder: only code that asks for them by name gets their ids, so no text can
forge them. `docs/tokenizer.md` shows these promises at work; read `conversation.py` next.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from minimind.errors import TokenizerError

__all__ = ["PATTERNS", "RESERVED", "StreamDecoder", "Tokenizer", "Vocabulary"]

BOS, EOS, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
ROLES = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "unk_token": PAD}

# Ids 0..35, in the order of MiniMind's published vocabulary. Those from NUM_SPECIAL on are added tokens without the
# "special" flag: they survive `skip_special`, because a reader wants to see a think block or a tool call.
RESERVED = (
    *(PAD, BOS, EOS),
    *(f"<|{name}_{end}|>" for name in ("object_ref", "box", "quad", "vision") for end in ("start", "end")),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"),
    *("<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    *(f"<|buffer{number}|>" for number in range(1, 10)),
)
NUM_SPECIAL = 21

# How a text is cut before merging; llama.cpp knows each by this name. None: the pattern built into ByteLevel.
PATTERNS: Mapping[str, str | None] = {
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
    "gpt2": None,
}

# 150k tokens are about 11 MB of JSON; a larger file is no byte-level BPE, and could fill the memory when parsed.
MAX_FILE_BYTES = 16 << 20
# The regex engine gives up after ten million steps back, which only a run of white space can cost it.
MAX_WHITE_SPACE = 5_000_000

# Settings of a tokenizer.json that would change ids or text, with the only value each may have: none.
_NO_SECTION = ("normalizer", "post_processor", "truncation", "padding")
_NO_MODEL_SETTING = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")


def _byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a vocabulary file (GPT-2, Radford et al. 2019)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


BYTE_SYMBOLS = _byte_symbols()
SYMBOL_BYTES = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}


@dataclass(frozen=True)
class Vocabulary:
    """All that decides ids, and the one place from which both files are written.

    tokens:   what each id spells: byte symbols, or the name of a control token
    merges:   pairs of tokens, first come first merged
    control:  name -> id of the tokens that no text can produce
    special:  the control tokens that `skip_special` leaves out
    """

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    pattern: str
    add_prefix_space: bool
    control: Mapping[str, int]
    special: frozenset[str]

    def check(self, where: str) -> None:
        """Prove that every text has ids and that none of them is a control token's.

        BPE can only answer with a byte symbol or the result of a merge. So it is enough that all byte symbols exist
        and that every merge stays among the tokens that are not control tokens.
        """
        text_tokens = set(self.tokens) - self.control.keys()
        for byte, symbol in enumerate(BYTE_SYMBOLS):
            if symbol not in text_tokens:
                raise TokenizerError(f"{where}: byte 0x{byte:02x} has no token; byte-level BPE has all 256")
        for token in text_tokens:
            if not SYMBOL_BYTES.keys() >= set(token):
                raise TokenizerError(f"{where}: token {token!r} is not spelled in byte symbols, as byte-level BPE is")
        for left, right in self.merges:
            if not text_tokens >= {left, right, left + right}:
                raise TokenizerError(
                    f"{where}: merge {left!r} + {right!r} uses or makes a token that is missing or a control token"
                )
        for name in (BOS, EOS, PAD):
            if name not in self.control:
                raise TokenizerError(f"{where}: added_tokens lacks {name!r}, which conversations are built with")

    def build(self, *, with_control: bool) -> tokenizers.Tokenizer:
        ids = {token: index for index, token in enumerate(self.tokens)}
        built = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=list(self.merges)))
        built.pre_tokenizer = _pre_tokenizer(self.pattern, self.add_prefix_space)
        built.decoder = decoders.ByteLevel()
        if with_control:
            names = sorted(self.control, key=self.control.__getitem__)
            built.add_tokens([AddedToken(name, normalized=False, special=name in self.special) for name in names])
        return built

    def config_json(self) -> dict[str, Any]:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": self.add_prefix_space,
            "add_bos_token": False,
            "add_eos_token": False,
            **ROLES,
            "clean_up_tokenization_spaces": False,
        }


class Tokenizer:
    """Text or bytes <-> ids. `load` one or `train` one."""

    def __init__(self, vocabulary: Vocabulary, where: str = "tokenizer") -> None:
        vocabulary.check(where)
        self._vocabulary = vocabulary
        self._with_control = vocabulary.build(with_control=True)
        # Without added tokens no text reaches a control id; `Vocabulary.check` has proved that merges do not either.
        self._plain = vocabulary.build(with_control=False)
        self.pattern = vocabulary.pattern
        self.add_prefix_space = vocabulary.add_prefix_space
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id, self.eos_id, self.pad_id = (vocabulary.control[name] for name in (BOS, EOS, PAD))
        self.control_ids = frozenset(vocabulary.control.values())
        self._special_ids = frozenset(vocabulary.control[name] for name in vocabulary.special)
        self._spelling = [
            token.encode() if index in self.control_ids else bytes(SYMBOL_BYTES[symbol] for symbol in token)
            for index, token in enumerate(vocabulary.tokens)
        ]

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read `tokenizer.json`, or the folder with it; a `tokenizer_config.json` beside it must agree."""
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        vocabulary = _parse_tokenizer_json(_read_json(path), str(path))
        config_path = path.with_name("tokenizer_config.json")
        if config_path.exists():
            _check_config(_read_json(config_path), vocabulary, config_path, path)
        return cls(vocabulary, str(path))

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, pattern: str = "qwen2", add_prefix_space: bool = False
    ) -> "Tokenizer":
        """Learn merges from `texts` until there are exactly `vocab_size` tokens, reserved ones and bytes included."""
        fixed = len(RESERVED) + len(BYTE_SYMBOLS)
        if vocab_size < fixed:
            raise TokenizerError(f"vocab_size {vocab_size} is below {fixed}: {len(RESERVED)} reserved ids + 256 bytes")
        if pattern not in PATTERNS:
            raise TokenizerError(f"unknown split pattern {pattern!r}; expected one of {', '.join(PATTERNS)}")
        if add_prefix_space and PATTERNS[pattern] is not None:
            raise TokenizerError(f"add_prefix_space needs pattern 'gpt2', got {pattern!r}; set it to false")
        learner = tokenizers.Tokenizer(models.BPE())
        learner.pre_tokenizer = _pre_tokenizer(pattern, add_prefix_space)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(RESERVED), initial_alphabet=BYTE_SYMBOLS, show_progress=False
        )
        learner.train_from_iterator(map(_checked, texts), trainer)
        learnt = json.loads(learner.to_str())["model"]
        size = len(RESERVED) + len(learnt["vocab"])
        if size < vocab_size:
            raise TokenizerError(
                f"the text gives only {size} tokens, but vocab_size is {vocab_size}; "
                f"add text or ask for vocab_size {size} or less"
            )
        return cls(
            Vocabulary(
                tokens=RESERVED + tuple(sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)),
                merges=tuple((left, right) for left, right in learnt["merges"]),
                pattern=pattern,
                add_prefix_space=add_prefix_space,
                control={name: index for index, name in enumerate(RESERVED)},
                special=frozenset(RESERVED[:NUM_SPECIAL]),
            )
        )

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json and tokenizer_config.json, both from the one `Vocabulary`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = json.dumps(self._vocabulary.config_json(), ensure_ascii=False, indent=2)
        (folder / "tokenizer.json").write_text(self._with_control.to_str(pretty=True) + "\n", encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of all that decides ids: equal fingerprints, equal ids for every text."""
        known = self._vocabulary
        facts = [known.tokens, known.merges, known.pattern, known.add_prefix_space, sorted(known.control.items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes each id stands for; empty for control tokens, which stand for no text."""
        return [b"" if index in self.control_ids else spelling for index, spelling in enumerate(self._spelling)]

    @property
    def merges(self) -> tuple[tuple[str, str], ...]:
        """The merges in byte symbols, in order, as other file formats want them."""
        return self._vocabulary.merges

    @property
    def tokens(self) -> tuple[str, ...]:
        """What each id spells: byte symbols, or the name of a control token."""
        return self._vocabulary.tokens

    def control(self, name: str) -> int:
        """The id of a control token such as `<think>`."""
        if name not in self._vocabulary.control:
            raise TokenizerError(f"the vocabulary has no control token {name!r}")
        return self._vocabulary.control[name]

    def encode(self, text: str) -> list[int]:
        """The ids of ordinary text; control tokens spelled in it stay text."""
        return self._plain.encode(_checked(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` each text, on all cores."""
        checked = [_checked(text) for text in texts]
        return [encoding.ids for encoding in self._plain.encode_batch_fast(checked, add_special_tokens=False)]

    def encode_with_control(self, text: str) -> list[int]:
        """The ids of trusted text in which spelled control tokens become ids: for templates and tests only."""
        return self._with_control.encode(_checked(text), add_special_tokens=False).ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids for any bytes: its valid UTF-8 stretches as `encode` has them, each other byte as its byte token."""
        ids: list[int] = []
        # "surrogateescape" turns the byte 0x80 + n, where it is not UTF-8, into the lone surrogate U+DC80 + n.
        for stretch in re.findall("[\udc80-\udcff]+|[^\udc80-\udcff]+", data.decode("utf-8", "surrogateescape")):
            if "\udc80" <= stretch[0] <= "\udcff":
                ids += [self._byte_ids[ord(escaped) - 0xDC00] for escaped in stretch]
            else:
                ids += self.encode(stretch)
        return ids

    @cached_property
    def _byte_ids(self) -> list[int]:
        positions = {token: index for index, token in enumerate(self._vocabulary.tokens)}
        return [positions[symbol] for symbol in BYTE_SYMBOLS]

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        """The bytes of `ids`, control tokens as their names; `decode_bytes(encode_bytes(b)) == b`."""
        ids = [int(index) for index in ids]
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise TokenizerError(f"id {index} is not in the vocabulary, which has ids 0..{self.vocab_size - 1}")
        hidden = self._special_ids if skip_special else ()
        return b"".join(self._spelling[index] for index in ids if index not in hidden)

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of `ids`, with U+FFFD for bytes that are not UTF-8; `decode(encode(text)) == text`."""
        return self.decode_bytes(ids, skip_special).decode("utf-8", "replace")


class StreamDecoder:
    """Decode ids as they arrive, holding back the bytes of a character until it is whole.

    What `push` and `finish` return, joined, is `decode` of all ids. One decoder reads one stream.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, index: int) -> str:
        """The text that became certain with this id; often empty in the middle of a character."""
        return self._decoder.decode(self._tokenizer.decode_bytes([index], self._skip_special))

    def finish(self) -> str:
        """What is left when no id will follow: U+FFFD if the last character never became whole."""
        return self._decoder.decode(b"", final=True)


def _checked(text: str) -> str:
    """`text`, if it can be encoded at all."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} of the text is the lone surrogate U+{ord(text[error.start]):04X}, "
            "which no UTF-8 can hold; repair the text or encode its bytes with encode_bytes"
        ) from error
    if len(text) > MAX_WHITE_SPACE and any(m.end() - m.start() > MAX_WHITE_SPACE for m in re.finditer(r"\s+", text)):
        raise TokenizerError(f"the text has a run of over {MAX_WHITE_SPACE:,} white-space characters; shorten it")
    return text


def _pre_tokenizer(pattern: str, add_prefix_space: bool) -> pre_tokenizers.PreTokenizer:
    regex = PATTERNS[pattern]
    if regex is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=True)
    split = pre_tokenizers.Split(tokenizers.Regex(regex), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=False)
    return pre_tokenizers.Sequence([split, byte_level])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenizerError(f"{path}: {path.stat().st_size:,} bytes; a tokenizer has at most {MAX_FILE_BYTES:,}")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _parse_tokenizer_json(spec: dict[str, Any], where: str) -> Vocabulary:
    """Accept exactly the files whose ids we can promise; anything else is named and refused."""
    model, added = spec.get("model"), spec.get("added_tokens")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(added, list):
        raise TokenizerError(f"{where}: expected a model of type 'BPE' and a list added_tokens")
    for section, names in ((spec, _NO_SECTION), (model, _NO_MODEL_SETTING)):
        for name in names:
            if section.get(name):
                raise TokenizerError(f"{where}: {name} is {str(section[name])[:200]}; expected none")
    pattern, add_prefix_space = _parse_pre_tokenizer(spec.get("pre_tokenizer"), where)
    try:
        control = {entry["content"]: entry["id"] for entry in added}
        stripping = [entry["content"] for entry in added if entry["lstrip"] or entry["rstrip"] or entry["single_word"]]
        ids = {**model["vocab"], **control}
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        vocabulary = Vocabulary(
            tokens=tuple(sorted(ids, key=ids.__getitem__)),
            merges=tuple((left, right) for left, right in pairs),
            pattern=pattern,
            add_prefix_space=add_prefix_space,
            control=control,
            special=frozenset(entry["content"] for entry in added if entry["special"]),
        )
        vocabulary.check(where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TokenizerError(f"{where}: malformed added_tokens, vocab or merges: {error!r}") from error
    for index, token in enumerate(vocabulary.tokens):
        if type(ids[token]) is not int or ids[token] != index:
            raise TokenizerError(f"{where}: token {token!r} has id {ids[token]!r}, expected {index}: ids are 0..N-1")
    if stripping:
        raise TokenizerError(f"{where}: added token {stripping[0]!r} takes text beside it; expected plain")
    return vocabulary


def _parse_pre_tokenizer(found: Any, where: str) -> tuple[str, bool]:
    for pattern in PATTERNS:
        for add_prefix_space in (False, True):
            known = json.loads(_pre_tokenizer(pattern, add_prefix_space).__getstate__())
            if _without_offsets(found) == _without_offsets(known):
                return pattern, add_prefix_space
    raise TokenizerError(
        f"{where}: pre_tokenizer is {json.dumps(found)[:200]}; expected that of one of {', '.join(PATTERNS)}"
    )


def _without_offsets(node: Any) -> Any:
    """A pre-tokenizer less `trim_offsets`, its one setting that cannot change ids."""
    if isinstance(node, dict):
        return {key: _without_offsets(value) for key, value in node.items() if key != "trim_offsets"}
    return [_without_offsets(value) for value in node] if isinstance(node, list) else node


def _check_config(config: Mapping[str, Any], vocabulary: Vocabulary, config_path: Path, path: Path) -> None:
    """Refuse files that contradict each other: which one a reader obeys depends on the reader's version."""
    names = {str(index): name for name, index in vocabulary.control.items()}
    # transformers 4 takes a missing add_prefix_space for false, and a missing role for none, which is harmless.
    said = {"add_prefix_space": config.get("add_prefix_space") or False}
    holds: dict[str, Any] = {"add_prefix_space": vocabulary.add_prefix_space}
    for role, name in ROLES.items():
        said[role], holds[role] = config.get(role) or name, name
    for index, entry in (config.get("added_tokens_decoder") or {}).items():
        said[f"token {index}"], holds[f"token {index}"] = entry, names.get(index)
    for key, value in said.items():
        value = value.get("content") if isinstance(value, dict) else value
        if value != holds[key]:
            raise TokenizerError(f"{config_path} has {key} {value!r}, {path} has {holds[key]!r}; make the two agree")
