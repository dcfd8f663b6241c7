"""`minimind generate MODEL`: continue texts, or answer prompts from a file; shown as they come, or written to jsonl.

Each row has a random stream of its own, numbered by its place, so that a run cut off and started again writes the same
rows as one that was not. `chat.py` is for conversations.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from minimind.checkpoint import load_model
from minimind.config import Config
from minimind.conversation import Conversation, Message, parse_answer, render_prompt
from minimind.data.corpus import kind_of, read_rows
from minimind.errors import ConfigError, DataError
from minimind.generation import Completion, complete
from minimind.model import Transformer
from minimind.sampling import Sampling
from minimind.stages.terminal import Screen
from minimind.tokenizer import Tokenizer

__all__ = ["GenerateConfig", "run"]


class GenerateConfig(Config):
    """Continue texts, given with --prompt, in a file, or line by line on standard input."""

    positional: ClassVar[str] = "model"

    model: Path = Field(description="A run folder, a checkpoint, or a Hugging Face folder.")
    adapter: Path | None = Field(None, description="A LoRA run or a PEFT folder, to use with the model.")
    prompt: list[str] = Field([], description="Texts to continue.")
    file: Path | None = Field(
        None, description="Prompts: a text file with one in each line, or jsonl rows with prompt, text or messages."
    )
    out: Path | None = Field(None, description="A jsonl file to write; rows that it has already are not done again.")
    chat: bool = Field(False, description="Take each prompt as a user's question, as `minimind chat` does.")
    thinking: bool = Field(False, description="Let the model think before it answers a question.")
    batch_size: int = Field(16, ge=1, description="Prompts computed at once.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to compute.")
    sampling: Sampling = Field(Sampling(), description="How tokens are drawn.")


@dataclass(frozen=True)
class _Prompt:
    """Something to continue.

    where:         its place, for messages
    row:           what the output repeats of it
    conversation:  what is to be answered; None for a plain text
    """

    where: str
    row: dict[str, Any]
    conversation: Conversation | None = None

    def ids(self, tokenizer: Tokenizer, thinking: bool) -> list[int]:
        if self.conversation is None:
            return [tokenizer.bos_id, *tokenizer.encode(self.row["prompt"])]
        return render_prompt(self.conversation.messages, self.conversation.tools, tokenizer, thinking)


def run(config: GenerateConfig) -> None:
    """Show the texts, or write them to `out` row by row."""
    prompts = _prompts(config)
    model, tokenizer = load_model(config.model, adapter=config.adapter, device=config.device)
    if config.out is None:
        _show(config, model, tokenizer, prompts)
        return
    first, size = _skip_done(config.out, prompts)
    with _open(config.out) as file:
        file.truncate(size)
        for prompt, answer in _answers(config, model, tokenizer, prompts, first):
            row = prompt.row | _parsed(prompt, answer, config.thinking)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            first += 1
    print(f"{config.out}: {first} rows")


def _answers(
    config: GenerateConfig, model: Transformer, tokenizer: Tokenizer, prompts: Iterator[_Prompt], first: int = 0
) -> Iterator[tuple[_Prompt, Completion]]:
    """Each prompt with what follows it, computed in batches; `first` is the number of the first one."""
    context = model.config.max_position_embeddings
    while batch := list(islice(prompts, config.batch_size)):
        ids = [prompt.ids(tokenizer, config.thinking) for prompt in batch]
        for prompt, prompt_ids in zip(batch, ids, strict=True):
            if len(prompt_ids) >= context:
                raise DataError(
                    f"{prompt.where}: the prompt has {len(prompt_ids):,} tokens and the model's context {context:,}; "
                    "shorten it"
                )
        streams = range(first, first + len(batch))
        yield from zip(batch, complete(model, tokenizer, ids, config.sampling, streams=streams), strict=True)
        first += len(batch)


def _show(config: GenerateConfig, model: Transformer, tokenizer: Tokenizer, prompts: Iterator[_Prompt]) -> None:
    """One text is streamed; of several each follows its prompt."""
    screen = Screen()
    if config.prompt and len(config.prompt) == 1:
        [prompt] = prompts
        if screen.is_terminal and not config.chat:
            screen.write(config.prompt[0], "dim")
        ids = [prompt.ids(tokenizer, config.thinking)]
        complete(model, tokenizer, ids, config.sampling, on_text=lambda _, piece: screen.write(piece))
        screen.line()
        return
    for number, (prompt, answer) in enumerate(_answers(config, model, tokenizer, prompts)):
        shown = prompt.row.get("prompt") or prompt.where
        screen.line(f"[{number + 1}] {shown}", "dim")
        screen.line(f"{answer.text}\n")


def _parsed(prompt: _Prompt, answer: Completion, thinking: bool) -> dict[str, Any]:
    """The part of an output row that the model wrote."""
    facts = {"finish_reason": answer.finish_reason, "tokens": len(answer.ids)}
    if prompt.conversation is None:
        return {"text": answer.text, **facts}
    message = parse_answer(answer.text, thinking).to_dict()
    return {"text": message.pop("content"), **{key: message[key] for key in message if key != "role"}, **facts}


def _prompts(config: GenerateConfig) -> Iterator[_Prompt]:
    """The prompts of the one source that is given."""
    if config.prompt and config.file:
        raise ConfigError("--prompt and --file are both given; expected one of them")
    if config.prompt:
        return (_plain(config, "--prompt", text) for text in config.prompt)
    if config.file is not None and config.file.suffix != ".txt":
        return _rows(config, config.file)
    if config.file is None and sys.stdin.isatty():
        raise ConfigError("no prompt; give --prompt TEXT or --file PATH, or pipe in a prompt per line")
    return _lines(config)


def _plain(config: GenerateConfig, where: str, text: str) -> _Prompt:
    question = Conversation((Message("user", text),)) if config.chat else None
    return _Prompt(where, {"prompt": text}, question)


def _lines(config: GenerateConfig) -> Iterator[_Prompt]:
    name = str(config.file) if config.file else "standard input"
    try:
        with open(config.file, encoding="utf-8-sig") if config.file else nullcontext(sys.stdin) as file:
            for number, line in enumerate(file, start=1):
                if text := line.strip():
                    yield _plain(config, f"{name}:{number}", text)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8: {error.reason}; save it as UTF-8") from None


def _rows(config: GenerateConfig, path: Path) -> Iterator[_Prompt]:
    for row in read_rows([path]):
        where = f"{row.path}:{row.line}"
        if isinstance(row.value.get("prompt"), str):
            yield _plain(config, where, row.value["prompt"])
            continue
        try:
            kind = kind_of(row.value)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if kind == "text":
            yield _plain(config, where, row.value["text"])
        else:
            conversation = Conversation.parse(row.value, where).prompt_part()
            yield _Prompt(where, conversation.to_dict(), conversation)


def _open(path: Path) -> Any:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def _skip_done(path: Path, prompts: Iterator[_Prompt]) -> tuple[int, int]:
    """Pass over the prompts that `path` answers already: their number, and the bytes without a torn last line."""
    content = path.read_bytes() if path.exists() else b""
    *rows, torn = content.split(b"\n")
    for number, line in enumerate(rows, start=1):
        prompt = next(prompts, None)
        if prompt is None or not _repeats(line, prompt.row):
            raise DataError(
                f"{path}:{number}: answers another prompt than {prompt.where if prompt else 'any given'}; "
                "choose another --out, or delete it to start anew"
            )
    if torn and not torn.startswith(b"{"):
        raise DataError(f"{path}: was not written here; choose another --out")
    return len(rows), len(content) - len(torn)


def _repeats(line: bytes, expected: dict[str, Any]) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and {key: row.get(key) for key in expected} == expected
