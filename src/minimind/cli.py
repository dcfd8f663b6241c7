"""The command line: `minimind VERB [recipe.toml] [--option value ...]`.

A verb is a module of `stages/`; its config class says which options there are (`config.py`), so this file knows none.
A mistake of the user is a line on stderr and exit code 2, an error of the program keeps its traceback. Nothing heavy is
imported before a verb runs: `minimind --help` has to answer at once.
"""

import difflib
import errno
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from minimind import __version__
from minimind.errors import ConfigError, UserError
from minimind.stages import VERBS, load_stage
from minimind.terminal.notes import note, say, say_error

if TYPE_CHECKING:
    from minimind.config import Config, Option

__all__ = ["main", "parse"]

_HELP = ("-h", "--help")
_WIDTH = 100
# What a user can mend, wherever it is met.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0, 2 for a mistake of the user, 130 for Ctrl-C."""
    try:
        _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except UserError as error:
        say_error(str(error))
        return 2
    except KeyboardInterrupt:
        note("stopped by Ctrl-C")
        return 130
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has left; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        say_error(f"{place}{error.strerror}; make room, and give the same command again")
        return 2
    return 0


def parse(verb: str, words: Sequence[str]) -> "Config":
    """The config of a verb from the words that follow it on the command line."""
    from minimind.config import load, options

    config_class, _ = load_stage(verb)
    names = {option.name for option in options(config_class)}
    recipe, flags = _split(words, names, config_class.positional)
    return load(config_class, recipe, flags)


def _dispatch(arguments: list[str]) -> None:
    verb, *words = arguments or ["--help"]
    if verb in _HELP or verb == "help":
        say(_overview())
    elif verb == "--version":
        say(f"minimind {__version__}")
    elif verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]}?" if close else f"the verbs are {', '.join(VERBS)}"
        raise ConfigError(f"unknown verb '{verb}'; {hint}")
    elif any(word in _HELP for word in words):
        _print_help(verb)
    else:
        config = parse(verb, words)
        load_stage(verb)[1](config)


def _split(words: Sequence[str], names: Iterable[str], positional: str) -> tuple[str | None, dict[str, list[str]]]:
    """The recipe, and each option with the words given for it: `[recipe.toml] [WORD ...] [--name [WORD ...] ...]`."""
    recipe: str | None = None
    flags: dict[str, list[str]] = {}
    name = positional
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name, implied = _negated(name.replace("-", "_"), names)
            if name in flags:
                raise ConfigError(f"--{name} is given twice; write several values of a list after one --{name}")
            flags[name] = [value] if equals else implied
        # A verb about recipes takes one as its argument, whose options are then not its own.
        elif recipe is None and not flags and word.endswith(".toml") and positional != "recipe":
            recipe = word
        elif name:
            flags.setdefault(name, []).append(word)
        else:
            raise ConfigError(f"unexpected word '{word}'; expected a recipe (.toml) or --option value")
    return recipe, flags


def _negated(name: str, names: Iterable[str]) -> tuple[str, list[str]]:
    """`no_train.recompute` and `train.no_recompute` as ("train.recompute", ["false"]), other names as they are."""
    section, dot, last = name.rpartition(".")
    for positive in (name.removeprefix("no_"), f"{section}{dot}{last.removeprefix('no_')}"):
        if name not in names and positive != name and positive in names:
            return positive, ["false"]
    return name, []


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "minimind: train a small language model from raw text to a chat, and look inside every step",
            "",
            "usage: minimind VERB [recipe.toml] [--option value ...]",
            "",
            *verbs,
            "",
            "start here:      minimind run quickstart",
            "help on a verb:  minimind VERB --help",
            "version:         minimind --version",
        ]
    )


def _print_help(verb: str) -> None:
    """All options of a verb, grouped by section, with description, type and default."""
    from rich.console import Console
    from rich.text import Text

    from minimind.config import options

    config_class, _ = load_stage(verb)
    console = Console(width=min(_WIDTH, Console().width), highlight=False)
    first = "" if config_class.positional == "recipe" else " [recipe.toml]"
    word = f" [{config_class.positional.upper()}]" if config_class.positional else ""
    console.print(Text(f"minimind {verb}: {VERBS[verb].summary}\n", style="bold"))
    console.print(Text(f"usage: minimind {verb}{first}{word} [--option value ...]\n"))
    if config_class.__doc__:
        console.print(Text(" ".join(config_class.__doc__.split()) + "\n"))
    sections: dict[str, list[Option]] = {}
    for option in options(config_class):
        sections.setdefault(option.name.rpartition(".")[0], []).append(option)
    for section, members in sections.items():
        # A section of options that is not in use without one of them must not look as if its defaults held.
        off = "  off unless one of its options is given" if members[0].section_off else ""
        console.print(Text.assemble((f"[{section}]" if section else "options", "bold"), (off, "dim")))
        console.print(_table(members, config_class.rest))
    _print_end(console, VERBS[verb].examples)


def _print_end(console: Any, examples: Iterable[str]) -> None:
    from rich.text import Text

    console.print(Text("examples", style="bold"))
    for example in examples:
        console.print(Text(f"  {example}"), soft_wrap=True)
    console.print(
        Text(
            "\nOptions may stand in a recipe (TOML) under the same names; the command line wins. A list takes several "
            "words, true or false is written --name or --no-name, relative paths start at the current folder.",
            style="dim",
        )
    )


def _table(options: "list[Option]", rest: str) -> Any:
    from rich.table import Table
    from rich.text import Text

    from minimind.config import REQUIRED, describe

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for option in options:
        required = "needed then" if option.section_off else "required"
        default = required if option.default is REQUIRED else f"default {_shown(option.default)}"
        kind = "" if option.name == rest else f" [{describe(option.type)}, {default}]"
        name = "--VERB.OPTION" if option.name == rest else f"--{option.name}"
        table.add_row(Text(f"  {name}", style="cyan"), Text.assemble(option.description, (kind, "dim")))
    table.add_row("", "")
    return table


def _shown(default: Any) -> str:
    match default:
        case None:
            return "none"
        case bool():
            return str(default).lower()
        case list() | tuple():
            return " ".join(map(str, default)) or "nothing"
        case "":
            return '""'
    return str(default)
