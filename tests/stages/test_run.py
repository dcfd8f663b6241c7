"""A folder of recipes runs in order, skips what is complete, and repeats what a change has made stale."""

from pathlib import Path

import pytest

from minimind.cli import parse
from minimind.errors import ConfigError, DataError
from minimind.stages.run import run
from minimind.storage.run import RunReader

TEXT = "the cat sat on the mat and the dog sat on the log. " * 40


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tokenizers, a first and a tenth; a stage that needs no model makes these tests quick."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    Path("recipes").mkdir()
    write("10-tokenizer-last.toml", "last")
    write("2-tokenizer.toml", "first")
    return tmp_path


def write(name: str, out: str, rest: str = "") -> None:
    Path("recipes", name).write_text(f'source = ["text.txt"]\nout = "out/{out}"\nvocab_size = 300\n{rest}')


def start(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The headers that a run prints."""
    run(parse("run", ["recipes", *words]))  # type: ignore[arg-type]
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]


def test_recipes_run_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert start(capsys) == [
        "[1/2] tokenizer  recipes/2-tokenizer.toml",
        "[2/2] tokenizer  recipes/10-tokenizer-last.toml",
    ]
    assert Path("out/first/tokenizer.json").is_file() and Path("out/last/tokenizer.json").is_file()


def test_what_is_complete_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    start(capsys)
    assert [line.endswith("(complete, skipped)") for line in start(capsys)] == [True, True]


def test_a_changed_option_repeats_its_stage_and_the_ones_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    start(capsys)
    write("10-tokenizer-last.toml", "last", "max_bytes = 1000\n")
    assert [line.endswith("skipped)") for line in start(capsys)] == [True, False]
    write("2-tokenizer.toml", "first", "max_bytes = 1000\n")
    assert [line.endswith("skipped)") for line in start(capsys)] == [False, False]


def test_lost_output_is_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    start(capsys)
    Path("out/last").rename("out/gone")
    assert [line.endswith("skipped)") for line in start(capsys)] == [True, False]


def test_from_repeats_what_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    start(capsys)
    assert [line.endswith("skipped)") for line in start(capsys, "--from", "tokenizer")] == [False, False]


def train(steps: int) -> None:
    """Recipes 20 and 21: a model, and another that goes on from it."""
    rest = 'data.source = ["text.txt"]\ndata.context = 32\n'
    rest += "train.batch_tokens = 64\ntrain.dtype = 'float32'\nsample_prompts = []\n"
    shape = "hidden_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\nnum_key_value_heads = 1\n"
    shape += "intermediate_size = 16\n"
    Path("recipes/20-pretrain.toml").write_text(
        f'run = "out/one"\ntokenizer = "out/first"\n{rest}train.steps = {steps}\n[model]\n{shape}'
    )
    Path("recipes/21-pretrain-more.toml").write_text(f'run = "out/two"\nbase = "out/one"\n{rest}train.steps = 2\n')


def steps_of(folder: str) -> int:
    return RunReader(folder).metrics()[-1]["step"]


def test_a_stage_trained_anew_keeps_the_old_run_and_repeats_what_was_built_on_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(steps=2)
    start(capsys)
    train(steps=3)
    assert [line.endswith("skipped)") for line in start(capsys)] == [True, True, False, False]
    assert (steps_of("out/one"), steps_of("out/old/one-1")) == (3, 2)
    assert (steps_of("out/two"), steps_of("out/old/two-1")) == (2, 2)
    start(capsys, "--from", "pretrain")
    assert steps_of("out/old/one-2") == 3


def test_stopped_after_a_stage_was_trained_anew_the_next_start_repeats_what_was_built_on_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(steps=2)
    start(capsys)
    # As if it had been killed there: the later recipe is not reached.
    Path("recipes/21-pretrain-more.toml").rename("later.toml")
    start(capsys, "--from", "pretrain")
    Path("later.toml").rename("recipes/21-pretrain-more.toml")
    assert [line.endswith("skipped)") for line in start(capsys)] == [True, True, True, False]
    assert Path("out/old/two-1").is_dir() and Path("out/old/one-1").is_dir()


def test_overrides_reach_the_stages_of_their_verb(capsys: pytest.CaptureFixture[str]) -> None:
    start(capsys, "--tokenizer.vocab_size", "295")
    assert Path("out/first/recipe.toml").read_text().count("vocab_size = 295") == 1


def test_a_failure_stops_and_the_next_start_goes_on_there(capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipes/10-tokenizer-last.toml").write_text('source = ["gone.txt"]\nout = "out/last"\n')
    with pytest.raises(DataError, match=r"stage 2 of 2, recipes/10-tokenizer-last\.toml: .*gone\.txt"):
        start(capsys)
    write("10-tokenizer-last.toml", "last")
    capsys.readouterr()
    assert [line.endswith("skipped)") for line in start(capsys)] == [True, False]


def test_all_recipes_are_checked_before_the_first_one_starts(capsys: pytest.CaptureFixture[str]) -> None:
    write("10-tokenizer-last.toml", "last", "vocab = 1\n")
    with pytest.raises(ConfigError, match=r"10-tokenizer-last\.toml:4: unknown key 'vocab'"):
        start(capsys)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--from", "pretrain"], "recipes has the stages tokenizer"),
        (["--tokeniser.vocab_size", "300"], "did you mean --tokenizer."),
        (["--form", "tokenizer"], "did you mean --from"),
        (["--tokenizer.vocab", "300"], "unknown option --tokenizer.vocab; did you mean --tokenizer.vocab_size"),
    ],
)
def test_a_wrong_flag_is_answered_with_the_right_one(
    words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        start(capsys, *words)
    assert answer in str(caught.value)


def test_a_wrong_file_name_or_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write("3-tokenise.toml", "x")
    with pytest.raises(ConfigError, match="did you mean tokenizer"):
        start(capsys)
    with pytest.raises(ConfigError, match="not a folder"):
        run(parse("run", ["nowhere"]))  # type: ignore[arg-type]


def test_without_a_folder_the_recipes_of_the_program_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    run(parse("run", []))  # type: ignore[arg-type]
    shown = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert shown["quickstart"][:3] == ["tokenizer", "prepare", "pretrain"] and {"26m", "64m", "sums"} <= set(shown)
    with pytest.raises(ConfigError, match="folder is missing: name a folder of recipes, or one of 26m"):
        run(parse("run", ["--from", "sft"]))  # type: ignore[arg-type]
