"""A request on its way through the engine: where it is, what is computed next, and the text that it has come to.

A chat's answer ends at a stop string in what its reader sees. Reasoning and calls are not cut by one, nor is a text by
the newlines that the format puts in front of it.
"""

from collections.abc import Sequence

from minimind.generation.choice import Chooser
from minimind.generation.generate import TextStream
from minimind.generation.request import Event, FinishReason, Request, TokenScore
from minimind.text.answers import Part, part_behind
from minimind.text.tokenizer import Tokenizer

__all__ = ["RunningRequest"]


class RunningRequest:
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
        self._part: Part | None = request.part
        self._text = self._begin()
        self.num_tokens = request.num_tokens(capacity)
        self._limit = self.num_tokens - len(request.prompt)

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
            self._turn(index)
        else:
            text = self._text.push(index)
            reason = "stop" if self._text.is_stopped else None
        finish: FinishReason | None = reason or ("length" if self.num_drawn >= self._limit else None)
        if finish is not None and mark is None:
            text += self._text.finish()
        return Event(self.number, index, text, mark, [*self.take_scores(), *scores], finish)

    def _turn(self, mark: int) -> None:
        """A new text behind a mark, in the part that it leads to."""
        part = self._part
        is_start = self._text.is_start
        if part is not None:
            self._part = part_behind(part, self._tokenizer.decode([mark]), is_start=is_start)
        self._text = self._begin(is_start=is_start or self._part != part)

    def _begin(self, *, is_start: bool = True) -> "_PartText":
        is_seen = self._part in (None, "content")
        stop = self.request.sampling.stop if is_seen else ()
        return _PartText(self._tokenizer, stop, is_start=is_start and self._part is not None)

    def take_scores(self) -> list[TokenScore]:
        """The scores of the prompt's tokens, once."""
        scores, self.prompt_scores = self.prompt_scores, []
        return scores


class _PartText(TextStream):
    """The text of a part. No stop string is looked for in the newlines that it starts with.

    is_start:  it holds nothing yet but those
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], *, is_start: bool) -> None:
        super().__init__(tokenizer, stop)
        self.is_start = is_start

    def _give(self, new: str) -> str:
        if not self.is_start:
            return super()._give(new)
        text = new.lstrip("\n")
        self.is_start = not text
        return new[: len(new) - len(text)] + super()._give(text)
