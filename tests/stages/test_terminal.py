"""An answer on the screen: thinking behind a margin, unreadable calls as text, no control of the terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.stages.terminal import AnswerView, Screen
from minimind.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["hello world, hello there", "你好，世界。" * 3], 305)


def shown(text: str, *, thinking: bool = False, stop: tuple[str, ...] = (), is_terminal: bool = False) -> str:
    file = io.StringIO()
    view = AnswerView(Screen(file, is_terminal=is_terminal), TOKENIZER, thinking=thinking, stop=stop)
    for token in TOKENIZER.encode_with_control(text):
        if not view.is_stopped:
            view.push(token)
    view.finish()
    return file.getvalue()


def test_an_answer_is_shown_as_it_is_and_ends_its_line() -> None:
    assert shown("\n\n你好，\n世界。") == "你好，\n世界。\n"


def test_thinking_stands_behind_a_margin_under_its_heading() -> None:
    assert shown("two and\n\ntwo\n</think>\n\nfour", thinking=True) == "thinking\n  │ two and\n  │ \n  │ two\nfour\n"
    assert shown("<think>\nso\n</think>\n\nyes") == "thinking\n  │ so\nyes\n"
    assert shown("cut short", thinking=True) == "thinking\n  │ cut short\n"


def test_a_call_is_not_shown_while_it_is_written() -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert shown(f"let me see\n{call}\n{call}") == "let me see\n"
    assert shown(call) == ""


@pytest.mark.parametrize("call", ["<tool_call>\nnonsense\n</tool_call>", '<tool_call>\n{"name": "f"'])
def test_a_call_that_cannot_be_read_is_shown_as_text(call: str) -> None:
    assert call in shown(f"hello {call}")


def test_tags_that_are_only_spelled_stay_text() -> None:
    file = io.StringIO()
    view = AnswerView(Screen(file), TOKENIZER, thinking=False)
    for token in TOKENIZER.encode("a <think> b </think>"):
        view.push(token)
    view.finish()
    assert file.getvalue() == "a <think> b </think>\n"


def test_nothing_after_a_stop_string_is_shown() -> None:
    assert shown("hello there, world", stop=("re, w",)) == "hello the\n"


def test_control_characters_are_shown_and_not_obeyed() -> None:
    text = "\x1b[2J\x07\r\x9b31m\tx"
    assert shown(text, is_terminal=True) == "␛[2J␇␍\ufffd31m\tx\n"
    assert shown(text) == f"{text}\n"


def test_a_pipe_gets_no_styles_and_a_terminal_can_refuse_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[2m" in shown("so", thinking=True, is_terminal=True)
    assert "\x1b" not in shown("so", thinking=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown("so", thinking=True, is_terminal=True)


TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]


@given(st.lists(st.sampled_from([*TAGS, "a", "\n", '{"name": "f"}', "你"]), max_size=12), st.booleans())
def test_the_text_is_all_that_was_said(parts: list[str], thinking: bool) -> None:
    view = AnswerView(Screen(io.StringIO()), TOKENIZER, thinking=thinking)
    for token in TOKENIZER.encode_with_control("".join(parts)):
        view.push(token)
    view.finish()
    assert view.text == "".join(parts)
