"""What decides ids, and the files that hold it: tokenizer.json and the tokenizer_config.json beside it.

A `Vocabulary` is checked before it is believed, wherever it comes from: no text may have the id of a control token, and
the files must say one thing. One from elsewhere may lack control tokens that are reserved here, such as `<think>`. That
is safe, because they are placed by name and a missing name is an error, never another id or plain text. It may also
lack bytes: SmolLM2's has no token for 21, of which 13 occur in no UTF-8 text. That is safe, because a text with such a
byte is refused; to leave the byte out would change what was said.
Next: `tokenizer.py`, which encodes and decodes with one.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from minimind.errors import TokenizerError

__all__ = ["BYTE_SYMBOLS", "PATTERNS", "RESERVED", "Vocabulary", "make_pre_tokenizer", "read_vocabulary"]

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

# How a text is cut before merging; llama.cpp knows each by this name. None: the pattern built into ByteLevel, to which
# "smollm" adds that each digit stands alone.
PATTERNS: Mapping[str, str | None] = {
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
    "gpt2": None,
    "smollm": None,
}

# Conversations are written in these, so a vocabulary without one of them is a broken file.
NEEDED_BYTES = frozenset([0x0A, *range(0x20, 0x7F)])

# 150k tokens are about 11 MB of JSON; a larger file is no byte-level BPE, and could fill the memory when parsed.
MAX_FILE_BYTES = 16 << 20

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
        """Prove that no id of a text is a control token's, and that every byte a text needs has a token.

        BPE can only answer with a byte symbol or the result of a merge. So it is enough that no byte symbol is a
        control token and that every merge stays among the tokens that are not control tokens.
        """
        if len(set(self.tokens)) < len(self.tokens):
            twice = Counter(self.tokens).most_common(1)[0][0]
            raise TokenizerError(f"{where}: token {twice!r} has more than one id; expected one")
        text_tokens = set(self.tokens) - self.control.keys()
        for byte, symbol in enumerate(BYTE_SYMBOLS):
            if symbol in self.control or (byte in NEEDED_BYTES and symbol not in text_tokens):
                raise TokenizerError(
                    f"{where}: byte 0x{byte:02x} has no token of text; expected one for each byte of printable ASCII"
                )
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
                raise TokenizerError(f"{where}: lacks {name!r}, a control token that conversations are built with")

    @cached_property
    def missing_bytes(self) -> frozenset[int]:
        """The bytes that have no token; none in a vocabulary that was trained here."""
        tokens = set(self.tokens)
        return frozenset(byte for byte, symbol in enumerate(BYTE_SYMBOLS) if symbol not in tokens)

    def build(self, *, with_control: bool) -> tokenizers.Tokenizer:
        ids = {token: index for index, token in enumerate(self.tokens)}
        built = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=list(self.merges)))
        built.pre_tokenizer = make_pre_tokenizer(self.pattern, self.add_prefix_space)
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
            # transformers 4 would add token_type_ids, which the models refuse.
            "model_input_names": ["input_ids", "attention_mask"],
        }


def make_pre_tokenizer(pattern: str, add_prefix_space: bool) -> pre_tokenizers.PreTokenizer:
    """What cuts a text, by one of `PATTERNS`, and spells the pieces in byte symbols."""
    regex = PATTERNS[pattern]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=regex is None)
    if pattern == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if regex is None:
        return byte_level
    split = pre_tokenizers.Split(tokenizers.Regex(regex), behavior="isolated")
    return pre_tokenizers.Sequence([split, byte_level])


def read_vocabulary(path: Path) -> Vocabulary:
    """From a tokenizer.json; a tokenizer_config.json beside it must agree. Errors: TokenizerError naming the field."""
    vocabulary = _parse_tokenizer_json(_read_json(path), str(path))
    config_path = path.with_name("tokenizer_config.json")
    if config_path.exists():
        _check_config(_read_json(config_path), vocabulary, config_path, path)
    return vocabulary


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
            known = json.loads(make_pre_tokenizer(pattern, add_prefix_space).__getstate__())
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
        said[role], holds[role] = _content(config.get(role)) or name, name
    # Nothing is derived from where padding stands, so it may be another control token; SmolLM2 pads with its EOS.
    if isinstance(said["pad_token"], str) and said["pad_token"] in vocabulary.control:
        holds["pad_token"] = said["pad_token"]
    for index, entry in (config.get("added_tokens_decoder") or {}).items():
        said[f"token {index}"], holds[f"token {index}"] = _content(entry), names.get(index)
    for key, value in said.items():
        if value != holds[key]:
            raise TokenizerError(f"{config_path} has {key} {value!r}, {path} has {holds[key]!r}; make the two agree")


def _content(entry: Any) -> Any:
    """Of a token that is spelled with its properties, as older files do."""
    return entry.get("content") if isinstance(entry, dict) else entry
