"""The errors a person can fix, each one line that says what, where, what was expected and what to do next.

UserError                 anything the command line prints without a traceback
├── ConfigError           a recipe, a flag or a model configuration
├── DataError             a file with text or conversations, or the shards made from it
├── TokenizerError        a vocabulary that contradicts itself or does not fit
├── CheckpointError       a model folder or a training state
├── RunError              a run folder: in use, missing, written by another recipe
└── TrainingError         a run that cannot go on: no weight in a step, losses that stay NaN

A mistake of the programmer is an `assert`, never one of these. A message may hold what a stranger wrote, the name of a
file or of a tensor; it is made printable there, as it is wherever else it is shown.
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "RunError",
    "TokenizerError",
    "TrainingError",
    "UserError",
    "install",
    "printable",
    "why",
]

# What pip knows this package by; it is imported as minimind.
DISTRIBUTION = "minimind-lm"

# Control characters but newline and tab, halves of characters, and marks that turn the direction of what follows.
SHOWN = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {0x7F: 0x2421}
SHOWN |= dict.fromkeys([*range(0x80, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)
SHOWN |= dict.fromkeys([*range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD)


def printable(text: str) -> str:
    """Text of a stranger as a terminal or a page may show it: nothing in it clears the screen or forges a line."""
    return text.translate(SHOWN)


def why(error: Exception) -> str:
    """A reason in words: an operating system's without its number and its path, which the message has already."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def install(extra: str) -> str:
    """The command that brings what an optional part needs."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class UserError(Exception):
    """Something its reader can mend; the message is one line and complete."""

    def __init__(self, message: object) -> None:
        super().__init__(printable(str(message)))


class ConfigError(UserError):
    """A recipe, a flag or a model configuration is wrong."""


class DataError(UserError):
    """A data file or a shard is wrong; the message starts with `path:line:` where there is a line."""


class TokenizerError(UserError):
    """A tokenizer contradicts itself, or does not fit the data or the model."""


class CheckpointError(UserError):
    """A model folder or a training state is missing, torn or of another shape."""


class RunError(UserError):
    """A run folder is in use, or belongs to another configuration."""


class TrainingError(UserError):
    """Training cannot go on, and says why."""
