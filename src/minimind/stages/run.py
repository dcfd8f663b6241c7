"""`minimind run FOLDER`: the recipes of a folder, one stage after the other: one command goes from text to chat.

A recipe is named `N-VERB.toml` or `N-VERB-anything.toml`; they run by number, and all are checked before the first one
starts. A ledger notes what is complete, with a fingerprint of the options that matter and of the stage before. So the
same command again goes on where it stopped, and a changed option repeats its stage and the ones after it. The contents
of input files are not looked at; `--from VERB` repeats from a stage on. What was trained before is not lost then: its
run folder is moved to `old/` beside it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from minimind.config import RECIPES, Config, find_recipe, flatten, load, option, options
from minimind.errors import ConfigError, RunError, UserError, why
from minimind.stages import VERBS, load_stage
from minimind.storage.folder import write_file
from minimind.storage.run import set_aside
from minimind.suggestions import nearest
from minimind.terminal.notes import note, say

__all__ = ["RunConfig", "run"]

# In the ledger, of a stage whose input was made anew since.
STALE = "stale"


class RunConfig(Config):
    """Recipes are named N-VERB.toml or N-VERB-anything.toml, and run by number. A stage that is complete is skipped."""

    positional: ClassVar[str] = "folder"
    rest: ClassVar[str] = "overrides"

    folder: Path | None = option(
        None, "The folder of recipes, or the name of one that comes with the program; none lists them."
    )
    from_verb: str | None = option(None, "Start at this stage, and repeat what is complete.", alias="from")
    ledger: Path | None = option(
        None, "Where complete stages are noted; by default runs/NAME/stages.json, NAME being the folder's."
    )
    overrides: dict[str, list[str]] = option(
        {}, "Any option of one of the stages, as in --pretrain.train.steps 100; it wins over the recipe."
    )


def run(config: RunConfig) -> None:
    """Run the stages that are not complete; the first error stops, with a line that says where."""
    if config.folder is None:
        _list_recipes(config)
        return
    folder = find_recipe(config.folder)
    stages = _plan(config, folder)
    ledger_path = config.ledger or Path("runs") / folder.resolve().name / "stages.json"
    ledger = _read_ledger(ledger_path)
    first = next((i for i, stage in enumerate(stages) if stage.verb == config.from_verb), 0)
    for index, stage in enumerate(stages):
        noted = ledger.get(stage.recipe.name)
        complete = noted == stage.fingerprint and stage.has_output()
        skipped = index < first or (complete and config.from_verb is None)
        header = f"[{index + 1}/{len(stages)}] {stage.verb}  {stage.recipe}"
        note(
            f"{header}  (complete, skipped)" if skipped and complete else f"{header}  (skipped)" if skipped else header
        )
        if skipped:
            continue
        try:
            if noted is not None:
                _begin_anew(stage, ledger, before=stages[:index])
                _write_ledger(ledger_path, ledger)
            stage.run(stage.config if noted is None else _replacing(stage.config))
        except UserError as error:
            raise type(error)(f"stage {index + 1} of {len(stages)}, {stage.recipe}: {error}") from error
        ledger[stage.recipe.name] = stage.fingerprint
        _write_ledger(ledger_path, ledger)


def _replacing(config: Config) -> Config:
    """What a stage wrote when it was complete before was this recipe's own, and may be replaced."""
    return config.model_copy(update={"replace": True}) if "replace" in type(config).model_fields else config


def _begin_anew(stage: "_Stage", ledger: dict[str, str], before: Sequence["_Stage"]) -> None:
    """Make room for a stage that was complete once; what was built on its old result is stale."""
    if old := stage.set_aside():
        note(f"what was trained before is kept in {old}")
    # From now on an interrupted training goes on in its folder.
    del ledger[stage.recipe.name]
    ledger |= dict.fromkeys(ledger.keys() - {earlier.recipe.name for earlier in before}, STALE)


@dataclass(frozen=True)
class _Stage:
    """A recipe ready to run; its fingerprint covers it and every stage before it."""

    verb: str
    recipe: Path
    config: Config
    run: Callable[[Any], None]
    fingerprint: str

    def has_output(self) -> bool:
        """Whether what the stage writes is still there, as far as its options tell."""
        values = self.config.model_dump()
        paths = [values[name] for name in ("out", "run") if isinstance(values.get(name), Path)]
        return all(path.exists() for path in paths)

    def set_aside(self) -> Path | None:
        """Make room for another training in the same place: where the last one went. Errors: RunError while it runs"""
        folder = self.config.model_dump().get("run")
        return set_aside(folder) if isinstance(folder, Path) and (folder / "config.json").is_file() else None


def _list_recipes(config: RunConfig) -> None:
    if config.overrides or config.from_verb or config.ledger:
        raise ConfigError(f"folder is missing: name a folder of recipes, or one of {', '.join(_names())}")
    for name in _names():
        say(f"{name:<12}{' '.join(verb for verb, _ in _recipes(RECIPES / name))}")
    note("start one with: minimind run NAME; look at what it takes with: minimind plan NAME/RECIPE.toml")


def _names() -> list[str]:
    return sorted(path.name for path in RECIPES.iterdir() if path.is_dir())


def _plan(config: RunConfig, folder: Path) -> list[_Stage]:
    """Every stage with its checked config, in order."""
    recipes = _recipes(folder)
    verbs = [verb for verb, _ in recipes]
    if config.from_verb is not None and config.from_verb not in verbs:
        raise ConfigError(f"--from: got '{config.from_verb}'; {folder} has the stages {', '.join(verbs)}")
    overrides = _by_verb(config.overrides, verbs)
    stages: list[_Stage] = []
    for verb, recipe in recipes:
        config_class, function = load_stage(verb)
        try:
            stage_config = load(config_class, recipe, overrides[verb])
        except ConfigError as error:
            raise ConfigError(re.sub("--(?!help)", f"--{verb}.", str(error))) from error
        before = stages[-1].fingerprint if stages else ""
        stages.append(_Stage(verb, recipe, stage_config, function, _fingerprint(verb, stage_config, before)))
    return stages


def _recipes(folder: Path) -> list[tuple[str, Path]]:
    """The verb and the path of each recipe, by number, then by name."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: not a folder; expected one with recipes named N-VERB.toml, or one of {', '.join(_names())}"
        )
    found = []
    for path in folder.glob("*.toml"):
        name = re.fullmatch(r"(\d+)-([a-z]+)(-.*)?\.toml", path.name)
        verb = name[2] if name else path.name
        if name is None or verb not in VERBS or verb == "run":
            close = nearest(verb, VERBS)
            hint = f"did you mean {close}?" if close else f"the verbs are {', '.join(VERBS)}"
            raise ConfigError(f"{path}: expected a name like 2-pretrain.toml or 2-pretrain-wide.toml; {hint}")
        found.append((int(name[1]), path.name, verb, path))
    if not found:
        raise ConfigError(f"{folder}: no recipe (*.toml) in this folder; expected names like 2-pretrain.toml")
    return [(verb, path) for _, _, verb, path in sorted(found)]


def _by_verb(overrides: Mapping[str, list[str]], verbs: list[str]) -> dict[str, dict[str, list[str]]]:
    """`pretrain.train.steps` -> {"pretrain": {"train.steps": ...}}."""
    divided: dict[str, dict[str, list[str]]] = {verb: {} for verb in verbs}
    for name, words in overrides.items():
        verb, _, option = name.partition(".")
        if verb not in divided or not option:
            close = nearest(verb, [*verbs, "from", "ledger"])
            hint = f"did you mean --{close}{'.' if close in verbs else ''}?" if close else "--help lists the options"
            raise ConfigError(
                f"unknown option --{name}; an option of a stage is written --VERB.OPTION, "
                f"with VERB one of {', '.join(dict.fromkeys(verbs))}; {hint}"
            )
        divided[verb][option] = words
    return divided


def _fingerprint(verb: str, config: Config, before: str) -> str:
    kinds = {option.name: option.kind for option in options(type(config))}
    values = {name: value for name, value in flatten(config.resolved(), stop=kinds) if kinds.get(name) != "free"}
    return hashlib.sha256(json.dumps([verb, values, before], sort_keys=True).encode()).hexdigest()


def _read_ledger(path: Path) -> dict[str, str]:
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: cannot read which stages are complete: {why(error)}; delete this file to start over"
        ) from error
    return ledger if isinstance(ledger, dict) else {}


def _write_ledger(path: Path, ledger: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(ledger, indent=2) + "\n")
