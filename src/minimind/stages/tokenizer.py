"""`minimind tokenizer`: texts -> a vocabulary in a folder. Conversations count too, with what their messages say."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from minimind.config import REQUIRED, Config, option, to_toml
from minimind.errors import DataError, TokenizerError
from minimind.terminal.figures import duration
from minimind.terminal.notes import say
from minimind.terminal.tables import show_table

__all__ = ["TokenizerConfig", "run"]

# Enough to judge a vocabulary by, and little enough to hold for every language.
_SAMPLE_CHARACTERS = 200_000


class TokenizerConfig(Config):
    """A byte-level BPE vocabulary: 36 reserved tokens, 256 bytes, and merges learnt from the texts."""

    source: list[str] = option(
        REQUIRED, "Where texts come from: files, folders, globs, hf://owner/name or builtin://texts.", min_length=1
    )
    out: Path = option(REQUIRED, "The folder to write.", kind="free")
    replace: bool = option(
        False, "Put it in the place of another vocabulary, which data and models may have been made with.", kind="free"
    )
    vocab_size: int = option(6400, "Tokens in all.", ge=292)
    pattern: Literal["qwen2", "gpt2"] = option(
        "qwen2", "How texts are cut into words before merging; qwen2 cuts numbers into digits."
    )
    add_prefix_space: bool = option(False, "Put a space before each text, as some gpt2 vocabularies do.")
    text_column: str = option("text", "The column of a row that holds its text.")
    max_bytes: int = option(100_000_000, "At most this much text is read, the sources sharing it equally.", ge=1)


def run(config: TokenizerConfig) -> None:
    """Train, save in one piece, and print how tightly the vocabulary packs each language."""
    from minimind.storage.folder import write_folder
    from minimind.text.compression import report
    from minimind.text.tokenizer import Tokenizer

    start = time.monotonic()
    _refuse_other(config)
    sample = _Sample()
    tokenizer = Tokenizer.train(
        sample.watch(_texts(config)),
        config.vocab_size,
        pattern=config.pattern,
        add_prefix_space=config.add_prefix_space,
    )

    _refuse_other(config, tokenizer.fingerprint)

    def fill(folder: Path) -> None:
        tokenizer.save(folder)
        (folder / "recipe.toml").write_text(to_toml(config.resolved()), encoding="utf-8")

    write_folder(config.out, fill)
    found = sorted(report(tokenizer, sample.texts), key=lambda row: -row.bytes)
    rows = [[row.language, row.bytes, row.characters_per_token, row.bytes_per_token] for row in found]
    show_table("Compression", ("language", "sampled bytes", "characters/token", "bytes/token"), rows)
    say()
    say(
        f"{config.out}: {tokenizer.vocab_size:,} tokens from {sample.num_texts:,} texts ({sample.num_bytes:,} bytes) "
        f"in {duration(time.monotonic() - start)}, fingerprint {tokenizer.fingerprint[:16]}"
    )


def _refuse_other(config: TokenizerConfig, fingerprint: str | None = None) -> None:
    """Data, models and runs were made with the vocabulary that is there, and would be of no use.

    fingerprint: of the new one, once it is learnt; before, only its size is known
    Errors:      TokenizerError
    """
    from minimind.storage.folder import has_manifest
    from minimind.text.tokenizer import Tokenizer

    if config.replace or not has_manifest(config.out):
        return
    there = Tokenizer.load(config.out)
    is_other = there.vocab_size > config.vocab_size if fingerprint is None else there.fingerprint != fingerprint
    if is_other:
        raise TokenizerError(
            f"{config.out}: holds another vocabulary ({there.vocab_size:,} tokens, fingerprint "
            f"{there.fingerprint[:12]}); data and models that were made with it need it: choose another --out, or give "
            "--replace"
        )


class _Sample:
    """Counts the texts that pass, and keeps some of each language."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.num_texts = self.num_bytes = 0
        self._room: dict[str, int] = defaultdict(lambda: _SAMPLE_CHARACTERS)

    def watch(self, texts: Iterator[tuple[str, int]]) -> Iterator[str]:
        from minimind.text.compression import guess_language

        for text, num_bytes in texts:
            self.num_texts += 1
            self.num_bytes += num_bytes
            language = guess_language(text[:1000])
            if text and len(text) <= self._room[language]:
                self.texts[language].append(text)
                self._room[language] -= len(text)
            yield text


def _texts(config: TokenizerConfig) -> Iterator[tuple[str, int]]:
    """Each text with its size in bytes, until every source has given its share of `max_bytes`."""
    from minimind.data.corpus import read_rows

    left = config.max_bytes
    for index, source in enumerate(config.source):
        share = left // (len(config.source) - index)
        for row in read_rows([source], text_column=config.text_column):
            if share <= 0:
                break
            for text in _texts_of(row.value, config.text_column, f"{row.path}:{row.line}"):
                size = len(text.encode())
                share, left = share - size, left - size
                yield text, size


def _texts_of(value: Mapping[str, Any], text_column: str, where: str) -> Iterator[str]:
    """The texts of a row: its text column, or what the messages of its conversation say, think and call."""
    from minimind.data.corpus import kind_of
    from minimind.text.conversation import Conversation

    try:
        kind = kind_of(value, text_column)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if kind == "text":
        text = value[text_column]
        if not isinstance(text, str):
            raise DataError(f"{where}: column {text_column!r} holds {type(text).__name__}; expected text")
        yield text
        return
    conversation = Conversation.parse(value, where)
    yield from (json.dumps(tool, ensure_ascii=False) for tool in conversation.tools)
    for message in conversation.messages:
        said = (message.reasoning_content, message.content, *(call.to_json() for call in message.tool_calls))
        yield from filter(None, said)
