"""Rewards from elsewhere: a Python function of the user's, or an HTTP endpoint such as a reward model behind a server.

Whatever goes wrong in them is an exception here; `rewards.py` turns it into a dropped sample with a reason.
"""

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from minimind.errors import ConfigError
from minimind.rl.rollouts import Outcome

__all__ = ["http_reward", "import_reward"]

MAX_REPLY_BYTES = 1 << 16


def import_reward(name: str) -> Callable[[Outcome], float]:
    """The function `package.module:function`, from the working directory or installed. Errors: ConfigError

    Importing runs the module: it is the user's own code, as trusted as the user.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    # It stays, behind all else: the function may import a neighbour only when it is called.
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the reward {name!r} cannot be imported: {error}; it is looked for among the installed packages and in "
            f"the working directory, {here}"
        ) from error
    except Exception as error:
        raise ConfigError(f"the reward {name!r} fails on import: {type(error).__name__}: {error}") from error
    function: Callable[[Outcome], float] | None = getattr(module, function_name, None)
    if not callable(function):
        file = getattr(module, "__file__", None) or module_name
        found = "is not there" if function is None else f"is a {type(function).__name__}, not a function"
        raise ConfigError(f"the reward {name!r}: {function_name} {found} in {file}")
    _require_one_argument(name, function)
    return function


def _require_one_argument(name: str, function: Callable[..., object]) -> None:
    """Rewards of other programs take lists of completions: better told now than by the first answer."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # What is written in C may not tell.
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise ConfigError(
            f"the reward {name!r} is {name.partition(':')[2]}{signature}; expected a function of one argument, the "
            "Outcome: outcome.answer.content is the text, outcome.prompt.gt what is right"
        ) from error


def http_reward(url: str, timeout_seconds: float) -> Callable[[Outcome], float]:
    """Asks an endpoint: POST `{"messages", "answer", "gt"}`, answered by `{"reward": 0.5}`. Errors: ConfigError

    timeout_seconds:  without any byte from the other side; `rewards.py` limits the whole of a call
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"the reward {url!r} is no address; expected such as https://host:port/path")

    def ask(outcome: Outcome) -> float:
        body = json.dumps(outcome.to_dict(), ensure_ascii=False).encode()
        request = Request(url, body, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=timeout_seconds) as reply:
                data = reply.read(MAX_REPLY_BYTES)
        except HTTPError as error:
            with error:
                said = error.read(200).decode(errors="replace")
            raise ValueError(f"status {error.code}: {said}") from error
        except URLError as error:
            # Without this a connection that times out would count as one that is refused.
            raise (error.reason if isinstance(error.reason, TimeoutError) else error) from error
        return _read_reward(data)

    return ask


def _read_reward(data: bytes) -> float:
    try:
        return json.loads(data)["reward"]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = data[:100].decode(errors="replace")
        raise ValueError(f'expected {{"reward": number}}, got {said!r}') from None
