"""Every recipe that ships is one its stage accepts, and says only what differs from the defaults."""

import re
import tomllib
from pathlib import Path

import pytest

from minimind import config
from minimind.config import flatten, load, options
from minimind.stages import VERBS, load_stage

RECIPES = sorted(config.RECIPES.rglob("*.toml"))


def verb_of(recipe: Path) -> str:
    found = re.fullmatch(r"(?:\d+-)?([a-z]+)(?:-.*)?\.toml", recipe.name)
    assert found and found[1] in VERBS, f"{recipe}: expected a name like 2-pretrain.toml or sft-wide.toml"
    return found[1]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.parent.name}/{recipe.name}")
def test_a_recipe_is_accepted_by_its_stage(recipe: Path) -> None:
    config_class, _ = load_stage(verb_of(recipe))
    load(config_class, recipe)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.parent.name}/{recipe.name}")
def test_a_recipe_repeats_no_default(recipe: Path) -> None:
    config_class, _ = load_stage(verb_of(recipe))
    defaults = {option.name: option.default for option in options(config_class)}
    said = flatten(tomllib.loads(recipe.read_text(encoding="utf-8")), stop=defaults)
    assert [name for name, value in said if name in defaults and defaults[name] == value] == []


def test_the_quickstart_covers_the_way_from_text_to_chat() -> None:
    verbs = [verb_of(recipe) for recipe in RECIPES if recipe.parent.name == "quickstart"]
    assert {"tokenizer", "prepare", "pretrain", "sft"} <= set(verbs)
