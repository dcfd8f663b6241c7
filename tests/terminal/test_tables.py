"""Tables align figures and show what strangers wrote as it is."""

import pytest

from minimind.terminal.tables import show_facts, show_table


def test_brackets_are_no_markup_and_control_characters_are_visible(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("A [bold] title", ["name", "value"], [["[/red] x\x1b[2J", 1234], ["gap", None]])
    show_facts({"a": "one", "longer": "two\x07"})
    out = capsys.readouterr().out
    assert "A [bold] title" in out and "[/red] x␛[2J" in out and "\x1b[2J" not in out
    assert "1,234" in out and "  longer  two␇" in out and "  a       one" in out


def test_figures_have_three_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("t", ["value"], [[0.5], [2.0]])
    assert "0.500" in capsys.readouterr().out
