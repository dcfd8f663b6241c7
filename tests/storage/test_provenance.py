"""What is noted about the machine repeats the run and names nobody."""

import getpass
import json
import platform
from pathlib import Path

import pytest

from minimind.storage.provenance import describe_environment, without_home


def test_versions_processor_and_command_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/minimind", "pretrain", "--out", str(Path.home() / "a b")])
    environment = describe_environment()
    assert environment["python"] == platform.python_version()
    assert environment["versions"]["torch"].startswith("2.")
    assert environment["cores"] >= 1
    assert environment["command"] == "minimind pretrain --out '~/a b'"


def test_neither_host_nor_home_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setattr("sys.argv", ["minimind", "sft", "/home/somebody/recipe.toml"])
    noted = json.dumps(describe_environment())
    assert platform.node() not in noted
    assert "somebody" not in noted
    assert getpass.getuser() == "root" or getpass.getuser() not in noted


@pytest.mark.parametrize(
    ("home", "expected"),
    [("/", "/runs/a /home/me/b /home/meadow/c"), ("/home/me", "/runs/a ~/b /home/meadow/c")],
)
def test_nothing_but_the_home_folder_is_shortened(monkeypatch: pytest.MonkeyPatch, home: str, expected: str) -> None:
    monkeypatch.setenv("HOME", home)
    assert without_home("/runs/a /home/me/b /home/meadow/c") == expected
