"""`minimind inspect PATH`: what a checkpoint, prepared data, a tokenizer or data files hold, in human terms."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from minimind.config import REQUIRED, Config, option
from minimind.errors import ConfigError, DataError

if TYPE_CHECKING:
    from minimind.report.inspection import Inspection
    from minimind.terminal.screen import Screen

__all__ = ["InspectConfig", "run"]

# To show a tokenizer's compression on, when nothing is given: English and Chinese that need no other package.
BUILTIN_TEXTS = "builtin://conversations"
TEXT_BYTES = 2_000_000


class InspectConfig(Config):
    """Look into a checkpoint, a prepared folder, a tokenizer, or data files; which of them it is shows by itself."""

    positional: ClassVar[str] = "path"

    path: str = option(
        REQUIRED,
        "A run or model folder, a folder that `minimind prepare` wrote, a tokenizer, or data: files, a "
        "folder of them, globs, hf://owner/name, builtin://name.",
    )
    verify: bool = option(True, "Of models and prepared data: hash every file and compare with what was written.")
    tokenizer: Path | None = option(None, "Of prepared data: its tokenizer, where it is not at the place it was.")
    document: int = option(0, "Of prepared data: the number of the document to show.", ge=0)
    text: list[str] = option(
        [], "Of a tokenizer: texts or conversations to show its compression on; by default builtin://conversations."
    )
    text_column: str = option("text", "Of data files: the column that holds the text.")
    columns: list[str] = option([], "Of data files in no known shape: which column is which, such as prompt=question.")
    learn: Literal["all", "last"] = option("all", "Of data files: show a conversation as it is learnt so.")


def run(config: InspectConfig) -> None:
    """Find out what it is, and print what there is to know about it."""
    from minimind.report.inspection import kind_at

    kind = kind_at(config.path)
    if config.text and kind != "tokenizer":
        raise ConfigError(f"{config.path}: is no tokenizer; --text is for the texts to show one's compression on")
    _show(_inspect(config, kind))


def _inspect(config: InspectConfig, kind: str) -> "Inspection":
    from minimind.data.columns import columns_by_name
    from minimind.report.inspect_model import inspect_model
    from minimind.report.inspect_rows import inspect_rows
    from minimind.report.inspect_shards import inspect_shards
    from minimind.report.inspect_tokenizer import inspect_tokenizer

    path = Path(config.path)
    match kind:
        case "model":
            return inspect_model(path, verify=config.verify)
        case "prepared":
            return inspect_shards(path, config.tokenizer, document=config.document, verify=config.verify)
        case "tokenizer":
            return inspect_tokenizer(path, _texts_by_language(config.text or [BUILTIN_TEXTS]))
    try:
        columns = columns_by_name(config.columns)
    except ValueError as error:
        raise ConfigError(f"--columns: {error}") from None
    return inspect_rows([config.path], text_column=config.text_column, columns=columns, learn=config.learn)


def _texts_by_language(sources: list[str]) -> dict[str, list[str]]:
    """Some texts of each language, as a row names it or as the script suggests."""
    from minimind.data.corpus import read_rows
    from minimind.text.compression import guess_language

    found: dict[str, list[str]] = {}
    left = TEXT_BYTES
    for row in read_rows(sources):
        text = _text_of(row.value, f"{row.path}:{row.line}")
        found.setdefault(str(row.value.get("lang") or guess_language(text)), []).append(text)
        left -= len(text.encode("utf-8", "replace"))
        if left <= 0:
            break
    return found


def _text_of(value: Mapping[str, Any], where: str) -> str:
    """A text, or what is said in a conversation."""
    from minimind.data.corpus import kind_of
    from minimind.text.messages import Conversation

    try:
        kind = kind_of(value)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if kind == "conversation":
        return "\n".join(message.content for message in Conversation.parse(value, where).messages)
    if not isinstance(value["text"], str):
        raise DataError(f"{where}: column 'text' holds {type(value['text']).__name__}; expected text")
    return value["text"]


def _show(found: "Inspection") -> None:
    from minimind.terminal.screen import Screen
    from minimind.terminal.tables import show_facts, show_table

    screen = Screen()
    screen.line(found.title, "bold")
    show_facts(found.facts)
    for table in found.tables:
        show_table(table.title, table.columns, table.rows)
    if found.sample:
        screen.line(f"\n{found.sample_title}", "bold")
        _show_sample(found, screen)
    for fault in found.faults:
        screen.line(f"warning: {fault}", "bold")


def _show_sample(found: "Inspection", screen: "Screen") -> None:
    """What is learnt in colour; without a terminal between brackets, so that a file tells it, too."""
    has_colour = screen.is_terminal and not os.environ.get("NO_COLOR")
    for piece in found.sample:
        if piece.weight == 0:
            screen.write(piece.text, "dim")
        else:
            screen.write(piece.text if has_colour else f"[[{piece.text}]]", "cyan")
    screen.line()
