"""How a chat looks: answers as they are written, thinking dimmed and indented, plain text where there is no terminal.

What a model or a server writes is not trusted with the terminal: control characters are shown and not obeyed.
`dialogue.py` decides what is said, this file only shows it.
"""

import os
import re
import sys
from typing import Literal, TextIO

from minimind.errors import printable
from minimind.text.answers import Delta

__all__ = ["AnswerView", "Screen"]

Style = Literal["", "dim", "bold", "cyan"]
CODES: dict[str, str] = {"dim": "\x1b[2m", "bold": "\x1b[1m", "cyan": "\x1b[36m"}
RESET = "\x1b[0m"
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
        text = printable(text) if self.is_terminal else text
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
    """Shows one answer as its pieces come in: reasoning behind a margin; a whole call is shown by whoever runs it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown_part = ""
        self._column = 0

    def push(self, delta: Delta) -> None:
        """Show a piece."""
        if delta.part == "call":
            # What follows is a section of its own.
            self._shown_part = delta.part
            if delta.cut is not None:
                self.finish()
                self._screen.line(f"{delta.cut.name}({delta.cut.arguments}", "cyan")
            return
        piece, is_thinking = delta.text, delta.part == "reasoning"
        if delta.part != self._shown_part:
            # The newlines around a section belong to the format, and not to what is said.
            piece = piece.lstrip("\n")
            if not piece:
                return
            self.finish()
            if is_thinking:
                self._screen.line("thinking", "dim")
            self._shown_part = delta.part
        for line in re.findall("[^\n]*\n|[^\n]+", piece):
            if is_thinking and not self._column:
                self._screen.write(MARGIN, "dim")
            # Counted first: Ctrl-C may come as soon as the text is shown.
            self._column = 0 if line.endswith("\n") else self._column + len(line)
            self._screen.write(line, "dim" if is_thinking else "")

    def finish(self) -> None:
        """End the line."""
        if self._column:
            self._screen.write("\n")
        self._column = 0
