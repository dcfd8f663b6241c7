"""Answers go to stdout, all else to stderr, and nothing that is said controls the terminal."""

import pytest

from minimind.terminal.notes import note, say, say_error, warn


def test_the_answer_is_on_stdout_and_everything_about_it_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("an answer")
    note("at work")
    warn("odd")
    say_error("one\ntwo")
    shown = capsys.readouterr()
    assert shown.out == "an answer\n"
    assert shown.err == "at work\nwarning: odd\nerror: one\nerror: two\n"


def test_a_carriage_return_an_escape_and_a_turned_direction_are_seen(capsys: pytest.CaptureFixture[str]) -> None:
    warn("a\rb\x1b[2Jc\u202ed\udcffe")
    assert capsys.readouterr().err == "warning: a␍b␛[2Jc\ufffdd\ufffde\n"
