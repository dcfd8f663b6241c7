"""`minimind generate MODEL`: continue texts, or answer prompts from files; shown as they come, or written to jsonl.

A run that was cut off and is started again writes the same bytes as one that was not: `continuations.py` computes,
`answer_file.py` knows what is there, `prompts.py` reads. `chat.py` is for conversations.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from minimind.config import REQUIRED, Config, Device, option
from minimind.errors import UserError
from minimind.generation.sampling import Sampling
from minimind.stages.generate.continuations import Continuation, Continuer
from minimind.stages.generate.prompts import GivenPrompt, read_prompts
from minimind.stages.shared.answer_file import open_answers
from minimind.storage.adapters import fingerprint
from minimind.storage.checkpoint import load_model
from minimind.terminal.notes import say
from minimind.terminal.progress import TrainingProgress
from minimind.terminal.screen import AnswerView, Screen
from minimind.text.answers import Delta

__all__ = ["GenerateConfig", "run"]


class GenerateConfig(Config):
    """Continue texts, given with --prompt, in files, or line by line on standard input."""

    positional: ClassVar[str] = "model"

    model: Path = option(REQUIRED, "A run folder, a checkpoint, or a Hugging Face folder.")
    adapter: Path | None = option(None, "A LoRA run or a PEFT folder, to use with the model.")
    prompt: list[str] = option([], "Texts to continue.")
    source: list[str] = option([], "Prompts: .txt with one in each line, or jsonl rows with prompt, text or messages.")
    out: Path | None = option(
        None, "A jsonl file to write, in the order of the prompts; the same command goes on with it."
    )
    chat: bool = option(False, "Take each prompt as a user's question, as `minimind chat` does.")
    thinking: bool = option(False, "Let the model think before it answers a question.")
    batch_size: int = option(16, "Prompts computed at once.", ge=1)
    device: Device = option("auto", "Where to compute.")
    sampling: Sampling = option(Sampling(), "How tokens are drawn.")


def run(config: GenerateConfig) -> None:
    """Show the texts, or write them to `out` row by row."""
    prompts = list(read_prompts(config.prompt, config.source, chat=config.chat))
    model, tokenizer = load_model(config.model, adapter=config.adapter, device=config.device)
    continuer = Continuer(
        model=model,
        tokenizer=tokenizer,
        sampling=config.sampling,
        thinking=config.thinking,
        batch_size=config.batch_size,
    )
    if config.out is None:
        _show(config, continuer, prompts)
    else:
        _write(config, config.out, continuer, prompts)


def _show(config: GenerateConfig, continuer: Continuer, prompts: Sequence[GivenPrompt]) -> None:
    """One text is streamed; of several each follows its prompt."""
    screen = Screen()
    if len(config.prompt) == 1:
        if screen.is_terminal and not config.chat:
            screen.write(config.prompt[0], "dim")
        view = _View(screen)
        [(prompt, found)] = replace(continuer, on_event=lambda event: view.show(event.text, event.deltas)).run(prompts)
        if found.error:
            raise UserError(f"{prompt.where}: {found.error}")
        screen.line()
        return
    for number, (prompt, found) in enumerate(continuer.run(prompts), start=1):
        screen.line(f"[{number}] {prompt.row.get('prompt') or prompt.where}", "dim")
        if found.error:
            screen.line(f"(error: {found.error})")
        else:
            _View(screen).show(found.text, found.deltas)
            screen.line()
        screen.line()


class _View:
    """A text as it is, an answer as a chat shows it, with the calls that nobody runs here."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._answer = screen, AnswerView(screen)

    def show(self, text: str, deltas: Sequence[Delta]) -> None:
        self._screen.write(text)
        for delta in deltas:
            self._answer.push(delta)
            if delta.call is not None:
                self._answer.finish()
                self._screen.line(delta.call.to_json(), "cyan")


def _write(config: GenerateConfig, out: Path, continuer: Continuer, prompts: Sequence[GivenPrompt]) -> None:
    """The rows that are not there yet, with a line on how fast they come."""
    rows = [prompt.row for prompt in prompts]
    with open_answers(out, _settings(config, continuer, rows), rows) as file:
        start = continuer.start(file.num_rows, len(prompts))
        with TrainingProgress("generate", len(prompts), start) as progress:
            if start < file.num_rows:
                progress.note(f"{out}: has {file.num_rows:,} rows; {file.num_rows - start:,} are computed once more")
            continuer = replace(continuer, on_end=_Speed(progress, start))
            for prompt, found in continuer.run(prompts, file.num_rows):
                file.add(prompt.row | _row(prompt, found))
    errors = f", {file.num_errors:,} of them with an error in place of an answer" if file.num_errors else ""
    say(f"{out}: {file.num_rows:,} rows{errors}")


class _Speed:
    """Tells how fast answers come. One that is whole may have to wait for those before it, so rows say too little."""

    def __init__(self, progress: TrainingProgress, num_done: int) -> None:
        self._progress = progress
        self._num_done, self._num_tokens, self._started = num_done, 0, time.monotonic()

    def __call__(self, found: Continuation) -> None:
        self._num_done += 1
        self._num_tokens += len(found.ids)
        speed = self._num_tokens / (time.monotonic() - self._started)
        self._progress.update(self._num_done, {"tokens_per_second": speed})


def _row(prompt: GivenPrompt, found: Continuation) -> dict[str, Any]:
    """The part of an output row that the model wrote."""
    if found.error:
        return {"error": found.error}
    facts = {"finish_reason": found.finish_reason, "tokens": len(found.ids)}
    if prompt.conversation is None:
        return {"text": found.text, **facts}
    message = found.message.to_dict()
    return {"text": message.pop("content"), **{key: message[key] for key in message if key != "role"}, **facts}


def _settings(config: GenerateConfig, continuer: Continuer, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the answers depend on, by the names that a user knows; prompts, weights and vocabulary by what they are."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    sampling = {f"sampling.{name}": value for name, value in asdict(config.sampling).items()}
    return {
        "model": fingerprint(continuer.model)[:16],
        "tokenizer": continuer.tokenizer.fingerprint[:16],
        "source": f"{len(rows)} prompts, {digest.hexdigest()[:16]}",
        "chat": config.chat,
        "thinking": config.thinking,
        **sampling,
        "sampling.stop": list(config.sampling.stop),
    }
