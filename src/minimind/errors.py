"""The errors a person can fix, each one line that says what, where, what was expected and what to do next.

UserError                 anything the command line prints without a traceback
├── ConfigError           a recipe, a flag or a model configuration
├── DataError             a file with text or conversations, or the shards made from it
├── TokenizerError        a vocabulary that contradicts itself or does not fit
├── CheckpointError       a model folder or a training state
├── RunError              a run folder: in use, missing, written by another recipe
└── TrainingError         a run that cannot go on: no weight in a step, losses that stay NaN

A mistake of the programmer is an `assert`, never one of these.
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "RunError",
    "TokenizerError",
    "TrainingError",
    "UserError",
]


class UserError(Exception):
    """Something its reader can mend; the message is one line and complete."""


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
