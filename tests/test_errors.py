"""What a stranger wrote is shown and not obeyed, wherever it stands."""

import sys
import tomllib
from pathlib import Path

import pytest

from minimind.errors import DISTRIBUTION, UserError, install, printable, why


def test_no_character_is_left_that_a_terminal_or_a_page_would_obey() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(everything)
    assert not {*map(chr, [*range(32), *range(0x7F, 0xA0), 0x202E, 0x2066])} - {"\t", "\n"} & {*shown}
    assert len(shown.encode("utf-8").decode("utf-8")) == len(everything)


@pytest.mark.parametrize("text", ["a\tb\n", "naïve 你好　世界", "👩\u200d🚀", "שלום", "a\u00a0b"])
def test_what_people_write_is_left_alone(text: str) -> None:
    assert printable(text) == text


def test_a_strangers_name_in_an_error_cannot_control_a_terminal() -> None:
    assert str(UserError("x: the tensor 'a\x1b[2J\x9b' is missing")) == "x: the tensor 'a␛[2J\ufffd' is missing"


def test_a_reason_of_the_operating_system_has_neither_number_nor_path(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "gone").read_text()
    assert why(caught.value) == "No such file or directory"
    assert why(ValueError("not a number")) == "not a number"


def test_hints_name_the_distribution_that_is_built() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == DISTRIBUTION
    assert install("serve") == "pip install 'minimind-lm[serve]'" and "serve" in project["optional-dependencies"]
