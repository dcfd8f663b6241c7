"""Answers of a model in this process, for a chat in the terminal, by the engine that a server has.

So a chat and a client see the same answer, and what was said before is not computed again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from minimind.errors import UserError
from minimind.generation.engine import Engine
from minimind.generation.request import Event, Request, misfit
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.stages.chat.adapters import Adapters
from minimind.stages.chat.dialogue import AnswerEnding
from minimind.text.answers import Delta
from minimind.text.conversation import Conversation, render_prompt
from minimind.text.tokenizer import Tokenizer

__all__ = ["LocalAnswerer"]


@dataclass
class LocalAnswerer:
    """Each turn has a random stream of its own. adapters: those that the model answers with by turns"""

    model: Transformer
    tokenizer: Tokenizer
    sampling: Sampling
    adapters: Adapters | None = None
    # By the name of the adapter that it was made with.
    _engine: dict[str, Engine] = field(default_factory=dict)

    @property
    def context(self) -> int:
        return self.model.config.max_position_embeddings

    @property
    def engine(self) -> Engine:
        """One with the weights as they are now."""
        active = "" if self.adapters is None else self.adapters.active
        if active not in self._engine:
            self._engine = {active: Engine(self.model, self.tokenizer, max_rows=1, capacity=self.context)}
        return self._engine[active]

    def answer(self, shown: Conversation, turn: int, *, thinking: bool, say: Callable[[Delta], None]) -> AnswerEnding:
        """Errors: UserError when the conversation leaves no room in the context"""
        request = self._request(shown, turn, thinking=thinking)
        if misfit(len(request.prompt), self.context):
            raise UserError(
                f"this turn has {len(request.prompt):,} tokens with the system prompt and the tools, and the model's "
                f"context is {self.context:,}; shorten it"
            )
        engine, told = self.engine, list[Event]()
        number = engine.submit(request)
        try:
            _tell(engine.run(), told, say)
        finally:
            # Also when Ctrl-C ends it: what was held back was said.
            engine.cancel(number)
            _tell(engine.run(), told, say)
        if told[-1].finish_reason == "error":
            raise UserError(told[-1].error)
        if told[-1].finish_reason == "stop":
            return AnswerEnding(True)
        num_drawn = sum(event.id is not None for event in told)
        is_limit = num_drawn == self.sampling.max_tokens
        cause = "--sampling.max_tokens" if is_limit else "the end of the context"
        return AnswerEnding(False, f"cut after {num_drawn} tokens by {cause}")

    def shortage(self, shown: Conversation, *, thinking: bool) -> str:
        """An answer needs a quarter of the context, or less where it may not be that long."""
        prompt = self._request(shown, 0, thinking=thinking).prompt
        is_short = misfit(len(prompt), self.context, min(self.sampling.max_tokens, self.context // 4))
        return f"the context of {self.context:,} tokens is full" if is_short else ""

    def _request(self, shown: Conversation, turn: int, *, thinking: bool) -> Request:
        return Request.for_answer(
            render_prompt(shown.messages, shown.tools, self.tokenizer, thinking),
            self.tokenizer,
            has_tools=bool(shown.tools),
            sampling=self.sampling,
            stream=turn,
        )


def _tell(events: Iterable[Event], told: list[Event], say: Callable[[Delta], None]) -> None:
    for event in events:
        told.append(event)
        for delta in event.deltas:
            say(delta)
