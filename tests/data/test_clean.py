"""Cleaning: debris is found, prose in any language is left alone."""

import json
from pathlib import Path

import pytest

from minimind.data.clean import reason_to_drop
from minimind.data.options import CleanConfig

PROSE = "A plain sentence with naïve façades, “quotes” and Ünïcödé — 今天天气很好。\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("short", "too_short"),
        (PROSE * 20 + "\x00\x01" * 20, "control_characters"),
        (PROSE * 2 + "\ufffd" * 5, "broken_characters"),
        ("The caf\u00c3\u00a9 that says \u00e2\u20ac\u0153hello\u00e2\u20ac\u009d", "broken_characters"),
        ("\u00e4\u00bb\u0160\u00e5\u00a4\u00a9" * 9, "broken_characters"),
        ("手持两把锟斤拷，口中疾呼烫烫烫", "broken_characters"),
        ("Click here to subscribe\n" * 30, "repeated_lines"),
        (PROSE + "\tindented\r\nlines\n\n\n", ""),
        (PROSE, ""),
    ],
)
def test_debris_has_a_name(text: str, reason: str) -> None:
    assert reason_to_drop(text, CleanConfig()) == reason


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize(
    "text", ["Überraschung für Bärbel: schöne Grüße", "今天天气很好，我们去公园", "Привет, как дела?"]
)
def test_text_decoded_with_the_wrong_table_is_recognised(text: str, encoding: str) -> None:
    assert reason_to_drop(text.encode().decode(encoding, "replace"), CleanConfig()) == "broken_characters"
    assert reason_to_drop(text, CleanConfig()) == ""


def test_limits_are_inclusive_and_can_be_switched_off() -> None:
    assert reason_to_drop("x" * 9, CleanConfig(min_characters=9, max_characters=9)) == ""
    assert reason_to_drop("x" * 10, CleanConfig(max_characters=9)) == "too_long"
    off = CleanConfig(min_characters=0, max_control=1, max_broken=1, max_repeated=1)
    assert [reason_to_drop(text, off) for text in ("", "\0\0\0", "\ufffd" * 9, "a\n" * 9)] == [""] * 4


def test_nearly_all_of_real_text_is_kept(shared: Path) -> None:
    lines = (shared / "data" / "pretrain_valid.jsonl").read_text(encoding="utf-8").splitlines()
    reasons = [reason_to_drop(json.loads(line)["text"], CleanConfig()) for line in lines]
    assert reasons.count("") >= 0.99 * len(reasons)
