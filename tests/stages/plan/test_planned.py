"""A recipe is read as its stage reads it, prepared data or not, and nothing is written."""

import json
from pathlib import Path

import pytest

from minimind.data.options import PrepareOptions
from minimind.data.prepare import prepare
from minimind.errors import ConfigError, DataError
from minimind.stages.plan.planned import read_planned_run, verb_of
from minimind.storage.checkpoint import load_model

MODEL = """
[model]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 8
intermediate_size = 16
"""


def pretrain_recipe(folder: Path, train: str = "batch_tokens = 128") -> Path:
    path = folder / "3-pretrain.toml"
    places = [json.dumps(str(folder / name)) for name in ("run", "tokenizer", "data")]
    path.write_text(
        f"run = {places[0]}\ntokenizer = {places[1]}\n[data]\nsource = [{places[2]}]\ncontext = 32\n{MODEL}\n"
        f"[train]\n{train}\n"
    )
    return path


def test_the_name_of_a_recipe_or_its_run_says_its_stage(tmp_path: Path) -> None:
    for name in ("3-pretrain.toml", "5-sft-again.toml", "recipe.toml", "4-prepare.toml"):
        (tmp_path / name).write_text("")
    assert verb_of(tmp_path / "3-pretrain.toml") == "pretrain" and verb_of(tmp_path / "5-sft-again.toml") == "sft"
    with pytest.raises(ConfigError, match="a recipe for prepare; plans are made for pretrain and sft"):
        verb_of(tmp_path / "4-prepare.toml")
    with pytest.raises(ConfigError, match="say which with --verb"):
        verb_of(tmp_path / "recipe.toml")
    assert verb_of(tmp_path / "recipe.toml", "sft") == "sft"
    (tmp_path / "environment.json").write_text('{"stage": "pretrain"}')
    assert verb_of(tmp_path / "recipe.toml") == "pretrain"
    with pytest.raises(ConfigError, match="no such recipe"):
        verb_of(tmp_path / "none.toml")


def test_without_data_the_number_of_tokens_makes_the_steps(tmp_path: Path) -> None:
    once = "batch_tokens = 128\nepochs = 1\nwarmup_steps = 9"
    planned = read_planned_run(pretrain_recipe(tmp_path, once), "pretrain", tokens=10_000)
    # 313 rows of 32, 4 of them a step.
    assert planned.steps == 79 and planned.shape.tokens == 128 and planned.shape.seen == 16.5
    assert len(planned.notes) == 2 and planned.validation is None and not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"not prepared, and train\.steps is not set; .* --tokens"):
        read_planned_run(pretrain_recipe(tmp_path), "pretrain")
    # What is not given follows from the data, and is told.
    planned = read_planned_run(pretrain_recipe(tmp_path), "pretrain", tokens=10_000)
    assert planned.steps == 4 * 79 and planned.notes[-1].startswith("train.epochs 4, train.warmup_steps 31 for 10,000")
    assert read_planned_run(pretrain_recipe(tmp_path, "batch_tokens = 128\nsteps = 7"), "pretrain").steps == 7


def test_prepared_data_make_the_steps_of_the_run(tiny: Path, tmp_path: Path) -> None:
    _, tokenizer = load_model(tiny)
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"what is {n} plus one?"}) + "\n" for n in range(90)))
    prepare([tmp_path / "a.jsonl"], tokenizer, tmp_path / "data", PrepareOptions(valid_fraction=0.2))
    planned = read_planned_run(pretrain_recipe(tmp_path), "pretrain", {"train.epochs": ["2"]})
    assert planned.steps % 2 == 0 and planned.steps > 0 and planned.validation is not None
    assert planned.shape.seen < 16 and planned.data_bytes > 0 and len(planned.notes) == 1
    assert planned.shape.learnt < 1


def test_a_row_has_to_fit_into_a_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="less than one row"):
        read_planned_run(pretrain_recipe(tmp_path, "batch_tokens = 16\nsteps = 1"), "pretrain")
