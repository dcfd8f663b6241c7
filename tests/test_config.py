"""Options of every shape survive a recipe, and every mistake is one line that says where it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, model_validator

from minimind.config import Config, describe, find_recipe, flatten, load, option, options, to_toml
from minimind.errors import ConfigError


@dataclass(frozen=True)
class Shape:
    """A shape."""

    width: Annotated[int, "numbers of a state, which the heads share"] = 64
    heads: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")


class Train(Config):
    steps: int = option(10, "Updates in all.", ge=1)
    lr: float = option(1e-3, "Peak rate.", gt=0, le=1)
    schedule: Literal["cosine", "linear"] = "cosine"
    compile: bool = False
    log_every: int = option(5, "Steps between lines.", kind="free")


class Data(Config):
    folder: Path = Path("data")
    shuffle: bool = True


class Adapter(Config):
    rank: int = 8


class Stage(Config):
    source: list[str]
    out: Path = Path("runs/x")
    limit: int | None = option(None, "At most so many.", ge=1)
    name: str = ""
    model: Shape = Shape(width=128)
    train: Train = Train(steps=20)
    data: Data = option(Data(), "What is read.", kind="data")
    adapter: Adapter | None = None
    mix: dict[str, float] = option({}, "Shares by name.")

    @model_validator(mode="after")
    def _lucky(self) -> "Stage":
        if self.train.steps == 13:
            raise ValueError("13 steps bring bad luck; expected another number")
        return self


class Open(Config):
    rest = "others"
    known: int = 1
    others: dict[str, list[str]] = option({}, "The rest.")


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(*arguments: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(Stage, *arguments)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'source = ["a"]\n[train]\nsteps = 30\nlr = 0.5\n')
    config = load(Stage, path, {"train.lr": "0.25", "source": ["b", "c"]})
    assert (config.train.steps, config.train.lr, config.train.log_every) == (30, 0.25, 5)
    assert config.source == ["b", "c"]


def test_a_section_given_in_part_keeps_the_defaults_of_its_stage() -> None:
    config = load(Stage, None, {"source": "a", "train.lr": "0.1", "model.heads": "8"})
    assert config.train.steps == 20
    assert config.model == Shape(width=128, heads=8)


def test_flags_are_read_by_the_type_of_their_option() -> None:
    words = {"source": "a", "train.compile": [], "data.shuffle": "false", "limit": "none", "name": "none", "out": "o"}
    config = load(Stage, None, words | {"mix.wiki": "0.5", "train.schedule": "linear"})
    assert config.train.compile and not config.data.shuffle
    assert (config.limit, config.name, config.out) == (None, "none", Path("o"))
    assert config.mix == {"wiki": 0.5}
    assert config.train.schedule == "linear"


def test_dashes_and_underscores_are_the_same_in_a_flag() -> None:
    assert load(Stage, None, {"source": "a", "train.log-every": "7"}).train.log_every == 7


def test_an_optional_section_is_on_when_it_is_named(tmp_path: Path) -> None:
    assert load(Stage, None, {"source": "a"}).adapter is None
    assert load(Stage, None, {"source": "a", "adapter.rank": "4"}).adapter == Adapter(rank=4)
    path = recipe(tmp_path, 'source = ["a"]\n[adapter]\n')
    assert load(Stage, path).adapter == Adapter()
    assert load(Stage, path, {"adapter": "none"}).adapter is None
    path = recipe(tmp_path, 'source = ["a"]\nadapter = "none"\n')
    assert load(Stage, path).adapter is None
    assert load(Stage, path, {"adapter.rank": "4"}).adapter == Adapter(rank=4)


@given(
    source=st.lists(st.text(), max_size=3),
    limit=st.none() | st.integers(1, 2**62),
    lr=st.floats(0, 1, exclude_min=True),
    name=st.text(),
    rank=st.none() | st.integers(-5, 5),
    mix=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)
def test_a_config_written_as_toml_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    source: list[str],
    limit: int | None,
    lr: float,
    name: str,
    rank: int | None,
    mix: dict[str, float],
) -> None:
    adapter = None if rank is None else Adapter(rank=rank)
    config = Stage(source=source, limit=limit, train=Train(lr=lr), name=name, adapter=adapter, mix=mix)
    path = tmp_path_factory.getbasetemp() / "round.toml"
    path.write_text(to_toml(config.resolved()), encoding="utf-8", newline="")
    assert load(Stage, path) == config


def test_a_wrong_name_is_answered_with_the_nearest_one_and_its_line(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'source = ["a"]\n\n[train]\nlr = 0.1\nstpes = 3\n')
    assert problems(path) == [f"{path}:5: unknown key 'train.stpes'; did you mean 'train.steps'?"]
    assert problems(None, {"source": "a", "steps": "3"}) == ["unknown option --steps; did you mean --train.steps?"]
    assert problems(None, {"source": "a", "learning_rate": "3"}) == [
        "unknown option --learning_rate; did you mean --train.lr (Peak rate.)?"
    ]


def test_a_wrong_value_says_what_was_expected(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'source = ["a"]\ntrain.steps = "4"\n[data]\nfolder = 3\n')
    assert problems(path) == [
        f"{path}:2: train.steps: got '4'; expected int at least 1",
        f"{path}:4: data.folder: got 3; expected path",
    ]
    assert problems(None, {"source": "a", "train.lr": "2", "train.schedule": "flat", "limit": "x"}) == [
        "--train.lr: got '2'; expected number above 0 and at most 1",
        "--train.schedule: got 'flat'; expected one of cosine, linear",
        "--limit: got 'x'; expected int at least 1 or none",
    ]


def test_a_missing_option_is_named_and_a_wrong_one_is_not_missing(tmp_path: Path) -> None:
    assert len(problems(recipe(tmp_path, "source = 3"))) == 1
    assert problems() == ["source is missing: set it in a recipe or with --source; expected list of text"]


def test_a_section_is_no_value(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'source = ["a"]\nadapter = 3\n')
    assert problems(path) == [f"{path}:2: unknown key 'adapter'; 'adapter' is a section, with adapter.rank"]


def test_rules_between_options_name_the_place(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'source = ["a"]\n[model]\nwidth = 30\n')
    assert problems(path) == [f"{path}:3: model.width: width 30 is no multiple of heads 4"]
    assert problems(None, {"source": "a", "train.steps": "13"}) == ["13 steps bring bad luck; expected another number"]


def test_a_broken_or_missing_recipe_is_named_with_its_line(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.toml") == [
        f"{tmp_path}/none.toml: cannot read this recipe: No such file or directory"
    ]
    path = recipe(tmp_path, "a = 1\nb = = 2\n")
    assert "line 2" in problems(path)[0]


def test_a_recipe_that_is_not_here_is_looked_up_among_those_that_come_with_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = find_recipe(Path("quickstart/3-pretrain.toml"))
    assert ours.is_file() and find_recipe(Path("recipes/quickstart/3-pretrain.toml")) == ours
    Path("quickstart").mkdir()
    assert find_recipe(Path("quickstart")) == Path("quickstart")
    assert find_recipe(Path("nowhere")) == Path("nowhere")


def test_open_configs_gather_unknown_flags() -> None:
    assert load(Open, None, {"known": "2", "pretrain.lr": ["0.1"]}) == Open(known=2, others={"pretrain.lr": ["0.1"]})


def test_a_config_is_frozen_and_closed() -> None:
    with pytest.raises(ValidationError):
        Adapter(rank=1).rank = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Adapter(ranks=1)  # type: ignore[call-arg]


def test_a_section_hands_its_kind_to_its_options() -> None:
    kinds = {option.name: option.kind for option in options(Stage)}
    assert (kinds["data.folder"], kinds["train.log_every"], kinds["train.lr"]) == ("data", "free", "math")


def test_types_are_described_in_words() -> None:
    words = {option.name: describe(option.type) for option in options(Stage)}
    assert words["limit"] == "int at least 1 or none"
    assert words["source"] == "list of text"
    assert words["train.compile"] == "true or false"
    assert words["mix"] == "table"


def test_a_dataclass_describes_its_options_beside_their_types() -> None:
    found = {option.name: option for option in options(Stage)}["model.width"]
    assert (found.description, found.type) == ("numbers of a state, which the heads share", int)


def test_another_default_in_a_subclass_keeps_the_words_and_the_kind() -> None:
    class Patient(Train):
        log_every: int = 50

    found = {option.name: option for option in options(Patient)}["log_every"]
    assert (found.default, found.description, found.kind) == (50, "Steps between lines.", "free")


def test_flatten_stops_where_it_is_told() -> None:
    assert dict(flatten({"a": {"b": 1, "c": {"d": 2}}}, stop=["a.c"])) == {"a.b": 1, "a.c": {"d": 2}}
