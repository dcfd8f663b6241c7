"""Answers of a model in this process, for a chat in the terminal.

What the model draws is read as the server reads it (`text/answers.py`), so a chat and a client see the same answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

from minimind.errors import UserError
from minimind.generation.generate import generate_ids
from minimind.generation.request import Request
from minimind.generation.row import RunningRequest
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.stages.chat.dialogue import AnswerEnding
from minimind.text.answers import AnswerReader, Delta, answer_marks
from minimind.text.conversation import Conversation, render_prompt
from minimind.text.tokenizer import Tokenizer

__all__ = ["LocalAnswerer"]


@dataclass(frozen=True)
class LocalAnswerer:
    """Each turn has a random stream of its own."""

    model: Transformer
    tokenizer: Tokenizer
    sampling: Sampling

    @property
    def context(self) -> int:
        return self.model.config.max_position_embeddings

    def answer(self, shown: Conversation, turn: int, *, thinking: bool, say: Callable[[Delta], None]) -> AnswerEnding:
        """Errors: UserError when the conversation leaves no room in the context"""
        prompt = render_prompt(shown.messages, shown.tools, self.tokenizer, thinking)
        if len(prompt) >= self.context:
            raise UserError(
                f"this turn has {len(prompt):,} tokens with the system prompt and the tools, and the model's context "
                f"is {self.context:,}; shorten it"
            )
        marks = answer_marks(self.tokenizer, tools=True)
        reader = AnswerReader(marks, thinking=thinking)
        stop_ids = self.tokenizer.end_ids
        part = "reasoning" if thinking else "content"
        request = Request(prompt=prompt, sampling=self.sampling, stop_ids=stop_ids, marks=frozenset(marks), part=part)
        row = RunningRequest(0, request, self.tokenizer, self.context)

        def on_token(_: int, token: int) -> bool:
            event = row.take(token, ())
            for delta in reader.push(event.text, event.mark):
                say(delta)
            return event.finish_reason == "stop"

        try:
            [completion] = generate_ids(
                self.model,
                [prompt],
                self.sampling,
                stop_ids=stop_ids,
                on_token=on_token,
                streams=[turn],
                num_ids=self.tokenizer.vocab_size,
            )
        finally:
            # Also when Ctrl-C ends it: what was held back was said.
            for delta in reader.finish():
                say(delta)
        if completion.finish_reason == "stop":
            return AnswerEnding(True)
        is_limit = row.num_drawn == self.sampling.max_tokens
        cause = "--sampling.max_tokens" if is_limit else "the end of the context"
        return AnswerEnding(False, f"cut after {row.num_drawn} tokens by {cause}")

    def shortage(self, shown: Conversation, *, thinking: bool) -> str:
        """An answer needs a quarter of the context, or less where it may not be that long."""
        prompt = render_prompt(shown.messages, shown.tools, self.tokenizer, thinking)
        is_short = len(prompt) + min(self.sampling.max_tokens, self.context // 4) > self.context
        return f"the context of {self.context:,} tokens is full" if is_short else ""
