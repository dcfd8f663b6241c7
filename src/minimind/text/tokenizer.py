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
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import models, trainers

from minimind.errors import TokenizerError
from minimind.text.foreign import ForeignVocabulary, losses, read_vocabulary
from minimind.text.foreign_template import ForeignTemplate, read_template
from minimind.text.template_ids import end_names
from minimind.text.vocabulary import (
    BYTE_SYMBOLS,
    EOS,
    NUM_SPECIAL,
    PATTERNS,
    RESERVED,
    Vocabulary,
    make_pre_tokenizer,
    read_json,
)

__all__ = ["PATTERNS", "RESERVED", "StreamDecoder", "Tokenizer", "Vocabulary"]

# The regex engine gives up after ten million steps back, which only a run of white space can cost it.
MAX_WHITE_SPACE = 5_000_000


class Tokenizer:
    """Text or bytes <-> ids. `load` one or `train` one."""

    def __init__(
        self,
        vocabulary: Vocabulary | ForeignVocabulary,
        where: str = "tokenizer",
        *,
        template: ForeignTemplate | None = None,
        more_ends: Collection[str] = (),
    ) -> None:
        """template: of a model from elsewhere; more_ends: names of control tokens that end its answers beside EOS"""
        vocabulary.check(where)
        self.template, self.more_ends = template, frozenset(more_ends)
        self._vocabulary = vocabulary
        # Without control tokens no text reaches their ids; `check` has proved that merges do not either.
        self._plain = vocabulary.build(with_control=False)
        self.pattern = vocabulary.pattern
        self.add_prefix_space = vocabulary.add_prefix_space
        self.vocab_size = len(vocabulary.tokens)
        control, roles = vocabulary.control, vocabulary.roles
        self.eos_id, self.pad_id = control[roles.eos], control[roles.pad]
        # What a first token is predicted from where nothing begins a text.
        self.bos_id = self.eos_id if roles.bos is None else control[roles.bos]
        self.text_start = [control[name] for name in roles.start]
        self.control_ids = frozenset(vocabulary.control.values())
        self.control_names = frozenset(vocabulary.control)
        self._known_bytes = bytes(set(range(256)) - vocabulary.missing_bytes)
        self._special_ids = frozenset(vocabulary.control[name] for name in vocabulary.special)
        self._spelling = vocabulary.spelling()
        self._continued: dict[str, tokenizers.Tokenizer] = {}

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read `tokenizer.json`, or the folder with it; a `tokenizer_config.json` beside it must agree."""
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        vocabulary, settings = read_vocabulary(path), path.with_name("tokenizer_config.json")
        template = read_template(path.parent, read_json(settings) if settings.exists() else {})
        return cls(vocabulary, str(path), template=template, more_ends=_more_ends(path.parent, vocabulary.control))

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
        """Write tokenizer.json and tokenizer_config.json, both from the one vocabulary; foreign ones as they came."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._vocabulary.files.items():
            (folder / name).write_bytes(content)
        if self.template:
            self.template.write(folder)

    @cached_property
    def _with_control(self) -> tokenizers.Tokenizer:
        return self._vocabulary.build(with_control=True)

    @property
    def end_names(self) -> frozenset[str]:
        """The control tokens that end an answer, and so a foreign template's own.

        EOS does, and behind PAD, which is `<|endoftext|>`, another document would begin. A model that was trained on
        text alone may name its end of text; conversations then still end as they are written.
        """
        usual = {self.tokens[self.eos_id], self.tokens[self.pad_id], *({EOS} & self.control_names)}
        return frozenset(usual) | self.more_ends | self._ends_of_template

    @cached_property
    def _ends_of_template(self) -> frozenset[str]:
        return end_names(self.template, self.control_names) if self.template else frozenset()

    @cached_property
    def end_ids(self) -> frozenset[int]:
        return frozenset(map(self.control, self.end_names))

    @property
    def turn_end_ids(self) -> frozenset[int]:
        """The ends behind which a conversation may go on: EOS, and what a foreign template ends a turn with."""
        return frozenset((self.eos_id, *map(self.control, self._ends_of_template)))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of all that decides ids: equal fingerprints, equal ids for every text and conversation."""
        facts = self._vocabulary.facts + (self.template.fingerprint if self.template else "")
        return hashlib.sha256(facts.encode()).hexdigest()

    @property
    def is_foreign(self) -> bool:
        """Was the vocabulary made elsewhere, with habits of its own? `losses` names them."""
        return self.foreign is not None

    @property
    def foreign(self) -> ForeignVocabulary | None:
        """The vocabulary, where it was made elsewhere and has habits of its own."""
        return self._vocabulary if isinstance(self._vocabulary, ForeignVocabulary) else None

    def losses(self) -> list[str]:
        """What a text loses on its way to ids and back, in words; nothing where the vocabulary was made here."""
        return losses(lambda text: self.decode(self.encode(text)))

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

    def begin(self, ids: Sequence[int]) -> list[int]:
        """A text's ids with what stands before a text in this vocabulary; never empty."""
        return [*self.text_start, *ids] or [self.bos_id]

    def encode_marked(self, text: str, controls: Sequence[tuple[int, int]]) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a rendered text, and the characters from `start` to `end` that each stands for.

        controls: the spans, in order, where control tokens stand; whatever is spelled elsewhere is text. What lies
                  between two of them is encoded in one go, as transformers does, so that ids are the same.
        """
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        at = 0
        for start, end in [*controls, (len(text), len(text))]:
            first, last = at, start
            if controls and (first or last < len(text)):
                first, last = self._less_space(text, first, last, end)
            for index, (left, right) in self._encode_stretch(text[first:last], is_first=not ids):
                ids.append(index)
                spans.append((first + left, first + right))
            if end > start:
                ids.append(self.control(text[start:end]))
                spans.append((start, end))
            at = end
        return ids, spans

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` each text, on all cores."""
        checked = [self._checked(text) for text in texts]
        return [encoding.ids for encoding in self._plain.encode_batch_fast(checked, add_special_tokens=False)]

    def encode_with_control(self, text: str) -> list[int]:
        """The ids of trusted text in which spelled control tokens become ids: for templates and tests only."""
        return self._with_control.encode(self._checked(text), add_special_tokens=False).ids

    def _less_space(self, text: str, first: int, last: int, end: int) -> tuple[int, int]:
        """A stretch without the white space that the control tokens beside it take."""
        strips = self._vocabulary.strips
        if not strips:
            return first, last
        before = next((name for name in strips if strips[name][1] and text.endswith(name, 0, first)), None)
        while before and first < last and text[first].isspace():
            first += 1
        behind = strips.get(text[last:end], (False, False))[0]
        while behind and first < last and text[last - 1].isspace():
            last -= 1
        return first, last

    def _encode_stretch(self, text: str, *, is_first: bool) -> list[tuple[int, tuple[int, int]]]:
        if not text:
            return []
        if is_first or not self._vocabulary.begins_text:
            found = self._plain.encode(self._checked(text), add_special_tokens=False)
            return [*zip(found.ids, found.offsets, strict=True)]
        # Behind a control token that nobody wrote: a character that is none, and that this text has not.
        mark = next(chr(code) for code in range(0xFDD0, 0xFDF0) if chr(code) not in text)
        if mark not in self._continued:
            self._continued[mark] = self._vocabulary.build(with_control=False, sentinel=mark)
        found = self._continued[mark].encode(mark + self._checked(text), add_special_tokens=False)
        shifted = [(left - 1, right - 1) for left, right in found.offsets]
        return [*zip(found.ids, shifted, strict=True)][1:]

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
        return [positions.get(self._vocabulary.byte_token(byte), -1) for byte in range(256)]

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
        text = self.decode_bytes(ids, skip_special).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.strips_space else text

    @property
    def strips_space(self) -> bool:
        """Does a text that is decoded begin without the space that SentencePiece puts before each?"""
        return self._vocabulary.strips_space


class StreamDecoder:
    """Decode ids as they arrive, holding back the bytes of a character until it is whole.

    What `push` and `finish` return, joined, is `decode` of all ids. One decoder reads one stream.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_start = True

    def push(self, index: int) -> str:
        """The text that became certain with this id; often empty in the middle of a character."""
        text = self._decoder.decode(self._tokenizer.decode_bytes([index], self._skip_special))
        if text and self._is_start:
            self._is_start = False
            return text.removeprefix(" ") if self._tokenizer.strips_space else text
        return text

    def finish(self) -> str:
        """What is left when no id will follow: U+FFFD if the last character never became whole."""
        return self._decoder.decode(b"", final=True)


def _more_ends(folder: Path, control: Mapping[str, int]) -> frozenset[str]:
    """The names that a model's generation_config.json lists as ends of an answer."""
    path = folder / "generation_config.json"
    found = read_json(path).get("eos_token_id") if path.is_file() else None
    listed = found if isinstance(found, list) else [found]
    return frozenset(name for name, index in control.items() if index in listed)


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
