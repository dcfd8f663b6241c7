"""The vocabulary that others put into a GGUF file -> the tokenizer.json that gives the same ids.

Two kinds: byte-level BPE whose split pattern llama.cpp knows by name (`tokenizer.ggml.pre`), and SentencePiece's, where
the piece with the highest score is joined first. What comes out is read by `text/foreign.py` as if it had stood in the
model's own folder, so ids are those of the `tokenizers` library. A file can hold no normalizer: Qwen's composes
characters (NFC), which llama.cpp does not do, and so neither does a model that is read from a file.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from minimind.errors import TokenizerError
from minimind.text.foreign import ForeignVocabulary, vocabulary_from_json
from minimind.text.vocabulary import Vocabulary

__all__ = ["BYTE_LEVEL_NAMES", "TokenKind", "cut_name", "foreign_vocabulary", "starts_text"]

# llama.cpp's patterns by their names. They differ in how they cut digits and marks.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_THREES, _SINGLE = (_WORDS.replace("DIGITS", digits) + _REST for digits in (r"\p{N}{1,3}", r"\p{N}"))
_WITH_MARKS = _SINGLE.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
_DIGITS = {"type": "Digits", "individual_digits": True}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(pattern: str) -> list[dict[str, Any]]:
    return [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        _byte_level(False),
    ]


_GPT2 = [_byte_level(True)]
_SMOLLM = [_DIGITS, *_GPT2]
_CUTS: Mapping[str, list[dict[str, Any]]] = {
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "dbrx", "smaug-bpe"), _split(_THREES)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2"), _split(_SINGLE)),
    "qwen35": _split(_WITH_MARKS),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _SMOLLM),
    **dict.fromkeys(("gpt-2", "olmo", "jais"), _GPT2),
}
BYTE_LEVEL_NAMES = tuple(_CUTS)
# With these, a word that is a token is one, whatever the merges would make of it.
_WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe")
# What these names add before a text where the file does not say; SentencePiece's vocabularies do, too.
_STARTING = _WHOLE_WORDS


class TokenKind:
    """Types of tokens. Added ones that are not "special" have a type of their own; unused rows are names alone."""

    NORMAL, UNKNOWN, CONTROL, ADDED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


# A piece of SentencePiece's has at most 16 characters, and Gemma's runs of spaces 31.
_LONGEST_PIECE = 256


def foreign_vocabulary(
    values: Mapping[str, Any],
    tokens: Sequence[str],
    types: Sequence[int],
    merges: Sequence[tuple[str, str]],
    where: str,
) -> Vocabulary | ForeignVocabulary:
    """values: of the file, less the prefix `tokenizer.ggml.`; merges: of a byte-level one. Errors: TokenizerError"""
    if len(set(tokens)) < len(tokens):
        raise TokenizerError(f"{where}.tokens has a token twice; expected an id for each")
    is_pieces = values["model"] == "llama"
    for at, kind in enumerate(types):
        # MPT's and Phi-2's runs of spaces: their makers' files take them out of a text, which no other added token may.
        if kind == TokenKind.ADDED and not is_pieces and not tokens[at].strip(" \t\n\r\u0120\u010a\u0109"):
            raise TokenizerError(f"{where}.token_type {at} is {kind} for {tokens[at]!r}; expected no such white space")
    settings = {name: tokens[at] for name, at in _roles(values, len(tokens)).items()}
    # What stands behind the last trained token was added, and no text gets its id.
    last = max((at for at, kind in enumerate(types) if kind not in (TokenKind.CONTROL, TokenKind.ADDED)), default=-1)
    added = [
        {"id": at, "content": tokens[at], "special": kind != TokenKind.ADDED}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for at, kind in enumerate(types)
        if kind in (TokenKind.CONTROL, TokenKind.ADDED, TokenKind.UNKNOWN)
    ]
    vocab = {token: at for at, token in enumerate(tokens[: last + 1])}
    spec = {
        **{"version": "1.0", "truncation": None, "padding": None, "added_tokens": added},
        **(_pieces(values, tokens, types, vocab, where) if is_pieces else _bytes(values, vocab, merges)),
        "post_processor": _start(settings, tokens) if starts_text(values) else None,
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **settings}
    files = {"tokenizer.json": spec, "tokenizer_config.json": config}
    written = {name: json.dumps(content, ensure_ascii=False, indent=2).encode() for name, content in files.items()}
    return vocabulary_from_json(spec, config, written, where)


def starts_text(values: Mapping[str, Any]) -> bool:
    """Does BOS stand before every text?"""
    default = values["model"] == "llama" or values.get("pre") in _STARTING
    return bool(values.get("add_bos_token", default))


def cut_name(vocabulary: ForeignVocabulary, kinds: Sequence[int], roles: Mapping[str, int]) -> str | None:
    """llama.cpp's name of how a byte-level vocabulary cuts a text, if that is all that it does; None otherwise.

    kinds:  the type of each token, as it would be written; roles: such as {"bos_token_id": 1}
    """
    for name in _CUTS:
        values = {"model": "gpt2", "pre": name, **roles}
        if vocabulary.spec.get("pre_tokenizer") != _bytes(values, {}, ())["pre_tokenizer"]:
            continue
        try:
            again = foreign_vocabulary(values, vocabulary.tokens, kinds, vocabulary.merges, "tokenizer")
        except TokenizerError:
            return None
        if again.facts == vocabulary.facts:
            return name
    return None


def _roles(values: Mapping[str, Any], num_tokens: int) -> dict[str, int]:
    roles = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token"}
    roles |= {"unknown": "unk_token"} if values["model"] == "llama" else {}
    found = {name: values.get(f"{role}_token_id") for role, name in roles.items()}
    return {name: at for name, at in found.items() if isinstance(at, int) and 0 <= at < num_tokens}


def _start(settings: Mapping[str, str], tokens: Sequence[str]) -> dict[str, Any] | None:
    bos = settings.get("bos_token")
    if bos is None:
        return None
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    single, pair = ([first, {"Sequence": {"id": name, "type_id": 0}}] for name in "AB")
    special = {bos: {"id": bos, "ids": [tokens.index(bos)], "tokens": [bos]}}
    return {"type": "TemplateProcessing", "single": single, "pair": single + pair, "special_tokens": special}


def _model(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], **settings: Any) -> dict[str, Any]:
    usual: dict[str, Any] = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    usual |= dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    return {"type": "BPE", **usual, **settings, "vocab": vocab, "merges": [list(pair) for pair in merges]}


def _bytes(values: Mapping[str, Any], vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> dict[str, Any]:
    cuts = _CUTS[values["pre"]]
    return {
        "normalizer": None,
        "pre_tokenizer": cuts[0] if len(cuts) == 1 else {"type": "Sequence", "pretokenizers": cuts},
        "decoder": _byte_level(True),
        "model": _model(vocab, merges, ignore_merges=values["pre"] in _WHOLE_WORDS),
    }


def _pieces(
    values: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], vocab: Mapping[str, int], where: str
) -> dict[str, Any]:
    unknown = next((tokens[at] for at, kind in enumerate(types) if kind == TokenKind.UNKNOWN), None)
    has_bytes = all(f"<0x{byte:02X}>" in vocab for byte in range(256))
    if unknown is None or not has_bytes:
        raise TokenizerError(f"{where}.tokens lacks an unknown token or one of 256 bytes; expected SentencePiece's")
    merges = _merges_by_score(tokens, types, values["scores"], vocab, where)
    begins = bool(values.get("add_space_prefix", True))
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    decoders = [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, replaced] if begins else [replaced],
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": decoders + ([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if begins else []),
        },
        "model": _model(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True),
    }


def _merges_by_score(
    tokens: Sequence[str], types: Sequence[int], scores: Sequence[float], vocab: Mapping[str, int], where: str
) -> list[tuple[str, str]]:
    """Every way to make a piece of two, the highest score first."""
    found: list[tuple[float, int, int, str, str]] = []
    for at, piece in enumerate(tokens):
        if types[at] != TokenKind.NORMAL:
            continue
        if len(piece) > _LONGEST_PIECE:
            raise TokenizerError(f"{where}.tokens {at} has {len(piece):,} characters; at most {_LONGEST_PIECE}")
        for cut in range(1, len(piece)):
            left, right = vocab.get(piece[:cut]), vocab.get(piece[cut:])
            if left is not None and right is not None:
                found.append((-scores[at], left, right, piece[:cut], piece[cut:]))
    return [(left, right) for *_, left, right in sorted(found)]
