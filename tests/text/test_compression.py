"""Figures to compare vocabularies by, for each language."""

import pytest

from minimind.text.compression import Compression, guess_language, report
from minimind.text.tokenizer import Tokenizer


def test_report_counts_characters_bytes_and_tokens_by_language() -> None:
    tokenizer = Tokenizer.train([], 292)

    rows = report(tokenizer, {"en": ["hello", "you"], "zh": ["你好"], "none": []})

    assert rows == [Compression("en", 2, 8, 8, 8), Compression("zh", 1, 2, 6, 6), Compression("none", 0, 0, 0, 0)]
    assert [row.bytes_per_token for row in rows] == [1, 1, 0]
    assert rows[1].characters_per_token == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The quick brown fox", "en"),
        ("今天天气很好", "zh"),
        ("我用 Python 写代码", "zh"),
        ("今日はいい天気ですね", "ja"),
        ("오늘 날씨가 좋네요", "ko"),
        ("12345 !?", "other"),
        ("", "other"),
    ],
)
def test_language_is_guessed_by_script(text: str, language: str) -> None:
    assert guess_language(text) == language
