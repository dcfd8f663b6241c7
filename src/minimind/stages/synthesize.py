"""`minimind synthesize`: a teacher answers prompts, and its answers become conversations to fine-tune on.

The teacher is a model here or any OpenAI-compatible server; the student needs neither its vocabulary nor its weights.
Rows are written as they come, each with the place of its prompt, so the same command again goes on where it stopped.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pydantic import Field

from minimind.checkpoint import load_model
from minimind.config import Config
from minimind.conversation import Conversation, parse_answer_ids, render_prompt
from minimind.data.corpus import read_rows
from minimind.endpoint import Endpoint, Reply
from minimind.errors import ConfigError, DataError
from minimind.generation import complete
from minimind.sampling import Sampling

__all__ = ["SynthesizeConfig", "run"]

# A batch of prompts -> an answer to each; `first` numbers their random streams.
Teacher = Callable[[Sequence[Conversation], int], list[Reply]]


class SynthesizeConfig(Config):
    """A teacher's answers to prompts, as rows that `minimind sft` learns from."""

    source: list[str] = Field(min_length=1, description="Conversations; a last answer in them is left out.")
    out: Path = Field(description="The jsonl file to write; prompts that it answers already are not asked again.")
    model: Path | None = Field(None, description="The teacher: a run folder, a checkpoint, or a Hugging Face folder.")
    endpoint: Endpoint | None = Field(None, description="The teacher, where it is a server.")
    thinking: bool = Field(False, description="Ask for reasoning, and keep it.")
    max_prompts: int | None = Field(None, ge=1, description="Ask at most so many.")
    batch_size: int = Field(16, ge=1, description="Prompts asked at once.")
    max_bad_rows: int = Field(0, ge=0, description="How many broken rows may be skipped.")
    sampling: Sampling = Field(Sampling(), description="How the teacher answers.")


def run(config: SynthesizeConfig) -> None:
    """Write the answers; those that are empty or were cut are left out, and counted."""
    if (config.model is None) == (config.endpoint is None):
        raise ConfigError("expected one teacher: --model FOLDER, or --endpoint.url URL of a server")
    done = _answered(config.out)
    prompts = ((place, prompt) for place, prompt in _prompts(config) if place not in done)
    teacher = _model(config) if config.model is not None else _server(config)
    written, empty, cut = len(done), 0, 0
    with _open(config.out) as file:
        asked = 0
        while batch := list(islice(prompts, config.batch_size)):
            replies = teacher([prompt for _, prompt in batch], asked + len(done))
            for (place, prompt), reply in zip(batch, replies, strict=True):
                message = reply.message
                if not reply.is_whole:
                    cut += 1
                elif not (message.content.strip() or message.tool_calls):
                    empty += 1
                else:
                    answered = replace(prompt, messages=(*prompt.messages, message))
                    file.write(json.dumps({**answered.to_dict(), "prompt": place}, ensure_ascii=False) + "\n")
                    written += 1
            file.flush()
            asked += len(batch)
            print(f"\r{written:,} rows", end="", flush=True)
    print(f"\r{config.out}: {written:,} rows; left out: {empty:,} empty answers, {cut:,} that were cut")


def _prompts(config: SynthesizeConfig) -> Iterator[tuple[str, Conversation]]:
    """The place of each row, and what is to be answered."""
    rows = read_rows(config.source, max_bad_rows=config.max_bad_rows)
    for row in islice(rows, config.max_prompts):
        place = f"{row.path}:{row.line}"
        conversation = Conversation.parse(row.value, place).prompt_part()
        if not conversation.messages or conversation.messages[-1].role == "assistant":
            raise DataError(f"{place}: there is nothing to answer; expected a last message by the user")
        yield place, conversation


def _model(config: SynthesizeConfig) -> Teacher:
    assert config.model is not None
    model, tokenizer = load_model(config.model, device="auto")

    def answer(prompts: Sequence[Conversation], first: int) -> list[Reply]:
        ids = [render_prompt(prompt.messages, prompt.tools, tokenizer, config.thinking) for prompt in prompts]
        streams = range(first, first + len(ids))
        found = complete(model, tokenizer, ids, config.sampling, streams=streams, batch_size=len(ids))
        return [
            Reply(parse_answer_ids(one.ids, tokenizer, config.thinking), one.finish_reason == "stop") for one in found
        ]

    return answer


def _server(config: SynthesizeConfig) -> Teacher:
    assert config.endpoint is not None
    endpoint = config.endpoint.named()

    def answer(prompts: Sequence[Conversation], first: int) -> list[Reply]:
        def ask(number: int, prompt: Conversation) -> Reply:
            # Each prompt has a seed of its own, or equal prompts would have equal answers.
            sampling = replace(config.sampling, seed=config.sampling.seed + number)
            return endpoint.answer(prompt.messages, prompt.tools, sampling, thinking=config.thinking)

        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(ask, range(first, first + len(prompts)), prompts))

    return answer


def _answered(path: Path) -> set[str]:
    """The places of the prompts that the file answers; a last line that was torn is taken away."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    *lines, torn = content.split(b"\n")
    try:
        done = {json.loads(line)["prompt"] for line in lines}
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: was not written by `minimind synthesize`; choose another --out") from None
    if torn:
        with path.open("r+b") as file:
            file.truncate(len(content) - len(torn))
    return done


def _open(path: Path):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; choose another --out") from None
