"""An answer on the screen: thinking behind a margin, no control of the terminal."""

import io

import pytest

from minimind.terminal.screen import AnswerView, Screen
from minimind.text.answers import Delta

CALL = Delta("call")


def shown(*pieces: Delta | str, is_terminal: bool = False) -> str:
    """What stands on the screen; a text is a piece of content."""
    file = io.StringIO()
    view = AnswerView(Screen(file, is_terminal=is_terminal))
    for piece in pieces:
        view.push(Delta("content", piece) if isinstance(piece, str) else piece)
    view.finish()
    return file.getvalue()


def thought(text: str) -> Delta:
    return Delta("reasoning", text)


def test_an_answer_is_shown_as_it_is_and_ends_its_line() -> None:
    assert shown("\n\n你好，\n世界。") == "你好，\n世界。\n"


def test_pieces_are_shown_as_the_whole_is() -> None:
    said = "你好，\n\n世界。\nhello"
    assert shown(*said) == shown(said) == f"{said}\n"
    assert shown(*map(thought, said)) == shown(thought(said))


def test_thinking_stands_behind_a_margin_under_its_heading() -> None:
    assert shown(thought("two and\n\ntwo"), "\n\nfour") == "thinking\n  │ two and\n  │ \n  │ two\nfour\n"
    assert shown(thought("cut short")) == "thinking\n  │ cut short\n"


def test_what_follows_a_call_stands_on_a_line_of_its_own() -> None:
    assert shown("let me see", CALL, CALL) == "let me see\n"
    assert shown("let me see", CALL, "done") == "let me see\ndone\n"
    assert shown(CALL) == ""


def test_control_characters_are_shown_and_not_obeyed() -> None:
    text = "\x1b[2J\x07\r\x9b31m\tx"
    assert shown(text, is_terminal=True) == "␛[2J␇␍\ufffd31m\tx\n"
    assert shown(text) == f"{text}\n"


def test_a_pipe_gets_no_styles_and_a_terminal_can_refuse_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[2m" in shown(thought("so"), is_terminal=True)
    assert "\x1b" not in shown(thought("so"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(thought("so"), is_terminal=True)
