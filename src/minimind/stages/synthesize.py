"""`minimind synthesize`: a teacher answers prompts, and its answers become conversations to fine-tune on.

The teacher is a model here or any OpenAI-compatible server; the student needs neither its vocabulary nor its weights.
Rows are written as they come, each with the place of its prompt, so the same command again goes on where it stopped.
A server that is busy is asked again; what it has answered is kept even if it never answers the rest.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from minimind.config import REQUIRED, Config, Device, option
from minimind.data.prompts import read_prompts
from minimind.errors import ConfigError, DataError, UserError
from minimind.generation.completions import complete_requests
from minimind.generation.request import Request, misfit
from minimind.generation.sampling import Sampling
from minimind.remote.endpoint import Endpoint, EndpointBusy, Reply
from minimind.stages.shared.answer_file import open_output
from minimind.storage.adapters import fingerprint
from minimind.storage.checkpoint import load_model
from minimind.terminal.notes import say
from minimind.terminal.progress import TrainingProgress
from minimind.terminal.tables import show_bad_row
from minimind.text.conversation import Conversation, render_prompt

__all__ = ["SynthesizeConfig", "run"]

# Prompts, each with the number of its random stream -> an answer to each, why there is none, or None: it does not fit.
Teacher = Callable[[Sequence[tuple[int, Conversation]]], Sequence[Reply | UserError | None]]
# Before a server that is busy is asked again.
WAIT_SECONDS = (1, 4, 16, 64)


class SynthesizeConfig(Config):
    """A teacher's answers to prompts, as rows that `minimind sft` learns from."""

    source: list[str] = option(REQUIRED, "Conversations; a last answer in them is left out.", min_length=1)
    out: Path = option(REQUIRED, "The jsonl file to write; prompts that it answers already are not asked again.")
    model: Path | None = option(None, "The teacher: a run folder, a checkpoint, or a Hugging Face folder.")
    endpoint: Endpoint | None = option(None, "The teacher, where it is a server.")
    thinking: bool = option(False, "Ask for reasoning, and keep it.")
    max_prompts: int | None = option(None, "Ask at most so many.", ge=1)
    batch_size: int = option(16, "Prompts asked at once.", ge=1)
    device: Device = option("auto", "Where the teacher computes, where it is a model here.")
    max_bad_rows: int = option(0, "How many broken rows may be skipped.", ge=0)
    sampling: Sampling = option(Sampling(), "How the teacher answers.")


def run(config: SynthesizeConfig) -> None:
    """Write the answers; those that are empty or were cut, and prompts that do not fit, are left out, and counted."""
    if (config.model is None) == (config.endpoint is None):
        raise ConfigError("expected one teacher: --model FOLDER, or --endpoint.url URL of a server")
    teacher, who = _model(config) if config.model is not None else _server(config)
    prompts = _prompts(config)
    sampling = {f"sampling.{name}": value for name, value in asdict(config.sampling).items()}
    settings = {**who, "thinking": config.thinking, **sampling, "sampling.stop": list(config.sampling.stop)}
    with open_output(config.out, settings) as file:
        done = _answered(config.out, file)
        # Numbered over all prompts, so that a later start draws what an uninterrupted one would have drawn.
        pending = [
            (n, place, prompt) for n, (place, prompt) in enumerate(prompts) if not _is_answered(done, place, prompt)
        ]
        written, left_out = len(done), Counter[str]()
        before = len(prompts) - len(pending)
        with TrainingProgress("synthesize", len(prompts), before) as progress:
            for start in range(0, len(pending), config.batch_size):
                batch = pending[start : start + config.batch_size]
                replies = teacher([(number, prompt) for number, _, prompt in batch])
                for (_, place, prompt), reply in zip(batch, replies, strict=True):
                    if reason := _why_left_out(reply):
                        left_out[reason] += 1
                    elif isinstance(reply, Reply):
                        answered = replace(prompt, messages=(*prompt.messages, reply.message))
                        row = {**answered.to_dict(), "prompt": place}
                        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                        written += 1
                file.flush()
                if failed := next((reply for reply in replies if isinstance(reply, UserError)), None):
                    raise failed
                progress.update(before + start + len(batch), {})
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items()) or "none"
    say(f"{config.out}: {written:,} rows; left out: {reasons}")


def _why_left_out(reply: Reply | UserError | None) -> str:
    if reply is None:
        return "prompts that do not fit the context"
    if isinstance(reply, UserError):
        return ""
    if not reply.is_whole:
        return "answers that were cut"
    return "" if reply.message.content.strip() or reply.message.tool_calls else "empty answers"


def _prompts(config: SynthesizeConfig) -> list[tuple[str, Conversation]]:
    """The place of each row, and what is to be answered."""
    found = read_prompts(config.source, max_bad_rows=config.max_bad_rows, observe=show_bad_row)[: config.max_prompts]
    return [(prompt.where, Conversation(prompt.messages, prompt.tools)) for prompt in found]


def _model(config: SynthesizeConfig) -> tuple[Teacher, Mapping[str, Any]]:
    """A model that answers, and what it is known by."""
    assert config.model is not None
    model, tokenizer = load_model(config.model, device=config.device)

    def answer(numbered: Sequence[tuple[int, Conversation]]) -> list[Reply | UserError | None]:
        requests = [
            Request.for_answer(
                render_prompt(prompt.messages, prompt.tools, tokenizer, config.thinking),
                tokenizer,
                has_tools=bool(prompt.tools),
                sampling=config.sampling,
                stream=number,
            )
            for number, prompt in numbered
        ]
        context = model.config.max_position_embeddings
        fitting = [place for place, one in enumerate(requests) if not misfit(len(one.prompt), context)]
        completions = complete_requests(
            model, tokenizer, [requests[place] for place in fitting], batch_size=len(requests)
        )
        replies: list[Reply | UserError | None] = [None] * len(requests)
        for place, one in zip(fitting, completions, strict=True):
            replies[place] = Reply(one.message, one.finish_reason == "stop")
        return replies

    return answer, {"model": fingerprint(model)[:16], "tokenizer": tokenizer.fingerprint[:16]}


def _server(config: SynthesizeConfig) -> tuple[Teacher, Mapping[str, Any]]:
    """The same of a server."""
    assert config.endpoint is not None
    endpoint = config.endpoint.named()

    def ask(one: tuple[int, Conversation]) -> Reply | UserError:
        number, prompt = one
        # Each prompt has a seed of its own, or equal prompts would have equal answers.
        sampling = replace(config.sampling, seed=config.sampling.seed + number)
        for seconds in (*WAIT_SECONDS, None):
            try:
                return endpoint.answer(prompt.messages, prompt.tools, sampling, thinking=config.thinking)
            except EndpointBusy as error:
                if seconds is None:
                    return error
                time.sleep(seconds)
            except UserError as error:
                return error
        raise AssertionError("the last time of asking ends above")

    def answer(numbered: Sequence[tuple[int, Conversation]]) -> list[Reply | UserError | None]:
        with ThreadPoolExecutor(len(numbered)) as pool:
            return list(pool.map(ask, numbered))

    return answer, {"endpoint.url": endpoint.url, "endpoint.name": endpoint.name}


def _answered(path: Path, file: BinaryIO) -> dict[str, Conversation]:
    """The prompts that the file answers, by place; a last line that was torn is taken away."""
    file.seek(0)
    *lines, torn = file.read().split(b"\n")
    done = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            done[row["prompt"]] = Conversation.parse(row, f"{path}:{number}").prompt_part()
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}:{number}: was not written by `minimind synthesize`; choose another --out"
            ) from None
    if torn:
        file.truncate(file.tell() - len(torn))
    return done


def _is_answered(done: Mapping[str, Conversation], place: str, prompt: Conversation) -> bool:
    if place in done and done[place] != prompt:
        raise DataError(f"{place}: has changed since it was answered; choose another --out, or put it back")
    return place in done
