"""The vocabulary inside a GGUF file, as ours.

The file has tokens and merges as tokenizer.json has them, a type for each token, and the name under which llama.cpp
knows the split pattern (`tokenizer.ggml.pre`). It can hold no normalizer, and llama.cpp applies none: Qwen's own
tokenizer.json first composes characters (NFC), which changes nothing in text that is composed already, as most is.
Next: `gguf_foreign.py`, for vocabularies that others made; `text/vocabulary.py`, which proves that no text gets the id
of a control token.
"""

from typing import Any

from minimind.errors import TokenizerError
from minimind.interop.gguf_file import GgufFile
from minimind.interop.gguf_foreign import BYTE_LEVEL_NAMES, TokenKind, foreign_vocabulary, starts_text
from minimind.text.foreign import ForeignVocabulary
from minimind.text.foreign_template import ForeignTemplate, template_from_json
from minimind.text.tokenizer import Tokenizer, Vocabulary
from minimind.text.vocabulary import BOS, EOS, PAD

__all__ = ["read_tokenizer"]

# llama.cpp's name of a split pattern -> ours; `gguf_foreign.py` knows the others.
PATTERN_OF = {"qwen2": "qwen2", "gpt-2": "gpt2", "smollm": "smollm"}

NORMAL, CONTROL, ADDED, UNUSED = TokenKind.NORMAL, TokenKind.CONTROL, TokenKind.ADDED, TokenKind.UNUSED
USED = {
    "gpt2": (NORMAL, CONTROL, ADDED),
    "llama": (NORMAL, CONTROL, ADDED, TokenKind.UNKNOWN, TokenKind.BYTE, UNUSED),
}

# What would change ids or text, and is read only where it is off.
PLAIN = ("add_eos_token", "add_sep_token", "remove_extra_whitespaces")


def read_tokenizer(file: GgufFile) -> Tokenizer:
    """Errors: TokenizerError naming the file and the field"""
    _require_plain(file)
    tokens, types = _list(file, "tokens", str), _list(file, "token_type", int)
    if len(types) != len(tokens):
        raise _error(file, "token_type", f"has {len(types):,} items for {len(tokens):,} tokens")
    # A matrix may have more rows than the vocabulary has tokens; converters give those at the end a name each.
    while types and types[-1] == UNUSED:
        types.pop()
    tokens = tokens[: len(types)]
    for index, kind in enumerate(types):
        if kind not in USED[file.values["tokenizer.ggml.model"]]:
            raise _error(file, "token_type", f"{index} is {kind} for {tokens[index]!r:.80}; expected a used token")
    where = f"{file.path}: tokenizer.ggml"
    vocabulary = _vocabulary(file, tokens, types, where)
    return Tokenizer(vocabulary, where, template=_template(file, tokens), more_ends=_ends(file, tokens, vocabulary))


def _vocabulary(file: GgufFile, tokens: list[str], types: list[int], where: str) -> Vocabulary | ForeignVocabulary:
    """One of ours, if it has our control tokens and does nothing else to a text; then they say what begins and ends."""
    values = _values(file)
    control = {tokens[index] for index, kind in enumerate(types) if kind != NORMAL}
    has_ours = control.issuperset((BOS, EOS, PAD)) and values.get("pre") in PATTERN_OF
    if not has_ours or starts_text(values) or values["model"] != "gpt2":
        return foreign_vocabulary(values, tokens, types, _merges(file) if values["model"] == "gpt2" else (), where)
    return Vocabulary(
        tokens=tuple(tokens),
        merges=_merges(file),
        pattern=PATTERN_OF[file.values["tokenizer.ggml.pre"]],
        add_prefix_space=False,
        control={tokens[index]: index for index, kind in enumerate(types) if kind != NORMAL},
        special=frozenset(tokens[index] for index, kind in enumerate(types) if kind == CONTROL),
    )


def _template(file: GgufFile, tokens: list[str]) -> ForeignTemplate | None:
    """The chat template that the file brings along, and the tokens that it is told of."""
    key = "tokenizer.chat_template"
    named = {name.removeprefix(f"{key}."): text for name, text in file.values.items() if name.startswith(f"{key}.")}
    texts = named | ({"default": file.values[key]} if key in file.values else {})
    if not all(isinstance(text, str) and len(text) <= 1 << 20 for text in texts.values()):
        raise TokenizerError(f"{file.path}: {key} is no text of at most a megabyte; expected one")
    roles = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    found = {name: file.values.get(f"tokenizer.ggml.{role}_token_id") for role, name in roles.items()}
    settings = {name: tokens[at] for name, at in found.items() if isinstance(at, int) and 0 <= at < len(tokens)}
    return template_from_json({name: str(text) for name, text in texts.items()}, settings)


def _ends(file: GgufFile, tokens: list[str], vocabulary: Vocabulary | ForeignVocabulary) -> set[str]:
    """What the file says ends a turn or an answer."""
    found = (file.values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    names = {tokens[index] for index in found if isinstance(index, int) and 0 <= index < len(tokens)}
    return names & vocabulary.control.keys()


def _require_plain(file: GgufFile) -> None:
    values = _values(file)
    is_pieces = values.get("model") == "llama"
    for name, known in (("model", USED), *([] if is_pieces else [("pre", BYTE_LEVEL_NAMES)])):
        value = values.get(name)
        if not isinstance(value, str) or value not in known:
            hint = "take a file that names it, or the model's Hugging Face folder"
            raise _error(file, name, f"is {value!r:.80}; expected {' or '.join(known)}; {hint}")
    if is_pieces and len(_list(file, "scores", float)) != len(_list(file, "tokens", str)):
        raise _error(file, "scores", "has another number of items than tokens; expected a score for each")
    # llama.cpp puts no space before a text of a byte-level vocabulary, whatever the file says.
    for name in PLAIN if is_pieces else ("add_space_prefix", *PLAIN):
        if values.get(name):
            raise _error(file, name, "is on; expected it off, as it would change ids")


def _values(file: GgufFile) -> dict[str, Any]:
    prefix = "tokenizer.ggml."
    return {name.removeprefix(prefix): value for name, value in file.values.items() if name.startswith(prefix)}


def _list(file: GgufFile, name: str, kind: type) -> list[Any]:
    value = file.values.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not value or type(value[0]) is not kind:
        raise _error(file, name, f"is missing or another type; expected a list of {kind.__name__}")
    return [*value]


def _merges(file: GgufFile) -> tuple[tuple[str, str], ...]:
    pairs = [merge.split(" ") for merge in _list(file, "merges", str)]
    for index, pair in enumerate(pairs):
        if len(pair) != 2:
            raise _error(file, "merges", f"{index} has {len(pair)} parts; expected two tokens and a space between")
    return tuple((left, right) for left, right in pairs)


def _error(file: GgufFile, name: str, problem: str) -> TokenizerError:
    return TokenizerError(f"{file.path}: tokenizer.ggml.{name} {problem}")
