"""The command line answers fast, shows every option, and turns a user's mistake into a line and exit code 2."""

import errno
import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import minimind
from minimind import cli
from minimind.config import describe, options
from minimind.errors import ConfigError
from minimind.stages import VERBS, load_stage

SOURCE = Path(__file__).resolve().parents[1] / "src"
WRITTEN = [verb for verb in VERBS if importlib.util.find_spec(f"minimind.stages.{verb}")]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "COLUMNS": "100"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=60)


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, minimind, minimind.cli; minimind.cli.main(['--help']); print(*sys.modules)"
    loaded = set(python("-c", code).stdout.split())
    assert not loaded & {"torch", "numpy", "pydantic", "rich", "tokenizers", "jinja2"}


def test_the_package_and_the_module_are_commands() -> None:
    shown = python("-m", "minimind", "--help")
    assert shown.returncode == 0
    assert all(f"  {verb} " in shown.stdout for verb in VERBS)


def test_the_version_is_the_package_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"minimind {minimind.__version__}\n"


def test_help_says_of_a_section_that_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["grpo", "--help"]) == 0
    shown = capsys.readouterr().out.splitlines()
    headers = {line.split("]")[0][1:]: line for line in shown if line.startswith("[")}
    off = "  off unless one of its options is given"
    assert {name for name, line in headers.items() if line.endswith(off)} == {"lora", "server"}
    text = " ".join(" ".join(shown[shown.index(headers["server"]) :]).split())
    assert "such as http://localhost:8000. [text, needed then]" in text


def test_a_gpu_that_is_not_there_is_a_line_at_the_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for words in (
        ["chat", "nowhere", "--device"],
        ["sft", "--run", "r", "--model", "m", "--data.source", "d", "--train.device"],
    ):
        assert cli.main([*words, "cuda"]) == 2
        shown = capsys.readouterr().err
        assert (
            shown
            == f"error: {words[-1]}: got 'cuda'; expected auto or cpu: torch finds no CUDA device on this machine\n"
        )


@pytest.mark.parametrize("verb", VERBS)
def test_a_device_is_spelled_alike_wherever_there_is_one(verb: str) -> None:
    devices = [found for found in options(load_stage(verb)[0]) if found.name.rpartition(".")[2] == "device"]
    assert {describe(found.type) for found in devices} <= {"one of auto, cpu, cuda"}


@pytest.mark.parametrize("verb", WRITTEN)
def test_help_on_a_verb_fits_and_names_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    config_class, _ = load_stage(verb)
    for option in options(config_class):
        assert option.description, f"{verb}: --{option.name} has no description"
        assert option.name == config_class.rest or f"--{option.name}" in shown
    lines = shown.partition("\nexamples\n")[0].splitlines()
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("verb", WRITTEN)
def test_the_examples_of_a_verb_can_be_copied(verb: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    assert len(VERBS[verb].examples) >= 2
    for example in VERBS[verb].examples:
        program, first, *words = shlex.split(example)
        assert (program, first) == ("minimind", verb)
        if "--help" not in words:
            cli.parse(verb, words)


def test_a_wrong_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrian", "--help"]) == 2
    assert capsys.readouterr().err == "error: unknown verb 'pretrian'; did you mean pretrain?\n"


def test_every_problem_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tokenizer", "--vocab_size", "x", "--sauce", "a"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --vocab_size: got 'x'; expected int at least 292",
        "error: unknown option --sauce; did you mean --source?",
        "error: source is missing: set it in a recipe or with --source; expected list of text (1 or more)",
        "error: out is missing: set it in a recipe or with --out; expected path",
    ]


def test_words_go_to_the_option_before_them(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('source = ["a"]\nout = "o"\n')
    config = cli.parse("tokenizer", [str(recipe), "--source", "b", "c.toml", "--out=x=y", "--add-prefix-space"])
    assert config.resolved() | {"source": ["b", "c.toml"], "out": "x=y", "add_prefix_space": True} == config.resolved()
    assert not cli.parse("tokenizer", [str(recipe), "--no-add-prefix-space"]).resolved()["add_prefix_space"]
    assert cli.parse("run", ["mine/x", "--from", "sft"]).resolved()["folder"] == "mine/x"


def test_a_word_without_an_option_and_an_option_given_twice_are_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"unexpected word 'a\.txt'; expected a recipe"):
        cli.parse("tokenizer", ["a.txt"])
    with pytest.raises(ConfigError, match="--out is given twice"):
        cli.parse("tokenizer", ["--out", "a", "--out", "b"])


def test_ctrl_c_is_a_line_and_130_and_a_bug_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minimind.stages.run.run", stop)
    assert cli.main(["run", "folder"]) == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"
    monkeypatch.setattr("minimind.stages.run.run", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "folder"])


def test_a_full_disk_is_a_line_wherever_it_is_met(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/rollouts.jsonl")

    monkeypatch.setattr("minimind.stages.run.run", fill)
    assert cli.main(["run", "folder"]) == 2
    assert capsys.readouterr().err.startswith("error: runs/a/rollouts.jsonl: No space left on device; make room")


@pytest.mark.parametrize("words", ["--help", "run --help"])
def test_a_reader_that_leaves_early_sees_no_error(words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "minimind", *words.split()]
    # Buffered, as it is for people: the text then meets the closed pipe only at the end.
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, timeout=60)
    os.close(writer)
    assert done.stderr == ""
