"""The vocabulary inside a GGUF file, as ours.

The file has tokens and merges as tokenizer.json has them, a type for each token, and the name under which llama.cpp
knows the split pattern (`tokenizer.ggml.pre`). It can hold no normalizer, and llama.cpp applies none: Qwen's own
tokenizer.json first composes characters (NFC), which changes nothing in text that is composed already, as most is.
Next: `text/vocabulary.py`, which proves that no text gets the id of a control token.
"""

from typing import Any

from minimind.errors import TokenizerError
from minimind.interop.gguf_file import GgufFile
from minimind.text.foreign_template import ForeignTemplate, template_from_json
from minimind.text.tokenizer import Tokenizer, Vocabulary

__all__ = ["read_tokenizer"]

# llama.cpp's name of a split pattern -> ours. The others cut differently, and so would give other ids.
PATTERN_OF = {"qwen2": "qwen2", "gpt-2": "gpt2", "smollm": "smollm"}

# Types of tokens. Added ones that are not "special" have a type of their own; unused rows are names without meaning.
NORMAL, CONTROL, ADDED, UNUSED = 1, 3, 4, 5

# What would change ids or text, and the only value that is read. Which ids begin, end and pad is not read at all:
# conversations are written with `<|im_start|>`, `<|im_end|>` and `<|endoftext|>` by name, whoever calls them what.
PLAIN = ("add_space_prefix", "add_bos_token", "add_eos_token", "add_sep_token", "remove_extra_whitespaces")


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
        if kind not in (NORMAL, CONTROL, ADDED):
            raise _error(file, "token_type", f"{index} is {kind} for {tokens[index]!r:.80}; expected a used token")
    vocabulary = Vocabulary(
        tokens=tuple(tokens),
        merges=_merges(file),
        pattern=PATTERN_OF[file.values["tokenizer.ggml.pre"]],
        add_prefix_space=False,
        control={tokens[index]: index for index, kind in enumerate(types) if kind != NORMAL},
        special=frozenset(tokens[index] for index, kind in enumerate(types) if kind == CONTROL),
    )
    where = f"{file.path}: tokenizer.ggml"
    return Tokenizer(vocabulary, where, template=_template(file, tokens), more_ends=_ends(file, tokens, vocabulary))


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


def _ends(file: GgufFile, tokens: list[str], vocabulary: Vocabulary) -> set[str]:
    """What the file says ends a turn or an answer."""
    found = (file.values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    names = {tokens[index] for index in found if isinstance(index, int) and 0 <= index < len(tokens)}
    return names & vocabulary.control.keys()


def _require_plain(file: GgufFile) -> None:
    for name, known in (("model", ("gpt2",)), ("pre", PATTERN_OF)):
        value = file.values.get(f"tokenizer.ggml.{name}")
        if not isinstance(value, str) or value not in known:
            hint = "take a file that names it, or the model's Hugging Face folder"
            raise _error(file, name, f"is {value!r:.80}; expected {' or '.join(known)}; {hint}")
    for name in PLAIN:
        if file.values.get(f"tokenizer.ggml.{name}"):
            raise _error(file, name, "is on; expected it off, as it would change ids")


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
