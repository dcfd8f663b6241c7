"""`minimind synthesize`: a teacher answers prompts, and its answers become conversations to fine-tune on.

The teacher is a model here or any OpenAI-compatible server; the student needs neither its vocabulary nor its weights.
Rows are written as they come, each with the place of its prompt, so the same command again goes on where it stopped.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pydantic import Field

from minimind.checkpoint import load_model
from minimind.config import Config
from minimind.conversation import Conversation, parse_sampled, render_prompt
from minimind.data.corpus import read_rows
from minimind.endpoint import Endpoint, Reply
from minimind.errors import ConfigError, DataError
from minimind.generation import complete
from minimind.sampling import Sampling

__all__ = ["SynthesizeConfig", "run"]

# A batch of prompts, each with the number of its random stream -> an answer to each, or None to one that does not fit.
Teacher = Callable[[Sequence[tuple[int, Conversation]]], Sequence[Reply | None]]


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
    """Write the answers; those that are empty or were cut, and prompts that do not fit, are left out, and counted."""
    if (config.model is None) == (config.endpoint is None):
        raise ConfigError("expected one teacher: --model FOLDER, or --endpoint.url URL of a server")
    done = _answered(config.out)
    # Numbered over all prompts, so that a later start draws what an uninterrupted one would have drawn.
    prompts = ((n, place, prompt) for n, (place, prompt) in enumerate(_prompts(config)) if place not in done)
    teacher = _model(config) if config.model is not None else _server(config)
    written, left_out = len(done), Counter[str]()
    with _open(config.out) as file:
        while batch := list(islice(prompts, config.batch_size)):
            replies = teacher([(number, prompt) for number, _, prompt in batch])
            for (_, place, prompt), reply in zip(batch, replies, strict=True):
                if reason := _why_left_out(reply):
                    left_out[reason] += 1
                else:
                    assert reply is not None
                    answered = replace(prompt, messages=(*prompt.messages, reply.message))
                    file.write(json.dumps({**answered.to_dict(), "prompt": place}, ensure_ascii=False) + "\n")
                    written += 1
            file.flush()
            print(f"\r{written:,} rows", end="", flush=True)
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items()) or "none"
    print(f"\r{config.out}: {written:,} rows; left out: {reasons}")


def _why_left_out(reply: Reply | None) -> str:
    if reply is None:
        return "prompts that do not fit the context"
    if not reply.is_whole:
        return "answers that were cut"
    return "" if reply.message.content.strip() or reply.message.tool_calls else "empty answers"


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

    def answer(numbered: Sequence[tuple[int, Conversation]]) -> list[Reply | None]:
        ids = [render_prompt(prompt.messages, prompt.tools, tokenizer, config.thinking) for _, prompt in numbered]
        fitting = [place for place, some in enumerate(ids) if len(some) < model.config.max_position_embeddings]
        completions = complete(
            model,
            tokenizer,
            [ids[place] for place in fitting],
            config.sampling,
            streams=[numbered[place][0] for place in fitting],
            batch_size=len(ids),
        )
        replies: list[Reply | None] = [None] * len(ids)
        for place, one in zip(fitting, completions, strict=True):
            replies[place] = Reply(parse_sampled(one, tokenizer, config.thinking), one.finish_reason == "stop")
        return replies

    return answer


def _server(config: SynthesizeConfig) -> Teacher:
    assert config.endpoint is not None
    endpoint = config.endpoint.named()

    def answer(numbered: Sequence[tuple[int, Conversation]]) -> list[Reply]:
        def ask(one: tuple[int, Conversation]) -> Reply:
            number, prompt = one
            # Each prompt has a seed of its own, or equal prompts would have equal answers.
            sampling = replace(config.sampling, seed=config.sampling.seed + number)
            return endpoint.answer(prompt.messages, prompt.tools, sampling, thinking=config.thinking)

        with ThreadPoolExecutor(len(numbered)) as pool:
            return list(pool.map(ask, numbered))

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
