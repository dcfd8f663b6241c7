"""`minimind completion SHELL`: a script with which bash, zsh or fish completes verbs and options.

The options are those of the installed version, written out: a Tab must not wait for torch to be imported.
"""

from collections.abc import Iterable
from typing import ClassVar, Literal

from minimind.config import REQUIRED, Config, option, options
from minimind.stages import VERBS, load_stage
from minimind.terminal.notes import say

__all__ = ["CompletionConfig", "run"]

# zsh reads bash's way of completing, once it is told to. Words that are no option are completed as files.
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
BASH = """\
_minimind() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=
    if [ "$COMP_CWORD" = 1 ]; then
        words="{verbs}"
    elif [[ "$word" == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _minimind minimind
"""


class CompletionConfig(Config):
    """Print a script, to be kept where the shell looks, anew after an update: for bash in the file
    ~/.local/share/bash-completion/completions/minimind, for fish in ~/.config/fish/completions/minimind.fish, for zsh
    in a file that .zshrc sources."""

    positional: ClassVar[str] = "shell"

    shell: Literal["bash", "zsh", "fish"] = option(REQUIRED, "The shell that you type in.")


def run(config: CompletionConfig) -> None:
    """Print, and change nothing."""
    flags = {verb: [f"--{found.name}" for found in options(load_stage(verb)[0])] for verb in VERBS}
    if config.shell == "fish":
        say("\n".join(_fish(flags)))
        return
    cases = "\n".join(f'            {verb}) words="{" ".join([*found, "--help"])}" ;;' for verb, found in flags.items())
    script = BASH.format(verbs=" ".join(VERBS), cases=cases)
    say((ZSH if config.shell == "zsh" else "") + script.rstrip("\n"))


def _fish(flags: dict[str, list[str]]) -> Iterable[str]:
    for verb, found in flags.items():
        summary = VERBS[verb].summary.replace("'", r"\'")
        yield f"complete -c minimind -n __fish_use_subcommand -f -a {verb} -d '{summary}'"
        for flag in (*found, "--help"):
            yield f"complete -c minimind -n '__fish_seen_subcommand_from {verb}' -l {flag.removeprefix('--')}"
