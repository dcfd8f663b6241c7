"""What `minimind generate` continues or answers: texts of the command line, lines, or rows of any data files."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from minimind.data.corpus import read_rows
from minimind.errors import ConfigError, DataError
from minimind.stages.shared.typed_lines import typed_lines
from minimind.text.conversation import Conversation, Message, render_prompt
from minimind.text.shapes import MESSAGE_LISTS, shape_of
from minimind.text.tokenizer import Tokenizer

__all__ = ["GivenPrompt", "read_prompts"]


@dataclass(frozen=True)
class GivenPrompt:
    """Something to continue.

    where:         its place, for messages
    row:           what the output repeats of it
    conversation:  what is to be answered; None for a plain text
    """

    where: str
    row: dict[str, Any]
    conversation: Conversation | None = None

    def ids(self, tokenizer: Tokenizer, *, thinking: bool) -> list[int]:
        if self.conversation is None:
            return tokenizer.begin(tokenizer.encode(self.row["prompt"]))
        return render_prompt(self.conversation.messages, self.conversation.tools, tokenizer, thinking)


def read_prompts(texts: Sequence[str], sources: Sequence[str], *, chat: bool) -> Iterator[GivenPrompt]:
    """The texts, or else the prompts of the sources, or else the lines of standard input.

    sources:  files of text with a prompt in each line, and whatever else rows are read from
    chat:     a text is a user's question
    Errors:   ConfigError, DataError naming `path:line`
    """
    if texts and sources:
        raise ConfigError("--prompt and --source are both given; expected one of them")
    if not texts and not sources and sys.stdin.isatty():
        raise ConfigError("no prompt; give --prompt TEXT or --source PATH, or pipe in a prompt per line")
    for text in texts:
        yield _plain("--prompt", text, chat)
    for source in sources:
        yield from _lines(source, chat) if source.endswith(".txt") else _rows(source, chat)
    if not texts and not sources:
        yield from _lines("standard input", chat)


def _plain(where: str, text: str, chat: bool) -> GivenPrompt:
    return GivenPrompt(where, {"prompt": text}, Conversation((Message("user", text),)) if chat else None)


def _lines(name: str, chat: bool) -> Iterator[GivenPrompt]:
    try:
        with nullcontext(sys.stdin) if name == "standard input" else open(name, encoding="utf-8") as file:
            for number, line in enumerate(typed_lines(file, name), start=1):
                if text := line.strip():
                    yield _plain(f"{name}:{number}", text, chat)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None


def _rows(source: str, chat: bool) -> Iterator[GivenPrompt]:
    for row in read_rows([source]):
        where, value = f"{row.path}:{row.line}", row.value
        if isinstance(value.get("prompt"), str) and not any(value.get(name) for name in MESSAGE_LISTS):
            yield _plain(where, value["prompt"], chat)
        elif _is_conversation(value):
            conversation = Conversation.parse(value, where).prompt_part()
            if not conversation.messages or conversation.messages[-1].role == "assistant":
                raise DataError(f"{where}: there is nothing to answer; expected a last message by the user")
            yield GivenPrompt(where, conversation.to_dict(), conversation)
        elif isinstance(value.get("text"), str):
            yield _plain(where, value["text"], chat)
        else:
            found = ", ".join(map(repr, list(value)[:10])) or "nothing"
            raise DataError(
                f"{where}: has {found}; expected a prompt or a text, or a conversation as messages or conversations"
            )


def _is_conversation(value: Mapping[str, Any]) -> bool:
    """Also a prompt alone that is made of messages."""
    shape = shape_of(value)
    return shape is not None and shape.kind in ("conversation", "prompt")
