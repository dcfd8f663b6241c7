"""What decides the ids of a vocabulary made here, and the files that hold it: tokenizer.json and its settings.

A `Vocabulary` is checked before it is believed, wherever it comes from: no text may have the id of a control token, and
the files must say one thing. One from elsewhere may lack control tokens that are reserved here, such as `<think>`. That
is safe, because they are placed by name and a missing name is an error, never another id or plain text. It may also
lack bytes: SmolLM2's has no token for 21, of which 13 occur in no UTF-8 text. That is safe, because a text with such a
byte is refused; to leave the byte out would change what was said.
Next: `tokenizer.py`, which encodes and decodes with one.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from minimind.errors import TokenizerError, why

__all__ = [
    "BYTE_SYMBOLS",
    "PATTERNS",
    "RESERVED",
    "Roles",
    "Vocabulary",
    "check_agreement",
    "is_made_here",
    "is_plain",
    "make_pre_tokenizer",
    "parse_vocabulary",
    "read_json",
    "read_roles",
    "usual_end",
]

BOS, EOS, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")

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

# Where nothing names the end of a text.
USUAL_ENDS = (PAD, "</s>", "<eos>", "<|end_of_text|>", EOS)

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

# Gemma 3's 262k tokens are 33 MB of JSON; a larger file could fill the memory when it is parsed.
MAX_FILE_BYTES = 64 << 20

# Settings of a tokenizer.json that would change ids or text, with the only value each may have: none.
_NO_SECTION = ("normalizer",)
_NO_MODEL_SETTING = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")


def _byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a vocabulary file (GPT-2, Radford et al. 2019)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


BYTE_SYMBOLS = _byte_symbols()
SYMBOL_BYTES = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}


@dataclass(frozen=True)
class Roles:
    """Which control tokens begin a text, end it, and fill what is left of a row.

    start:  what stands before a plain text; none for most base models
    """

    start: tuple[str, ...] = (BOS,)
    bos: str | None = BOS
    eos: str = EOS
    pad: str = PAD
    unk: str | None = PAD


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
    roles: Roles = Roles()

    # What only vocabularies from elsewhere have (`foreign.py`).
    strips_space = begins_text = False
    strips: ClassVar[Mapping[str, tuple[bool, bool]]] = {}

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
        for name in (self.roles.bos, self.roles.eos, self.roles.pad):
            if name is not None and name not in self.control:
                raise TokenizerError(f"{where}: lacks {name!r}, a control token that begins, ends or fills a text")

    @cached_property
    def missing_bytes(self) -> frozenset[int]:
        """The bytes that have no token; none in a vocabulary that was trained here."""
        tokens = set(self.tokens)
        return frozenset(byte for byte, symbol in enumerate(BYTE_SYMBOLS) if symbol not in tokens)

    @cached_property
    def facts(self) -> str:
        """All that decides ids, as one line."""
        return json.dumps([self.tokens, self.merges, self.pattern, self.add_prefix_space, sorted(self.control.items())])

    @staticmethod
    def byte_token(byte: int) -> str:
        """The token of a byte that is part of no character."""
        return BYTE_SYMBOLS[byte]

    def spelling(self) -> list[bytes]:
        """The bytes of each id; control tokens as their names."""
        return [
            token.encode() if token in self.control else bytes(SYMBOL_BYTES[symbol] for symbol in token)
            for token in self.tokens
        ]

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """tokenizer.json and tokenizer_config.json, by name."""
        config = json.dumps(self.config_json(), ensure_ascii=False, indent=2)
        built = self.build(with_control=True).to_str(pretty=True)
        return {"tokenizer.json": f"{built}\n".encode(), "tokenizer_config.json": f"{config}\n".encode()}

    def build(self, *, with_control: bool, sentinel: str | None = None) -> tokenizers.Tokenizer:
        assert sentinel is None, "every stretch of a text is cut alike"
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
            **{role: getattr(self.roles, role.removesuffix("_token")) for role in ROLES},
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that nobody vouches for. Errors: TokenizerError"""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenizerError(f"{path}: {path.stat().st_size:,} bytes; a tokenizer has at most {MAX_FILE_BYTES:,}")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise TokenizerError(
            f"{path}: {why(error)}; expected a folder that `minimind tokenizer` wrote, or a model's"
        ) from error
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def parse_vocabulary(spec: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Vocabulary:
    """A file whose ids and texts we can promise. Errors: TokenizerError naming what else is in it"""
    model, added = spec.get("model"), spec.get("added_tokens")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(added, list):
        raise TokenizerError(f"{where}: expected a model of type 'BPE' and a list added_tokens")
    found = _find_pattern(spec.get("pre_tokenizer"))
    assert found is not None and is_plain(spec), where
    pattern, add_prefix_space = found
    try:
        control = {entry["content"]: entry["id"] for entry in added}
        ids = {**model["vocab"], **control}
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        vocabulary = Vocabulary(
            tokens=tuple(sorted(ids, key=ids.__getitem__)),
            merges=tuple((left, right) for left, right in pairs),
            pattern=pattern,
            add_prefix_space=add_prefix_space,
            control=control,
            special=frozenset(entry["content"] for entry in added if entry["special"]),
            roles=_roles(config, control, where),
        )
        vocabulary.check(where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TokenizerError(f"{where}: malformed added_tokens, vocab or merges: {error!r}") from error
    for index, token in enumerate(vocabulary.tokens):
        if type(ids[token]) is not int or ids[token] != index:
            raise TokenizerError(f"{where}: token {token!r} has id {ids[token]!r}, expected {index}: ids are 0..N-1")
    return vocabulary


def _roles(config: Mapping[str, Any], control: Collection[str], where: str) -> Roles:
    """Where the settings name nothing, the roles are those of a vocabulary made here."""
    named = read_roles(config, control, where)
    eos, bos = named["eos_token"], named["bos_token"]
    if eos is None and {BOS, EOS, PAD} <= set(control):
        return Roles()
    eos = eos or usual_end(control, where)
    return Roles(() if bos is None else (bos,), bos, eos, named["pad_token"] or eos, named["unk_token"])


def usual_end(control: Collection[str], where: str) -> str:
    """The token that ends a text where nothing names one. Errors: TokenizerError"""
    for name in USUAL_ENDS:
        if name in control:
            return name
    raise TokenizerError(f"{where}: nothing says which token ends a text; name one as eos_token beside the file")


def is_plain(spec: Mapping[str, Any]) -> bool:
    """Is this a byte-level vocabulary that does nothing else to a text, in one of the `PATTERNS`?"""
    model = spec.get("model") or {}
    if any(spec.get(name) for name in _NO_SECTION) or any(model.get(name) for name in _NO_MODEL_SETTING):
        return False
    is_known = _find_pattern(spec.get("pre_tokenizer")) is not None
    strips = any(entry.get(side) for entry in spec.get("added_tokens") or [] for side in ("lstrip", "rstrip"))
    return is_known and not strips and _adds_nothing(spec.get("post_processor"))


def is_made_here(spec: Mapping[str, Any]) -> bool:
    """Does it begin with MiniMind's reserved tokens?"""
    entries = [entry for entry in spec.get("added_tokens") or [] if isinstance(entry, dict)]
    names = {entry.get("id"): entry.get("content") for entry in entries}
    return all(names.get(index) == name for index, name in enumerate(RESERVED[:NUM_SPECIAL]))


def _adds_nothing(node: Any) -> bool:
    """Does a post-processor leave ids as they are? Tools write one that does even where none is needed."""
    if not node or node.get("type") == "ByteLevel":
        return True
    return node.get("type") == "TemplateProcessing" and not any("SpecialToken" in part for part in node["single"])


def _find_pattern(found: Any) -> tuple[str, bool] | None:
    """The pattern of a pre-tokenizer, and whether it puts a space before each text."""
    for pattern in PATTERNS:
        for add_prefix_space in (False, True):
            known = json.loads(make_pre_tokenizer(pattern, add_prefix_space).__getstate__())
            if _without_offsets(found) == _without_offsets(known):
                return pattern, add_prefix_space
    return None


def _without_offsets(node: Any) -> Any:
    """A pre-tokenizer less `trim_offsets`, its one setting that cannot change ids."""
    if isinstance(node, dict):
        return {key: _without_offsets(value) for key, value in node.items() if key != "trim_offsets"}
    return [_without_offsets(value) for value in node] if isinstance(node, list) else node


def read_roles(config: Mapping[str, Any], control: Collection[str], where: str) -> dict[str, str | None]:
    """The token of each role in a tokenizer_config.json, None where it names none. Errors: TokenizerError"""
    named = {role: _content(config.get(role)) for role in ROLES}
    for role, name in named.items():
        if name is not None and name not in control:
            raise TokenizerError(f"{where} has no control token {name!r}, the {role} of the settings beside it")
    return named


def check_agreement(config: Mapping[str, Any], control: Mapping[str, int], prefix_space: bool, where: str) -> None:
    """Refuse files that contradict each other: which one a reader obeys depends on the reader's version.

    prefix_space: whether tokenizer.json puts a space before each text
    """
    names = {str(index): name for name, index in control.items()}
    # transformers 4 takes a missing add_prefix_space for false.
    said = {"add_prefix_space": config.get("add_prefix_space") or False}
    holds: dict[str, Any] = {"add_prefix_space": prefix_space}
    for index, entry in (config.get("added_tokens_decoder") or {}).items():
        said[f"token {index}"], holds[f"token {index}"] = _content(entry), names.get(index)
    for key, value in said.items():
        if value != holds[key]:
            raise TokenizerError(
                f"tokenizer_config.json beside {where} has {key} {value!r}, the file itself {holds[key]!r}; "
                "make the two agree"
            )


def _content(entry: Any) -> Any:
    """Of a token that is spelled with its properties, as older files do."""
    return entry.get("content") if isinstance(entry, dict) else entry
