"""What the pages say holds: links lead somewhere, commands parse, named tests exist, code prints what is shown."""

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimind.cli import parse
from minimind.config import options
from minimind.errors import ConfigError
from minimind.stages import VERBS, load_stage

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
RUNNABLE = ["loss.md", "tour.md"]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# At the start of a line, behind a pipe, in a folder, or as torchrun starts it.
COMMAND = re.compile(r"(?:^|\| |/|-- )minimind ([a-z]+\b.*)")
INLINE = re.compile(r"`([^`\n]+)`")
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`( \(slow)?")
NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `minimind` in code blocks and code spans, one list per command."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for language, block in BLOCK.findall(text) if language in ("", "bash")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in lines + INLINE.findall(BLOCK.sub("", text)):
        if found := COMMAND.search(line):
            yield shlex.split(found[1], comments=True)


def problems_of(words: list[str]) -> list[str]:
    """What the command line would say against these words; what a sentence leaves out is not missing."""
    verb, *rest = words
    if verb not in VERBS:
        return [f"unknown verb {verb}"]
    words = [word for word in rest if word != "--help" and (not word.endswith(".toml") or Path(word).is_file())]
    try:
        config = parse(verb, words)
    except ConfigError as error:
        return [line for line in str(error).splitlines() if " is missing: set it" not in line]
    overrides = getattr(config, "overrides", {})
    known = {f"{verb}.{option.name}" for verb in VERBS for option in options(load_stage(verb)[0])}
    return [f"unknown option --{name}" for name in overrides if name not in known]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    dead = [link for link in links if link and "://" not in link and not (page.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert {" ".join(words): found for words in commands(page) if (found := problems_of(words))} == {}


def test_a_wrong_option_in_a_page_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = tmp_path / "page.md"
    page.write_text(
        "Say `minimind chat runs/x --thinkng`.\n\n```\nminimind prepare --source a \\\n    --outt b  # so\n"
        "minimind run recipes/26m --sft.train.stepps 3\nminimind sft --model x --train.steps 3\n```\n"
    )
    assert [problems_of(words) != [] for words in commands(page)] == [True, True, False, True]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= set(targets)


def test_the_readme_shows_the_whole_way_in_both_languages() -> None:
    shown = [[words[0] for words in commands(ROOT / name)] for name in ("README.md", "README_zh.md")]
    for verbs in shown:
        assert set(VERBS) <= set(verbs)


@pytest.mark.parametrize("name", ["README.md", "README_zh.md"])
def test_a_readme_is_short(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) < 200


def test_every_test_that_is_named_exists() -> None:
    named = NAMED_TEST.findall((ROOT / "docs" / "trust.md").read_text(encoding="utf-8"))
    assert len(named) > 50
    wrong = []
    for file, name, slow in named:
        path = ROOT / "tests" / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.parse("")
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
        if not found or bool(slow) != ("mark.slow" in " ".join(map(ast.unparse, found[0].decorator_list))):
            wrong.append(f"{file}::{name}")
    assert wrong == []


def test_the_kinds_of_options_are_those_of_the_code() -> None:
    """The table of docs/run-folder.md: free and data are listed, the rest is math."""
    text = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    for kind in ("free", "data"):
        row = re.search(rf"^\| {kind} \|[^|]*\|(.*)\|$", text, re.MULTILINE)
        assert row is not None
        real = {option.name for option in options(load_stage("pretrain")[0]) if option.kind == kind}
        assert set(INLINE.findall(row[1])) == real


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_code_of_a_page_prints_what_stands_beside_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words and whole numbers exactly; fractions to a thousandth, for processors round differently."""
    blocks = BLOCK.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))
    script = tmp_path / "page.py"
    script.write_text("\n".join(block for language, block in blocks if language == "python"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    printed, shown = capsys.readouterr().out, "".join(block for language, block in blocks if language == "text")
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
    assert list(map(float, NUMBER.findall(printed))) == pytest.approx(list(map(float, NUMBER.findall(shown))), rel=1e-3)
