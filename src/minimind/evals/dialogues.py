"""Answers as a server gives them: a prompt is rendered, continued and parsed, and tools that it calls are run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minimind.generation.completions import complete_requests
from minimind.generation.request import Request, misfit
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.text.conversation import Message, render_prompt
from minimind.text.tokenizer import Tokenizer
from minimind.tools.builtin import TOOLS, run_tool
from minimind.tools.tool import offered_names

__all__ = ["AskedQuestion", "answer_once", "answer_with_tools", "has_room"]

# Answers in a row that may call tools; whoever still calls then has given no answer.
MAX_ROUNDS = 4


@dataclass
class AskedQuestion:
    """A question under way.

    messages:  all that was said before the answer; grows while tools are called
    answer:    the last one; empty before there is any
    """

    messages: list[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    thinking: bool = False
    answer: Message = field(default_factory=lambda: Message("assistant"))

    def prompt(self, tokenizer: Tokenizer) -> list[int]:
        return render_prompt(self.messages, self.tools, tokenizer, self.thinking)

    @property
    def text(self) -> str:
        """What the user is told: nothing by an answer that still calls tools."""
        return "" if self.answer.tool_calls else self.answer.content


def has_room(model: Transformer, tokenizer: Tokenizer, dialogue: AskedQuestion) -> bool:
    """Does the prompt leave at least one token of the context to the answer?"""
    return not misfit(len(dialogue.prompt(tokenizer)), model.config.max_position_embeddings)


def answer_with_tools(
    model: Transformer,
    tokenizer: Tokenizer,
    dialogues: Sequence[AskedQuestion],
    sampling: Sampling,
    batch_size: int = 32,
) -> None:
    """Let the model answer each, and go on after the results of the tools it called.

    sampling:  max_tokens is of each answer, reasoning and calls included
    Errors:    UserError for a question that has no room
    """
    pending = list(enumerate(dialogues))
    for turn in range(MAX_ROUNDS):
        # No two answers share their random numbers, and none depends on how many others are still under way.
        streams = [turn * len(dialogues) + number for number, _ in pending]
        some = [dialogue for _, dialogue in pending]
        answer_once(model, tokenizer, some, sampling, batch_size=batch_size, streams=streams)
        pending = [(number, dialogue) for number, dialogue in pending if dialogue.answer.tool_calls]
        for _, dialogue in pending:
            _run_tools(dialogue)
        # Long calls can fill the context, and whoever has no room left to answer has not answered.
        pending = [(number, dialogue) for number, dialogue in pending if has_room(model, tokenizer, dialogue)]


def answer_once(
    model: Transformer,
    tokenizer: Tokenizer,
    dialogues: Sequence[AskedQuestion],
    sampling: Sampling,
    *,
    batch_size: int = 32,
    streams: Sequence[int] | None = None,
) -> None:
    """Let the model answer each. Errors: as `answer_with_tools`

    streams:  the number of each dialogue's random stream; 0, 1, ... unless given
    """
    streams = range(len(dialogues)) if streams is None else streams
    requests = [
        Request.for_answer(
            dialogue.prompt(tokenizer),
            tokenizer,
            has_tools=bool(dialogue.tools),
            sampling=sampling,
            stream=stream,
        )
        for dialogue, stream in zip(dialogues, streams, strict=True)
    ]
    completions = complete_requests(model, tokenizer, requests, batch_size=batch_size)
    for dialogue, completion in zip(dialogues, completions, strict=True):
        dialogue.answer = completion.message


def _run_tools(dialogue: AskedQuestion) -> None:
    offered = {name: TOOLS[name] for name in offered_names(dialogue.tools) if name in TOOLS}
    results = [Message("tool", run_tool(call.name, call.arguments, offered)) for call in dialogue.answer.tool_calls]
    dialogue.messages += [dialogue.answer, *results]
