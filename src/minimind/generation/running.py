"""A request on its way through the engine: where it is, what is computed next, and the text that it has come to.

A chat's answer ends at a stop string in what its reader sees. Reasoning and calls are not cut by one, nor is a text by
the newlines that the format puts in front of it: the reader of the answer says in which part a text stands.
"""

from collections.abc import Sequence

from minimind.generation.request import Event, FinishReason, Request, TokenScore
from minimind.generation.sampler import Drawn, Sampler
from minimind.generation.text_stream import TextStream
from minimind.text.answers import AnswerReader, Delta
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
        self.sampler = Sampler(request)
        self.num_drawn = 0
        # Nothing stands before the first token.
        self.prompt_scores = [TokenScore(request.prompt[0], None, ())] if request.score_prompt else []
        self._tokenizer = tokenizer
        self._reader = None if request.answer is None else AnswerReader(request.answer)
        self._marks = {} if request.answer is None else request.answer.marks
        self._text = self._begin()
        self.num_tokens = request.num_tokens(capacity)
        self._limit = self.num_tokens - len(request.prompt)

    def take(self, drawn: Drawn, scores: Sequence[TokenScore]) -> Event:
        """The event of a drawn id, the last one if it ends the request."""
        index, request = drawn.id, self.request
        self.sampler.note(index)
        self.num_drawn += 1
        self.pending = [index]
        mark = self._marks.get(index, "")
        is_end, is_full = index in request.stop_ids, self.num_drawn >= self._limit
        text = "" if is_end or mark else self._text.push(index)
        if is_end or is_full or mark:
            text += self._text.finish()
        if self._text.is_stopped:
            mark = ""
        reason: FinishReason | None = "stop" if is_end or self._text.is_stopped else "length" if is_full else None
        deltas = self._read(text, mark, is_over=reason is not None)
        text = text if self._reader is None else ""
        return Event(self.number, index, drawn.logprob, text, deltas, [*self.take_scores(), *scores], reason)

    def cancel(self) -> Event:
        """The last event of a request that somebody else ends, with what was held back."""
        text = self._text.finish()
        deltas = self._read(text, "", is_over=True)
        text = text if self._reader is None else ""
        return Event(self.number, text=text, deltas=deltas, finish_reason="cancelled")

    def take_scores(self) -> list[TokenScore]:
        """The scores of the prompt's tokens, once."""
        scores, self.prompt_scores = self.prompt_scores, []
        return scores

    def _read(self, text: str, mark: str, *, is_over: bool) -> Sequence[Delta]:
        if self._reader is None:
            return ()
        part = self._reader.part
        deltas = [*self._reader.push(text, mark)]
        if mark:
            self._text = self._begin(is_start=self._text.is_start or self._reader.part != part)
        if is_over:
            deltas += self._reader.finish()
        return deltas

    def _begin(self, *, is_start: bool = True) -> "_PartText":
        """A new text, in the part that the reader has come to."""
        is_seen = self._reader is None or self._reader.part == "content"
        stop = self.request.sampling.stop if is_seen else ()
        return _PartText(self._tokenizer, stop, is_start=is_start and self._reader is not None)


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
