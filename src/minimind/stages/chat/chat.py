"""`minimind chat MODEL`: talk with a model or a server in the terminal, or through a pipe with one question per line.

Ctrl-C stops an answer and not the program, Ctrl-D leaves. Lines that begin with / are commands; `/help` lists them.
`dialogue.py` holds the conversation, `terminal.py` shows it, `local_answers.py` and `remote_answers.py` answer;
docs/chat.md is for users.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from minimind.config import Config, Device, option
from minimind.errors import ConfigError, UserError
from minimind.generation.sampling import Sampling
from minimind.remote.endpoint import Endpoint
from minimind.stages.chat.adapters import NO_ADAPTER, Adapters
from minimind.stages.chat.dialogue import Answerer, Dialogue
from minimind.stages.chat.local_answers import LocalAnswerer
from minimind.stages.chat.remote_answers import RemoteAnswerer
from minimind.stages.shared.typed_lines import typed_lines
from minimind.storage.checkpoint import load_model
from minimind.suggestions import nearest
from minimind.terminal.screen import Screen
from minimind.tools.builtin import TOOLS

__all__ = ["ChatConfig", "run"]


@dataclass(frozen=True)
class _Server(Endpoint):
    # --url may stand for it.
    url: Annotated[str, "Such as https://host/v1."] = ""


class ChatConfig(Config):
    """Talk with a model, or with a server that answers as OpenAI's does: vLLM, SGLang, llama.cpp, `minimind serve`.
    Piped input is answered line by line, without a prompt or colours."""

    positional: ClassVar[str] = "model"

    model: Path | None = option(None, "A run folder, a checkpoint, or a Hugging Face folder.")
    url: str = option("", "A server that answers in place of a model here, such as https://host/v1.")
    endpoint: _Server | None = option(None, "More to say of the server; its url may stand here, too.")
    adapters: list[Path] = option(
        [], "LoRA runs or PEFT folders; the first is in use until /adapter chooses another, or none."
    )
    system: str = option("", "The system prompt.")
    thinking: bool = option(False, "Let the model think before it answers.")
    tools: list[str] = option([], f"Tools the model may call: {', '.join(TOOLS)}.")
    max_rounds: int = option(5, "How often the model may call tools in one turn.", ge=1)
    history: Path | None = option(None, "A file that keeps what you typed, for the arrow keys next time.")
    device: Device = option("auto", "Where to compute.")
    sampling: Sampling = option(Sampling(max_tokens=512), "How answers are drawn.")


def run(config: ChatConfig) -> None:
    """Talk until the input ends. Errors: UserError at the end of a pipe when none of its questions was answered"""
    for name in config.tools:
        if name not in TOOLS:
            close = nearest(name, TOOLS)
            hint = f"did you mean {close}?" if close else f"expected some of {', '.join(TOOLS)}"
            raise ConfigError(f"tools has {name!r}, which is no built-in tool; {hint}")
    endpoint = _endpoint(config)
    if (config.model is None) == (endpoint is None):
        raise ConfigError("expected one to talk with: a model's FOLDER, or --url of a server")
    answerer, adapters, title = _model(config) if endpoint is None else _server(config, endpoint)
    for stream in (sys.stdin, sys.stdout):
        # A pipe may bring any bytes, and a terminal may lack a character: neither is a reason to stop.
        with suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    screen = Screen()
    dialogue = Dialogue(
        answerer=answerer,
        screen=screen,
        system=config.system,
        thinking=config.thinking,
        tools={name: TOOLS[name] for name in config.tools},
        max_rounds=config.max_rounds,
    )
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        screen.notice(f"{title}; /help for commands, Ctrl-D to leave")
    chat = _Chat(dialogue, adapters, screen)
    for line in _typed(screen, config.history) if is_terminal else typed_lines(sys.stdin, is_strict=False):
        if not chat.take(line.strip()):
            break
    if not is_terminal and chat.num_failed and not chat.num_answered:
        raise UserError("none of the questions was answered")


def _model(config: ChatConfig) -> tuple[Answerer, Adapters, str]:
    assert config.model is not None
    model, tokenizer = load_model(config.model, device=config.device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    adapters = Adapters(model, tokenizer, config.adapters)
    adapted = f" with adapter {adapters.active}" if adapters.names else ""
    title = f"{config.model}, {parameters / 1e6:.1f}M parameters{adapted}"
    return LocalAnswerer(model, tokenizer, config.sampling, adapters), adapters, title


def _endpoint(config: ChatConfig) -> Endpoint | None:
    """The server that the options name. Errors: ConfigError when its address is missing or given twice"""
    endpoint = config.endpoint or _Server()
    if config.url and endpoint.url:
        raise ConfigError("expected one to talk with, got --url and --endpoint.url; leave one out")
    if config.endpoint and not (config.url or endpoint.url):
        raise ConfigError("the server's address is missing: set it with --url, such as --url https://host/v1")
    url = config.url or endpoint.url
    return replace(endpoint, url=url) if url else None


def _server(config: ChatConfig, endpoint: Endpoint) -> tuple[Answerer, None, str]:
    if config.adapters:
        raise ConfigError("--adapters belong to a model here; a server has names for its own: --endpoint.name NAME")
    endpoint = endpoint.named()
    return RemoteAnswerer(endpoint, config.sampling), None, f"{endpoint.name} at {endpoint.url}"


class _Chat:
    """Answers questions and obeys commands.

    num_answered, num_failed:  questions, of those that were not stopped
    """

    def __init__(self, dialogue: Dialogue, adapters: Adapters | None, screen: Screen) -> None:
        self._dialogue = dialogue
        self._adapters = adapters
        self._screen = screen
        self.num_answered = self.num_failed = 0
        # In the order of /help; the first line of each docstring is its help.
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "new": self._new,
            "thinking": self._thinking,
            "system": self._system,
            "adapter": self._adapter,
            "retry": self._retry,
            "save": self._save,
        }

    def take(self, line: str) -> bool:
        """Deal with a line; False when it was the last."""
        if line == "/quit":
            return False
        try:
            if line.startswith("/") and not line.startswith("//"):
                self._obey(line)
            elif line:
                # A second slash makes a command text again.
                self._ask(line.removeprefix("/") if line.startswith("//") else line)
        except UserError as error:
            self._screen.notice(f"error: {error}")
        except KeyboardInterrupt:
            self._screen.notice("stopped")
        return True

    def _ask(self, text: str) -> None:
        try:
            self._dialogue.ask(text)
        except UserError:
            self.num_failed += 1
            raise
        self.num_answered += 1
        self._screen.line()

    def _obey(self, line: str) -> None:
        name, _, rest = line[1:].partition(" ")
        if name in self._commands:
            self._commands[name](rest.strip())
            return
        close = nearest(name, [*self._commands, "quit"])
        hint = f"did you mean /{close}?" if close else "/help lists the commands."
        self._screen.notice(f"unknown command /{name}; {hint} To send it as text, begin with //")

    def _help(self, _: str) -> None:
        """/help             this list"""
        for command in self._commands.values():
            self._screen.line(command.__doc__ or "")
        self._screen.line("/quit             leave, as Ctrl-D does; Ctrl-C stops an answer")

    def _new(self, _: str) -> None:
        """/new              forget the conversation"""
        self._dialogue.clear()
        self._screen.notice("a new conversation")

    def _thinking(self, word: str) -> None:
        """/thinking on|off  let the model think before it answers"""
        if word not in ("on", "off"):
            raise UserError(f"/thinking takes on or off; it is {'on' if self._dialogue.thinking else 'off'}")
        self._dialogue.thinking = word == "on"
        self._screen.notice(f"thinking is {word}")

    def _system(self, text: str) -> None:
        """/system TEXT      set the system prompt; without text, remove it"""
        self._dialogue.system = text
        self._screen.notice(f"the system prompt is now: {text}" if text else "there is no system prompt now")

    def _adapter(self, name: str) -> None:
        """/adapter NAME     answer with one of --adapters; none is the model alone, no name lists them"""
        if not (self._adapters and self._adapters.names):
            raise UserError("there are no adapters; name LoRA runs with --adapters when you start")
        if name:
            self._adapters.use(name)
        else:
            self._screen.notice(f"adapters: {', '.join([*self._adapters.names, NO_ADAPTER])}")
        self._screen.notice(f"the adapter is {self._adapters.active}")

    def _retry(self, _: str) -> None:
        """/retry            answer the last question again, differently"""
        if not self._dialogue.retry():
            self._screen.notice("there is no question yet")

    def _save(self, name: str) -> None:
        """/save FILE        append the conversation to a file of training data (jsonl)"""
        if not name or not self._dialogue.messages:
            raise UserError("/save takes a file name, once something was said")
        row = json.dumps(self._dialogue.conversation().to_dict(), ensure_ascii=False)
        try:
            with open(name, "a", encoding="utf-8") as file:
                file.write(row + "\n")
        except OSError as error:
            raise UserError(f"{name}: not saved: {error.strerror}") from None
        self._screen.notice(f"added to {name}")


def _typed(screen: Screen, history: Path | None) -> Iterator[str]:
    """What a person types, with the keys of readline where Python has it."""
    try:
        import readline
    except ImportError:
        readline = None
    if readline and history and history.exists():
        with suppress(OSError):
            readline.read_history_file(history)
    try:
        while True:
            try:
                yield input("> ")
            except KeyboardInterrupt:
                screen.line()
                screen.notice("Ctrl-D or /quit leaves")
    except EOFError:
        screen.line()
    finally:
        if readline and history:
            with suppress(OSError):
                readline.write_history_file(history)
