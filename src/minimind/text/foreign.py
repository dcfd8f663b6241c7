"""A vocabulary that others made: read faithfully, so that ids are those that its makers meant.

A vocabulary trained here keeps every promise of `tokenizer.py`. One from elsewhere keeps its own: it may compose
characters (NFC), put a space before a text, or have no token for some byte. What it does to a text is part of what its
model was trained with, so it is followed and never mended; `losses` says in words which promises do not hold. One
promise holds for all: no text gets the id of a control token, because texts are encoded by a copy that has none.

An added token is a control token if it is special or lies outside the vocabulary that was trained. The others, such as
Gemma's runs of newlines, are text that was never to be cut. Next: `tokenizer.py`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import tokenizers

from minimind.errors import TokenizerError
from minimind.text.vocabulary import (
    BYTE_SYMBOLS,
    SYMBOL_BYTES,
    Roles,
    Vocabulary,
    check_agreement,
    is_made_here,
    is_plain,
    parse_vocabulary,
    read_json,
    read_roles,
    usual_end,
)

__all__ = ["ForeignVocabulary", "losses", "read_vocabulary", "vocabulary_from_json"]

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")

# What turns tokens into text, as far as it can be followed token by token.
DECODERS = ("ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace")
# Where a sequence keeps its parts.
LISTS = ("pretokenizers", "normalizers", "processors", "decoders")
BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
# Read past: how long a batch of texts may be is for whoever makes batches.
NO_MATTER = ("truncation", "padding", "post_processor")
# A real split pattern has at most a few hundred characters.
MAX_PATTERN = 4096

PROBES = {
    "a letter and its accent come back as one character": "e\u0301",
    "a space at the start of a text is lost or added": "a",
    "spaces at the start of a text change": "  a",
    "runs of spaces change": "a   b",
    "line ends change": "a\r\n\tb\n",
    "upper case is lost": "A",
    "full-width letters change": "\uff21",
}


@dataclass(frozen=True)
class ForeignVocabulary:
    """What `tokenizers` needs for the makers' ids, less what only concerns batches.

    spec:     tokenizer.json, parsed
    files:    the files as they came, by name; written again as they are
    tokens:   what each id spells in the file; "" for an id that nothing has
    control:  name -> id of the tokens that no text can produce
    special:  the control tokens that `skip_special` leaves out
    strips:   name -> whether a control token takes the white space before and behind it
    """

    spec: Mapping[str, Any]
    files: Mapping[str, bytes]
    tokens: tuple[str, ...]
    control: Mapping[str, int]
    special: frozenset[str]
    strips: Mapping[str, tuple[bool, bool]]
    roles: Roles

    missing_bytes: frozenset[int] = frozenset()

    pattern = "its own"

    def check(self, where: str) -> None:
        """Prove on the copy without control tokens that their names are text. Errors: TokenizerError"""
        plain = self.plain
        controlled = frozenset(self.control.values())
        names = sorted(self.control)
        for name, found in zip(names, plain.encode_batch(names, add_special_tokens=False), strict=True):
            if controlled.intersection(found.ids) - {self.control.get(self.unknown, -1)}:
                raise TokenizerError(f"{where}: the text {name!r} has the id of a control token; expected none")

    @property
    def unknown(self) -> str:
        """The token of what has no token; "" where there is none."""
        return self.spec["model"].get("unk_token") or ""

    @property
    def merges(self) -> tuple[tuple[str, str], ...]:
        merges = self.spec["model"].get("merges") or []
        pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in merges)
        return tuple((left, right) for left, right in pairs)

    @property
    def add_prefix_space(self) -> bool:
        """Of byte-level ones, whose pieces each would get a space."""
        return any(node.get("type") == "ByteLevel" and node["add_prefix_space"] for node in _nodes(self.spec, "pre_"))

    @property
    def begins_text(self) -> bool:
        """Is the first stretch of a text cut otherwise than the ones behind a control token?"""
        return any(node.get("prepend_scheme") == "first" for node in _nodes(self.spec, "pre_"))

    @property
    def strips_space(self) -> bool:
        """Does decoding take a space away from the beginning of a text?"""
        decoders = [*_nodes(self.spec, "decoder")]
        return any(
            (node["type"] == "Strip" and node.get("start", 0) > 0 and node.get("content") == " ")
            or (node["type"] == "Metaspace" and node.get("prepend_scheme", "always") != "never")
            for node in decoders
        )

    @cached_property
    def facts(self) -> str:
        """All that decides ids, as one line."""
        left_out = (*NO_MATTER, "decoder", "version")
        return json.dumps({key: value for key, value in self.spec.items() if key not in left_out}, sort_keys=True)

    @cached_property
    def plain(self) -> tokenizers.Tokenizer:
        """Encodes text, whatever it spells. Whatever else is wrong with the file, the library says here."""
        return self._without_control(None)

    def build(self, *, with_control: bool, sentinel: str | None = None) -> tokenizers.Tokenizer:
        """sentinel: one more control token, that no text has"""
        if with_control:
            return _build({**self.spec, **dict.fromkeys(NO_MATTER)})
        return self.plain if sentinel is None else self._without_control(sentinel)

    def _without_control(self, sentinel: str | None) -> tokenizers.Tokenizer:
        model, added = {**self.spec["model"]}, self.spec["added_tokens"]
        # The unknown token stays: nothing merges to it, and what has no token needs it.
        gone = self.control.keys() - {self.unknown}
        model["vocab"] = {token: index for token, index in model["vocab"].items() if token not in gone}
        kept = [entry for entry in added if entry["content"] not in self.control]
        if sentinel is not None:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            kept.append({"id": len(self.tokens), "content": sentinel, "special": True, **flags})
        return _build({**self.spec, **dict.fromkeys(NO_MATTER), "model": model, "added_tokens": kept})

    def byte_token(self, byte: int) -> str:
        """The token of a byte that is part of no character."""
        return BYTE_SYMBOLS[byte] if _is_byte_level(self.spec) else f"<0x{byte:02X}>"

    def spelling(self) -> list[bytes]:
        """The bytes of each id, a space at the start of a text not yet taken away."""
        kinds = {node["type"] for node in _nodes(self.spec, "decoder")}
        replaced = [
            (node["pattern"]["String"], node["content"])
            for node in _nodes(self.spec, "decoder")
            if node["type"] == "Replace"
        ]
        replaced += [(node["replacement"], " ") for node in _nodes(self.spec, "decoder") if node["type"] == "Metaspace"]
        return [
            _spelled(token, kinds, replaced) if token not in self.control else token.encode() for token in self.tokens
        ]


def read_vocabulary(path: Path) -> Vocabulary | ForeignVocabulary:
    """From a tokenizer.json; a tokenizer_config.json beside it must agree. Errors: TokenizerError naming the field"""
    files = {name: path.with_name(name) for name in SETTINGS if path.with_name(name).exists()}
    spec, where = read_json(path), str(path)
    settings = [read_json(file) for file in files.values()]
    # The older special_tokens_map.json counts where the settings name nothing.
    config = {key: value for known in reversed(settings) for key, value in known.items() if value is not None}
    return vocabulary_from_json(spec, config, {file.name: file.read_bytes() for file in (path, *files.values())}, where)


def vocabulary_from_json(
    spec: Mapping[str, Any], config: Mapping[str, Any], files: Mapping[str, bytes], where: str
) -> Vocabulary | ForeignVocabulary:
    """Of tokenizer.json and its settings, parsed, and both as they are to be written. Errors: TokenizerError"""
    if is_plain(spec):
        try:
            vocabulary = parse_vocabulary(spec, config, where)
        except TokenizerError:
            if is_made_here(spec):
                raise
        else:
            check_agreement(config, vocabulary.control, vocabulary.add_prefix_space, where)
            return vocabulary
    return _read_foreign(spec, config, files, where)


def _read_foreign(
    spec: Mapping[str, Any], config: Mapping[str, Any], files: Mapping[str, bytes], where: str
) -> ForeignVocabulary:
    """tokenizer.json and its settings, parsed, and both as they came -> a vocabulary.

    Errors:  TokenizerError naming the file and what cannot be followed
    """
    try:
        return _read(spec, config, files, where)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TokenizerError(f"{where}: malformed: {error!r}; expected the format of the tokenizers library") from error


def _read(
    spec: Mapping[str, Any], config: Mapping[str, Any], files: Mapping[str, bytes], where: str
) -> ForeignVocabulary:
    model, added = spec.get("model"), spec.get("added_tokens")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(added, list):
        kind = model.get("type") if isinstance(model, dict) else None
        raise TokenizerError(f"{where}: a model of type {kind!r}; expected 'BPE' and a list added_tokens")
    if model.get("dropout"):
        raise TokenizerError(f"{where}: dropout is {model['dropout']}; expected none, for a text has one tokenization")
    _check_parts(spec, where)
    trained = model["vocab"]
    outside = [entry for entry in added if entry["content"] not in trained]
    if any(entry["id"] != len(trained) + place for place, entry in enumerate(outside)):
        # The library numbers them in order, whatever the file says.
        raise TokenizerError(f"{where}: ids of added tokens leave a gap behind {len(trained) - 1}; expected none")
    control = {e["content"]: e["id"] for e in added if e["special"] or e["content"] not in trained}
    ids = {**trained, **{entry["content"]: entry["id"] for entry in added}}
    if not ids or max(ids.values()) >= 2 * len(ids) + 1024:
        largest = max(ids.values(), default=0)
        raise TokenizerError(
            f"{where}: {len(ids):,} tokens with ids up to {largest:,}; expected few ids without a token"
        )
    prefix_space = any(node["type"] == "ByteLevel" and node["add_prefix_space"] for node in _nodes(spec, "pre_"))
    is_byte_level = any(node["type"] == "ByteLevel" for node in _nodes(spec, "pre_"))
    said = config if is_byte_level else {**config, "add_prefix_space": False}
    check_agreement(said, {entry["content"]: entry["id"] for entry in added}, prefix_space, where)
    names = {index: token for token, index in ids.items()}
    if len(names) < len(ids):
        raise TokenizerError(f"{where}: two tokens have one id; expected an id for each")
    return ForeignVocabulary(
        spec=spec,
        files=files,
        tokens=tuple(names.get(index, "") for index in range(max(names) + 1)),
        control=control,
        special=frozenset(entry["content"] for entry in added if entry["special"]),
        strips={e["content"]: (e["lstrip"], e["rstrip"]) for e in added if e["lstrip"] or e["rstrip"]},
        roles=_roles(config, control, _start(spec), where),
        missing_bytes=_missing_bytes(spec, ids, where),
    )


def losses(encode_and_decode: Callable[[str], str]) -> list[str]:
    """What a text loses on its way to ids and back, in words; nothing for a vocabulary that was made here.

    encode_and_decode: text -> the text that its ids decode to; an error counts as a loss, too
    """
    found = []
    for words, probe in PROBES.items():
        try:
            if encode_and_decode(probe) != probe:
                found.append(words)
        except TokenizerError as error:
            found.append(str(error))
    return found


def _build(spec: Mapping[str, Any], where: str = "tokenizer.json") -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(spec))
    # The library has no error class of its own.
    except Exception as error:
        raise TokenizerError(f"{where}: the tokenizers library refuses it: {error}") from error


def _check_parts(spec: Mapping[str, Any], where: str) -> None:
    for node in _nodes(spec, "decoder"):
        if node.get("type") not in DECODERS:
            raise TokenizerError(f"{where}: decoder {node.get('type')!r}; expected one of {', '.join(DECODERS)}")
        if node["type"] == "Replace" and "String" not in (node.get("pattern") or {}):
            raise TokenizerError(f"{where}: a decoder that replaces by a pattern; expected a plain string")
    for node in (*_nodes(spec, "pre_"), *_nodes(spec, "normalizer")):
        pattern = (node.get("pattern") or {}).get("Regex", "") if isinstance(node.get("pattern"), dict) else ""
        if len(pattern) > MAX_PATTERN:
            raise TokenizerError(f"{where}: a split pattern of {len(pattern):,} characters; at most {MAX_PATTERN:,}")


def _is_byte_level(spec: Mapping[str, Any]) -> bool:
    return any(node["type"] == "ByteLevel" for node in _nodes(spec, "decoder"))


def _nodes(spec: Mapping[str, Any], section: str) -> Iterator[Mapping[str, Any]]:
    """The parts of a section, those of a sequence one by one. section: the beginning of its name"""
    name = "pre_tokenizer" if section == "pre_" else section
    stack = [spec.get(name)]
    while stack:
        node = stack.pop(0)
        if not isinstance(node, dict):
            continue
        parts = next((node[name] for name in LISTS if name in node), None)
        if node.get("type") == "Sequence":
            stack = [*(parts or []), *stack]
        else:
            yield node


def _spelled(token: str, kinds: set[str], replaced: list[tuple[str, str]]) -> bytes:
    if "ByteLevel" in kinds:
        known = all(symbol in SYMBOL_BYTES for symbol in token)
        return bytes(SYMBOL_BYTES[symbol] for symbol in token) if known else token.encode()
    if "ByteFallback" in kinds and (byte := BYTE_TOKEN.fullmatch(token)):
        return bytes([int(byte[1], 16)])
    for old, new in replaced:
        token = token.replace(old, new)
    return token.encode()


def _start(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The tokens that the post-processor puts before a plain text."""
    parts = next((node["single"] for node in _nodes(spec, "post_processor") if "single" in node), [])
    return tuple(part["SpecialToken"]["id"] for part in takewhile(lambda part: "SpecialToken" in part, parts))


def _roles(config: Mapping[str, Any], control: Mapping[str, int], start: tuple[str, ...], where: str) -> Roles:
    """Which tokens begin, end and fill, by tokenizer_config.json; without it, the first of the usual ends."""
    named = read_roles(config, control, where)
    eos = named["eos_token"] or usual_end(control, where)
    bos = named["bos_token"]
    # Some files leave it to the reader's class: DeepSeek's post-processor adds nothing, its settings say it should.
    if not start and bos is not None and config.get("add_bos_token") is True:
        start = (bos,)
    return Roles(start=start, bos=bos, eos=eos, pad=named["pad_token"] or eos, unk=named["unk_token"])


def _missing_bytes(spec: Mapping[str, Any], ids: Mapping[str, int], where: str) -> frozenset[int]:
    """Of a byte-level vocabulary without a token for what it does not know: such text would go missing in silence."""
    if not _is_byte_level(spec) or spec["model"].get("unk_token"):
        return frozenset()
    missing = frozenset(byte for byte, symbol in enumerate(BYTE_SYMBOLS) if symbol not in ids)
    if len(missing) > 128:
        raise TokenizerError(f"{where}: {len(missing)} of 256 bytes have no token; expected a byte-level vocabulary")
    return missing
