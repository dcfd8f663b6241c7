"""How a chat looks: answers as they are written, thinking dimmed and indented, plain text where there is no terminal.

What a model writes is not trusted with the terminal: its control characters are shown and not obeyed. `dialogue.py`
decides what is said, this file only shows it.
"""

import os
import re
import sys
from collections.abc import Sequence
from typing import Literal, TextIO

from minimind.conversation import ToolCall
from minimind.generation import TextStream
from minimind.tokenizer import Tokenizer

__all__ = ["AnswerView", "Screen"]

Style = Literal["", "dim", "bold", "cyan"]
CODES: dict[str, str] = {"dim": "\x1b[2m", "bold": "\x1b[1m", "cyan": "\x1b[36m"}
RESET = "\x1b[0m"
# C0 and C1 control characters but newline and tab: an answer must not clear the screen or forge a prompt.
VISIBLE = {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
VISIBLE |= dict.fromkeys(range(0x7F, 0xA0), 0xFFFD)
MARGIN = "  │ "


class Screen:
    """Where text is shown: with styles on a terminal, as it is in a pipe."""

    def __init__(self, file: TextIO | None = None, *, is_terminal: bool | None = None) -> None:
        self._file = file or sys.stdout
        self.is_terminal = self._file.isatty() if is_terminal is None else is_terminal
        has_styles = self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._codes = CODES if has_styles else {}

    def write(self, text: str, style: Style = "") -> None:
        """Show text at once."""
        text = text.translate(VISIBLE) if self.is_terminal else text
        code = self._codes.get(style)
        self._file.write(f"{code}{text}{RESET}" if code and text else text)
        self._file.flush()

    def line(self, text: str = "", style: Style = "") -> None:
        self.write(text, style)
        self.write("\n")

    def notice(self, text: str) -> None:
        """Something that the program says, and not the model."""
        self.line(f"({text})", "dim")


class AnswerView:
    """Shows one answer while its ids come in: reasoning behind a margin, tool calls only once they are whole.

    text:        everything so far, tags included, up to a stop string
    is_stopped:  a stop string was met
    """

    def __init__(self, screen: Screen, tokenizer: Tokenizer, *, thinking: bool, stop: Sequence[str] = ()) -> None:
        self._screen = screen
        self._tokenizer = tokenizer
        self._stop = stop
        tags = {"<think>", "</think>", "<tool_call>", "</tool_call>"} & tokenizer.control_names
        self._tags = {tokenizer.control(name): name for name in tags}
        self._section = "thinking" if thinking else "answer"
        self._shown_section = ""
        self._call = ""
        self._column = 0
        self._parts: list[str] = []
        self._stream = TextStream(tokenizer, stop)

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def is_stopped(self) -> bool:
        return self._stream.is_stopped

    def push(self, token: int) -> None:
        """Take the next id. Tags count as tags only as control tokens; spelled out they are text."""
        tag = self._tags.get(token)
        if tag is None:
            self._add(self._stream.push(token))
            return
        self._add(self._stream.finish())
        self._stream = TextStream(self._tokenizer, self._stop)
        self._parts.append(tag)
        if tag == "</tool_call>" and self._section == "call":
            self._end_call(tag)
        elif tag == "<tool_call>" and self._section == "answer":
            self._section, self._call = "call", tag
        elif tag in ("<think>", "</think>"):
            self._end_call("")
            self._section = "thinking" if tag == "<think>" else "answer"

    def finish(self) -> None:
        """Show what was held back, and end the line."""
        self._add(self._stream.finish())
        self._end_call("")
        if self._column:
            self._screen.write("\n")

    def _add(self, piece: str) -> None:
        if piece:
            self._parts.append(piece)
        if self._section == "call":
            self._call += piece
        else:
            self._show(piece)

    def _end_call(self, tag: str) -> None:
        """A call that nobody can read is shown as the text it is; the others are shown when they are run."""
        if self._section != "call":
            return
        self._section = "answer"
        if tag and _is_call(self._call.removeprefix("<tool_call>")):
            # The newline behind a call belongs to the format, as those between sections do.
            self._shown_section = ""
        else:
            self._show(self._call + tag)
        self._call = ""

    def _show(self, piece: str) -> None:
        is_thinking = self._section == "thinking"
        if self._section != self._shown_section:
            # The newlines around a section belong to the format, and not to what is said.
            piece = piece.lstrip("\n")
            if not piece:
                return
            if self._column:
                self._screen.write("\n")
            if is_thinking:
                self._screen.line("thinking", "dim")
            self._column, self._shown_section = 0, self._section
        for line in re.findall("[^\n]*\n|[^\n]+", piece):
            if is_thinking and not self._column:
                self._screen.write(MARGIN, "dim")
            self._screen.write(line, "dim" if is_thinking else "")
            self._column = 0 if line.endswith("\n") else self._column + len(line)


def _is_call(text: str) -> bool:
    try:
        ToolCall.parse(text)
    except (ValueError, RecursionError):
        return False
    return True
