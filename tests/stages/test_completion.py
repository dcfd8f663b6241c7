"""A shell completes verbs and the options of each, without starting the program."""

import shutil
import subprocess
from pathlib import Path

import pytest

from minimind.cli import main
from minimind.stages import VERBS


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "completion.bash"
    path.write_text(capsys.readouterr().out)
    return path


def completed(script: Path, *words: str) -> list[str]:
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no bash")
    typed = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
    asked = f"source {script}; {typed}; _minimind; echo ${{COMPREPLY[*]}}"
    return subprocess.run([shell, "-c", asked], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_verbs_and_the_options_of_each(script: Path) -> None:
    assert completed(script, "minimind", "pre") == ["prepare", "pretrain"]
    assert completed(script, "minimind", "pretrain", "--train.lo") == ["--train.log_every"]
    assert completed(script, "minimind", "merge", "--train.lo") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_are_told_every_verb(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS) and "train.log_every" in shown
    if program := shutil.which(shell):
        subprocess.run([program, "-n", "-c", shown], check=True)
