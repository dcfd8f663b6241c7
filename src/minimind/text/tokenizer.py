"""Byte-level BPE: text or bytes <-> ids, one tokenization in training, in serving and in every exported file.

Simplified on purpose: no normalizer, no post-processor, no unknown token. A vocabulary that is trained here has all 256
byte symbols, so every text has ids, and decoding gives back exactly what was encoded; one from elsewhere may lack some,
and then refuses a text with such a byte. Control tokens (`<|im_end|>`, `<think>`, ...) are no part of the text encoder:
only code that asks for them by name gets their ids, so no text can forge them. `docs/tokenizer.md` shows these promises
at work; `vocabulary.py` says what decides ids and how it is read; read `conversation.py` next.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import models, trainers

from minimind.errors import TokenizerError
from minimind.text.vocabulary import (
    BOS,
    BYTE_SYMBOLS,
    EOS,
    NUM_SPECIAL,
    PAD,
    PATTERNS,
    RESERVED,
    SYMBOL_BYTES,
    Vocabulary,
    make_pre_tokenizer,
    read_vocabulary,
)

__all__ = ["PATTERNS", "RESERVED", "StreamDecoder", "Tokenizer", "Vocabulary"]

# The regex engine gives up after ten million steps back, which only a run of white space can cost it.
MAX_WHITE_SPACE = 5_000_000


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
        # EOS ends a turn, and behind PAD, which is `<|endoftext|>`, another document would begin.
        self.end_ids = frozenset((self.eos_id, self.pad_id))
        self.control_ids = frozenset(vocabulary.control.values())
        self.control_names = frozenset(vocabulary.control)
        self._known_bytes = bytes(set(range(256)) - vocabulary.missing_bytes)
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
        return cls(read_vocabulary(path), str(path))

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
        if add_prefix_space and pattern != "gpt2":
            raise TokenizerError(f"add_prefix_space needs pattern 'gpt2', got {pattern!r}; set it to false")
        learner = tokenizers.Tokenizer(models.BPE())
        learner.pre_tokenizer = make_pre_tokenizer(pattern, add_prefix_space)
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
        return self._plain.encode(self._checked(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` each text, on all cores."""
        checked = [self._checked(text) for text in texts]
        return [encoding.ids for encoding in self._plain.encode_batch_fast(checked, add_special_tokens=False)]

    def encode_with_control(self, text: str) -> list[int]:
        """The ids of trusted text in which spelled control tokens become ids: for templates and tests only."""
        return self._with_control.encode(self._checked(text), add_special_tokens=False).ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids for any bytes: its valid UTF-8 stretches as `encode` has them, each other byte as its byte token."""
        self._require_tokens(data)
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
        # Nobody asks for a byte without a token: `_require_tokens` has refused it.
        return [positions.get(symbol, -1) for symbol in BYTE_SYMBOLS]

    def _checked(self, text: str) -> str:
        """`text`, if this vocabulary can encode all of it."""
        _checked(text)
        if self._vocabulary.missing_bytes:
            self._require_tokens(text.encode())
        return text

    def _require_tokens(self, data: bytes) -> None:
        """Refuse a byte that has no token; the encoder would leave it out and say nothing."""
        lost = data.translate(None, self._known_bytes)
        if lost:
            raise TokenizerError(
                f"byte {data.index(lost[0])} of the text is 0x{lost[0]:02x}, for which this vocabulary has no token; "
                "remove that character"
            )

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
