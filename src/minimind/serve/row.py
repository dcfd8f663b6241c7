"""A request on its way through the engine: where it is, what is computed next, and the text that it has come to."""

from collections.abc import Sequence

from minimind.generation import TextStream
from minimind.serve.choice import Chooser
from minimind.serve.request import Event, FinishReason, Request, TokenScore
from minimind.tokenizer import Tokenizer

__all__ = ["Row"]


class Row:
    """A request and its state.

    slot:        where its keys and values lie; -1 while it waits
    pending:     ids whose keys are not stored yet: what is left of the prompt, or the last one drawn
    num_tokens:  the most that it can come to hold
    """

    def __init__(self, number: int, request: Request, tokenizer: Tokenizer, capacity: int) -> None:
        self.number = number
        self.request = request
        self.slot = -1
        self.pending: list[int] = []
        self.chooser = Chooser(request)
        self.num_drawn = 0
        # Nothing stands before the first token.
        self.prompt_scores = [TokenScore(request.prompt[0], None, ())] if request.score_prompt else []
        self._tokenizer = tokenizer
        self._text = TextStream(tokenizer, request.sampling.stop)
        self._limit = min(request.sampling.max_tokens, capacity - len(request.prompt))
        self.num_tokens = len(request.prompt) + self._limit

    def take(self, index: int, scores: Sequence[TokenScore]) -> Event:
        """The event of a drawn id, the last one if it ends the request."""
        request = self.request
        self.chooser.note(index)
        self.num_drawn += 1
        self.pending = [index]
        text, mark, reason = "", None, None
        if index in request.stop_ids:
            reason = "stop"
        elif index in request.marks:
            text, mark = self._text.finish(), index
            self._text = TextStream(self._tokenizer, request.sampling.stop)
        else:
            text = self._text.push(index)
            reason = "stop" if self._text.is_stopped else None
        finish: FinishReason | None = reason or ("length" if self.num_drawn >= self._limit else None)
        if finish is not None and mark is None:
            text += self._text.finish()
        return Event(self.number, index, text, mark, [*self.take_scores(), *scores], finish)

    def take_scores(self) -> list[TokenScore]:
        """The scores of the prompt's tokens, once."""
        scores, self.prompt_scores = self.prompt_scores, []
        return scores
