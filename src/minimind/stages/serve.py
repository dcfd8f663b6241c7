"""`minimind serve MODEL`: answer OpenAI's clients, and a browser.

The address is this machine's own unless another is given, and then a key is wanted: whoever reaches a server can keep
it busy, and read what its model learnt.
"""

import errno
import ipaddress
import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import urlsplit

from minimind.config import REQUIRED, Config, Device, option
from minimind.errors import CheckpointError, ConfigError, install
from minimind.generation.sampling import Sampling
from minimind.storage.checkpoint import find_checkpoint, load_model
from minimind.terminal.notes import say

if TYPE_CHECKING:
    from minimind.generation.engine import Engine

__all__ = ["ServeConfig", "run"]

MIN_KEY_LENGTH = 16
MAX_NAMED = 5


class ServeConfig(Config):
    """Serve a model to OpenAI's clients and to a browser. What a request does not set is taken from [sampling]."""

    positional: ClassVar[str] = "model"

    model: Path = option(REQUIRED, "A run folder, a checkpoint, or a Hugging Face folder.")
    adapters: list[Path] = option([], "LoRA runs or PEFT folders, each served as a model of its own.")
    runs: Path | None = option(None, "A folder of runs that the page shows, also while they train.")
    name: str = option("", "What clients call the model; the last part of its path unless given.")
    host: str = option("127.0.0.1", "The address to listen on; any but this machine's own needs a key.")
    port: int = option(8000, "The port to listen on; 0 takes a free one.", ge=0, le=65535)
    hosts: list[str] = option([], "More names by which clients may call this server, such as gpu.lan.")
    origins: list[str] = option([], "Pages elsewhere that may call this server, such as http://localhost:3000.")
    key_env: str = option("MINIMIND_API_KEY", "The environment variable with the key clients have to show.")
    precision: Literal["fp32", "bf16", "int8"] = option("fp32", "Of the weights of all blocks.")
    context: int = option(4096, "Tokens of a prompt and its answer; at most the model's.", ge=2, le=1_000_000)
    max_rows: int = option(32, "Requests answered at once; others wait.", ge=1, le=1024)
    max_queue: int = option(256, "Requests that may wait; others are told to come later.", ge=1, le=100_000)
    prefill_tokens: int = option(256, "Tokens of prompts read in one step.", ge=2, le=65536)
    device: Device = option("cpu", "Where to compute.")
    sampling: Sampling = option(Sampling(max_tokens=512), "How tokens are drawn.")


def run(config: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ConfigError(f"serving needs fastapi and uvicorn; install them with: {install('serve')}") from None
    from minimind.serve.api import Service
    from minimind.serve.app import build_app, run_server
    from minimind.serve.guard import LOOPBACK, Policy
    from minimind.serve.runner import Runner

    if config.runs is not None and not config.runs.is_dir():
        raise ConfigError(f"runs: {config.runs} is no folder; name the one in which your runs lie, such as runs")
    key = _key(config)
    port = _free_port(config.host, config.port)
    # OpenMP's threads wait awake, which doubles the speed, only while there are no more of them than cores. A thread
    # takes those it called for along when it ends: so the engine's are the only ones.
    with ThreadPoolExecutor(1) as loader:
        engines = loader.submit(_load, config).result()
    hosts = (*LOOPBACK, config.host, socket.gethostname(), *config.hosts)
    policy = Policy(
        hosts={name.lower() for name in hosts},
        by_address=_is_everywhere(config.host),
        key=key,
        origins=_origins(config),
    )
    runner = Runner(engines)
    app = build_app(Service(runner, config.sampling), policy, runs=config.runs)
    say(_welcome(config, port, list(engines), has_key=key is not None))
    try:
        run_server(app, config.host, port)
    finally:
        # A second Ctrl-C leaves it running, and a process cannot end well in the middle of a step.
        runner.stop()


def _origins(config: ServeConfig) -> list[str]:
    """Errors: ConfigError for what no browser would send as an origin"""
    for origin in config.origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or not parts.netloc:
            raise ConfigError(f"origins: {origin!r}; expected a scheme, a name and a port, as http://localhost:3000")
    return config.origins


def _load(config: ServeConfig) -> dict[str, "Engine"]:
    """An engine by the name of each model. Errors: as `load_model`"""
    from minimind.generation.engine import Engine

    engines = {}
    for name, (folder, adapter) in _models(config).items():
        model, tokenizer = load_model(folder, adapter=adapter, device=config.device)
        engines[name] = Engine(
            model,
            tokenizer,
            max_rows=config.max_rows,
            capacity=config.context,
            max_queue=config.max_queue,
            prefill_tokens=config.prefill_tokens,
            precision=config.precision,
        )
    return engines


def _models(config: ServeConfig) -> Mapping[str, tuple[Path, Path | None]]:
    """Folder and adapter by the name that clients use."""
    models: dict[str, tuple[Path, Path | None]] = {}
    for adapter in (None, *config.adapters):
        folder = adapter or config.model
        try:
            find_checkpoint(folder)
        except CheckpointError as error:
            raise ConfigError(f"{error}{_runs_below(folder)}") from None
        name = (config.name if adapter is None else "") or folder.resolve().name
        if name in models:
            name = str(folder)
        if name in models:
            raise ConfigError(f"two models are called {name!r}; give each adapter once")
        models[name] = (config.model, adapter)
    return models


def _runs_below(folder: Path) -> str:
    """A hint for who names a folder of runs."""
    runs = sorted(str(path.parent) for path in folder.glob("*/checkpoints"))
    more = f" and {len(runs) - MAX_NAMED} more" if len(runs) > MAX_NAMED else ""
    return f"; the runs below it are {', '.join(runs[:MAX_NAMED])}{more}" if runs else ""


def _key(config: ServeConfig) -> str | None:
    """The key, which is optional on loopback. Errors: ConfigError"""
    key = os.environ.get(config.key_env) or None
    # No header carries any others, so nobody could show the key.
    if key is not None and not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"{config.key_env} has characters other than ASCII's letters, digits and signs; "
            f"export {config.key_env}=$(openssl rand -hex 32)"
        )
    if key is not None and len(key) < MIN_KEY_LENGTH:
        raise ConfigError(f"{config.key_env} has {len(key)} characters; expected at least {MIN_KEY_LENGTH}")
    if key is None and not _is_loopback(config.host):
        raise ConfigError(
            f"host {config.host} can be reached from other machines, which needs a key: "
            f"export {config.key_env}=$(openssl rand -hex 32)"
        )
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_everywhere(host: str) -> bool:
    """Does it stand for all addresses of this machine?"""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _free_port(host: str, port: int) -> int:
    """The port, once it is certain that it can be had: before the model is loaded. Errors: ConfigError"""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror}; choose another {option}"
            ) from None
        return probe.getsockname()[1]


def _own_address(everywhere: str) -> str:
    """An address by which a server that listens everywhere can be called: what a packet from here would bear."""
    family, far, near = (
        (socket.AF_INET6, "2001:db8::1", "::1") if ":" in everywhere else (socket.AF_INET, "192.0.2.1", "127.0.0.1")
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent.
            probe.connect((far, 9))
        except OSError:
            return near
        return probe.getsockname()[0]


def _welcome(config: ServeConfig, port: int, names: list[str], *, has_key: bool) -> str:
    """The address, and something to try."""
    host = _own_address(config.host) if _is_everywhere(config.host) else config.host
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{port}"
    shown = f" -H 'Authorization: Bearer '\"${config.key_env}\"" if has_key else ""
    body = f'{{"model": "{names[0]}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return "\n".join(
        [
            f"serving {', '.join(names)} at {address}/v1; Ctrl-C stops",
            f"open {address}/ in a browser, or try:",
            f"  curl {address}/v1/chat/completions -H 'Content-Type: application/json'{shown} -d '{body}'",
        ]
    )
