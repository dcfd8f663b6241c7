"""One model of settings per stage checks the recipe, the flags and the run folder: defaults < recipe < flags.

A stage declares a frozen `Config` whose fields are its options; a field that is itself a `Config` (or a frozen
dataclass) is a section, so `train: TrainConfig` gives the option `train.steps`, written `[train] steps = 100` in a
recipe and `--train.steps 100` on the command line. `load` answers every mistake with one line that names the file and
the line or the flag, what was found and what was expected. Relative paths, in recipes too, start at the current folder.

An option is declared once, with all there is to say of it: `steps: int = option(100, "Updates in all.", ge=1)`. In a
dataclass, which knows of no options, the words stand beside the type: `rank: Annotated[int, "Inner width."] = 8`. A
subclass that sets another default keeps the words and the kind. The kind is that of the section around it, or one of

    math    (default) changes the numbers of a run: it may not change when the run is resumed
    data    changes which samples a run sees: it may not change either
    free    changes neither, such as a logging cadence

Read `stages/tokenizer.py` for a small example, `run.py` for what a kind is used for.
"""

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from minimind.errors import ConfigError
from minimind.suggestions import MEANINGS, nearest

__all__ = [
    "REQUIRED",
    "Config",
    "Device",
    "Option",
    "describe",
    "find_recipe",
    "flatten",
    "load",
    "option",
    "options",
    "to_toml",
]

REQUIRED: Any = object()
# The recipes that come with the program.
RECIPES = Path(__file__).with_name("recipes")


def _require_device(name: str) -> str:
    """Errors: ValueError for a GPU where there is none, at the start, before anything is read"""
    if name == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("auto or cpu: torch finds no CUDA device on this machine")
    return name


Device = Annotated[Literal["auto", "cpu", "cuda"], AfterValidator(_require_device)]


class Config(BaseModel):
    """The base of every stage's settings and of their sections.

    positional:  the option that takes the words after the verb, as in `minimind chat FOLDER`
    rest:        the option, a dict of lists of text, that gathers flags which are no option of this class
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    positional: ClassVar[str] = ""
    rest: ClassVar[str] = ""

    def resolved(self) -> dict[str, Any]:
        """Every option with its value, as nested JSON values."""
        return self.model_dump(mode="json", by_alias=True)


def option(default: Any, description: str, *, kind: Literal["", "math", "data", "free"] = "", **bounds: Any) -> Any:
    """An option of a Config; `bounds` are pydantic's: ge, lt, min_length, and alias for a word that is Python's own."""
    value = ... if default is REQUIRED else default
    return Field(value, description=description, json_schema_extra={"kind": kind}, **bounds)


@dataclasses.dataclass(frozen=True)
class Option:
    """A leaf of a config.

    name:         dotted, as in train.steps
    type:         with its bounds, as `Annotated`
    default:      REQUIRED where there is none
    section_off:  the section around it that is None unless one of its options is given, or ""
    """

    name: str
    type: Any
    default: Any
    description: str = ""
    kind: str = "math"
    section_off: str = ""


_C = TypeVar("_C", bound=Config)


def load(
    config_class: type[_C], recipe: Path | str | None = None, overrides: Mapping[str, str | Sequence[str]] | None = None
) -> _C:
    """Defaults, then the recipe, then `overrides` (dotted name -> the words given on the command line).

    Raises ConfigError with one line for each problem found.
    """
    loader = _Loader(config_class)
    if recipe is not None:
        loader.read(find_recipe(Path(recipe)))
    for name, words in (overrides or {}).items():
        loader.override(name, [words] if isinstance(words, str) else list(words))
    return loader.build(config_class)


def options(config_class: type, *, defaults: Any = None, prefix: str = "", kind: str = "math") -> Iterator[Option]:
    """The options of a config class in the order of declaration, sections opened.

    defaults:  an instance whose values stand in for the class's defaults
    """
    for name, type_, default, description, own_kind in _fields(config_class, defaults):
        section = _section(type_)
        if section is None:
            yield Option(prefix + name, type_, default, description, own_kind or kind)
            continue
        instance = None if default is REQUIRED else default
        off = prefix + name if default is None else ""
        for option in options(section, defaults=instance, prefix=f"{prefix}{name}.", kind=own_kind or kind):
            yield dataclasses.replace(option, section_off=off or option.section_off)


def describe(type_: Any) -> str:
    """A type in a newcomer's words: `int at least 1`, `one of cosine, linear`, `list of path`."""
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        bounds = [text.format(getattr(m, name)) for m in arguments[1:] for name, text in _BOUNDS if hasattr(m, name)]
        first, *others = (describe(member) for member in _bare(type_))
        return " or ".join([f"{first} {' and '.join(bounds)}".strip(), *others])
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin in (list, tuple, set, Sequence):
        return f"list of {describe(arguments[0])}" if arguments else "list"
    if origin is dict or type_ is dict:
        return "table"
    return _WORDS.get(type_, getattr(type_, "__name__", str(type_)).lower())


def find_recipe(path: Path) -> Path:
    """The file or folder of that name; where there is none, the program's own, such as quickstart or 26m/5-sft.toml."""
    own = RECIPES / (path.relative_to("recipes") if path.parts[:1] == ("recipes",) else path)
    return own if not path.exists() and own.exists() else path


def flatten(values: Mapping[str, Any], *, stop: Iterable[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as dotted names with values; a name in `stop` is a value even when it is a table."""
    for key, value in values.items():
        name = prefix + key
        if isinstance(value, dict) and value and name not in stop:
            yield from flatten(value, stop=stop, prefix=name + ".")
        else:
            yield name, value


def to_toml(values: Mapping[str, Any], *, section: str = "") -> str:
    """Nested values as TOML that `load` reads back to an equal config; None is written as "none"."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [f"[{section}]"] if section and (plain or not values) else []
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    parts = ["\n".join(lines) + "\n"] if lines else []
    for key, value in values.items():
        if isinstance(value, Mapping):
            parts.append(to_toml(value, section=f"{section}.{_key(key)}" if section else _key(key)))
    return "\n".join(part for part in parts if part)


_WORDS = {int: "int", float: "number", bool: "true or false", str: "text", Path: "path", NoneType: "none", Any: "value"}
_BOUNDS = [
    ("ge", "at least {}"),
    ("gt", "above {}"),
    ("le", "at most {}"),
    ("lt", "below {}"),
    ("multiple_of", "a multiple of {}"),
    ("min_length", "({} or more)"),
]


class _Loader:
    """Collects values by dotted name, with where each came from, and every problem on the way."""

    def __init__(self, config_class: type[Config]) -> None:
        self.options = {option.name: option for option in options(config_class)}
        self.sections = {name.rpartition(".")[0] for name in self.options} - {""}
        self.sections |= {section.rpartition(".")[0] for section in self.sections} - {""}
        self.rest = config_class.rest
        self.given: dict[str, Any] = {}
        self.origin: dict[str, str] = {}
        self.switched: dict[str, bool] = {}
        self.failed: set[str] = set()
        self.problems: list[str] = []

    def read(self, path: Path) -> None:
        try:
            text = path.read_bytes().decode("utf-8-sig")
            recipe = tomllib.loads(text)
        except OSError as error:
            raise ConfigError(f"{path}: cannot read this recipe: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a TOML file: {error}") from error
        for name, value in flatten(recipe, stop=self.options):
            line = _line_of(text, name)
            place = f"{path}:{line}" if line else str(path)
            if name in self.options:
                self._take(name, value, f"{place}: {name}", as_text=False)
            elif name in self.sections and value in ({}, "none"):
                self.switched[name] = value == {}
            else:
                self._unknown(f"{place}: unknown key '{name}'", name, "'")

    def override(self, name: str, words: list[str]) -> None:
        name = name.replace("-", "_")
        table = next((key for key in self.options if name.startswith(key + ".")), self.rest)
        if name in self.options:
            self._take(name, words, f"--{name}", as_text=True)
        elif table and name not in self.sections:
            entry = name.removeprefix(table + ".")
            value = words if self.rest == table or len(words) != 1 else words[0]
            self.given[table] = {**self.given.get(table, {}), entry: value}
            self.origin[table] = f"--{name}"
        elif name in self.sections and words == ["none"]:
            self.switched[name] = False
        else:
            self._unknown(f"unknown option --{name}", name, "--")

    def build(self, config_class: type[_C]) -> _C:
        nested: dict[str, Any] = {}
        switched = {off: self._named(off) for off in (o.section_off for o in self.options.values()) if off}
        switched |= self.switched
        off = tuple(f"{section}." for section, on in switched.items() if not on)
        nested.update({section.removesuffix("."): None for section in off})
        for name, option in self.options.items():
            if name.startswith(off):
                continue
            if name in self.given:
                _put(nested, name, self.given[name])
            elif option.default is not REQUIRED:
                _put(nested, name, option.default)
            elif name not in self.failed:
                problem = f"{name} is missing: set it in a recipe or with --{name}"
                self.problems.append(f"{problem}; expected {describe(option.type)}")
        if self.problems:
            raise ConfigError("\n".join(self.problems))
        try:
            return config_class.model_validate(nested)
        except ValidationError as error:
            raise ConfigError("\n".join(self._explain(problem) for problem in error.errors())) from error

    def _take(self, name: str, value: Any, origin: str, *, as_text: bool) -> None:
        type_ = self.options[name].type
        try:
            self.given[name] = _from_words(type_, value) if as_text else _from_toml(type_, value)
            self.origin[name] = origin
            # An option given after its section was switched off, as by a flag after the recipe, switches it on.
            self.switched |= dict.fromkeys(
                (section for section in self.switched if name.startswith(f"{section}.")), True
            )
        except ValidationError as error:
            self.failed.add(name)
            shown = " ".join(value) if as_text else value
            own = [e["msg"].removeprefix("Value error, ") for e in error.errors() if e["type"] == "value_error"]
            self.problems.append(f"{origin}: got {shown!r}; expected {own[0] if own else describe(type_)}")

    def _unknown(self, problem: str, name: str, mark: str) -> None:
        close = nearest(name, self.options)
        end = "'" if mark == "'" else ""
        if name in self.sections:
            inside = [other for other in self.options if other.startswith(name + ".")]
            hint = f"'{name}' is a section, with {', '.join(inside[:5])}{', ...' if len(inside) > 5 else ''}"
        else:
            # What is called otherwise elsewhere may count otherwise, too.
            told = f" ({self.options[close].description})" if close and name.rpartition(".")[2] in MEANINGS else ""
            hint = f"did you mean {mark}{close}{end}{told}?" if close else "--help lists the options, none is like it"
        self.problems.append(f"{problem}; {hint}")

    def _explain(self, problem: Any) -> str:
        name = ".".join(map(str, problem["loc"]))
        while name and name not in self.options and name not in self.sections:
            name = name.rpartition(".")[0]
        inside = [where for given, where in self.origin.items() if given == name or given.startswith(name + ".")]
        place = inside[0] if name and inside else name
        return f"{place}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")

    def _named(self, section: str) -> bool:
        return any(name.startswith(section + ".") for name in self.given)


def _fields(config_class: type, defaults: Any) -> Iterator[tuple[str, Any, Any, str, str]]:
    """Name, type, default, description and own kind of each field of a Config or a dataclass."""
    if dataclasses.is_dataclass(config_class):
        hints = get_type_hints(config_class, include_extras=True)
        for field in dataclasses.fields(config_class):
            value = field.default_factory() if callable(field.default_factory) else field.default
            default = REQUIRED if value is dataclasses.MISSING else value
            type_, *words = (
                get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else (hints[field.name],)
            )
            yield field.name, type_, getattr(defaults, field.name, default), " ".join(words), ""
        return
    assert issubclass(config_class, BaseModel), config_class
    for name, field in config_class.model_fields.items():
        default = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        # An annotation is rebuilt with its bounds, so that an option can be checked alone.
        type_ = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        declared = [
            base.model_fields[name] for base in config_class.__mro__ if name in getattr(base, "model_fields", ())
        ]
        told = next((one for one in declared if one.description), field)
        extra = told.json_schema_extra if isinstance(told.json_schema_extra, dict) else {}
        default = getattr(defaults, name, default)
        yield field.alias or name, type_, default, told.description or "", str(extra.get("kind", ""))


def _section(type_: Any) -> type | None:
    """The Config or dataclass that a type, or its part beside None, stands for."""
    candidates = get_args(type_) if get_origin(type_) in (Union, UnionType) else [type_]
    for candidate in candidates:
        if isinstance(candidate, type) and (issubclass(candidate, BaseModel) or dataclasses.is_dataclass(candidate)):
            return candidate
    return None


def _bare(type_: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself, without bounds."""
    if get_origin(type_) is Annotated:
        return _bare(get_args(type_)[0])
    return get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)


def _from_words(type_: Any, words: list[str]) -> Any:
    """The words of a flag as a value: none, one or several of them for a list, exactly one otherwise."""
    bare = _bare(type_)
    if NoneType in bare and words == ["none"]:
        return None
    if not words and bool in bare:
        return True
    many = any((get_origin(member) or member) in (list, tuple, set, Sequence) for member in bare)
    return TypeAdapter(type_).validate_python(words if many or not words else " ".join(words))


def _from_toml(type_: Any, value: Any) -> Any:
    """A value of a recipe; no text passes for a number, no number for a text."""
    if NoneType in _bare(type_) and value == "none":
        return None
    return TypeAdapter(type_).validate_json(json.dumps(value, default=str), strict=True)


def _put(nested: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        nested = nested.setdefault(section, {})
    nested[last] = value


def _line_of(text: str, name: str) -> int | None:
    """The line of a TOML text that sets `name`; None where it is written in a rarer way (inline tables)."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = header[1].replace('"', "") + "."
        elif (key := re.match(r'\s*([\w."-]+)\s*=', line)) and table + key[1].replace('"', "") == name:
            return number
    return None


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    match value:
        case None:
            return '"none"'
        case bool():
            return str(value).lower()
        case str():
            # TOML's basic strings are JSON's, except that TOML also wants the delete character escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    return repr(value)
