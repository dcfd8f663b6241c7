"""A tokenizer is shown by what it packs, and every control token has its place."""

from pathlib import Path

from minimind.report.inspect_tokenizer import inspect_tokenizer
from minimind.text.tokenizer import Tokenizer


def test_its_compression_longest_and_control_tokens_are_told(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["hello hello hello world world"], 300)
    tokenizer.save(tmp_path)
    found = inspect_tokenizer(tmp_path / "tokenizer.json", {"en": ["hello world"], "zh": ["今天"]})
    packed, longest, control = found.tables
    assert [row[:2] for row in packed.rows] == [["en", 1], ["zh", 1]]
    # No merge joins Chinese bytes: three tokens a character.
    assert packed.rows[1][2:] == [6, 1 / 3, 1.0] and packed.rows[0][3] > 2
    assert longest.rows[0][1] == max(map(len, tokenizer.token_bytes))
    cells = [cell for row in control.rows for cell in row if cell]
    assert len(cells) == len(tokenizer.control_ids) and "1 <|im_start|>" in cells
    assert found.facts["fingerprint"] == tokenizer.fingerprint
