"""What follows prompts, many computed at once by the server's engine, in order and always to the same bytes.

The engine takes up the next prompt as soon as one is answered. Each prompt has a random stream of its own, numbered by
its place; but what is computed beside it can change how a sum is rounded, and with bad luck a draw. So prompts are
computed in groups, each with a fresh engine: a resumed run computes its unfinished group again, and skips the rows it
already has. `generate.py` writes down what comes.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from minimind.errors import UserError
from minimind.generation.completions import Completion
from minimind.generation.engine import Engine
from minimind.generation.request import Event, Request, misfit
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.stages.generate.prompts import GivenPrompt
from minimind.text.tokenizer import Tokenizer

__all__ = ["Continuation", "Continuer"]

# Batches in a group. At a group's end the batch is not full, which costs the less the larger a group is; and as much
# is computed again by a run that goes on.
GROUP = 8


@dataclass
class Continuation(Completion):
    """What follows a prompt, or why nothing can."""

    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Continuer:
    """A model, and how it is asked.

    on_event:  told each piece as it comes, of whichever prompt
    on_end:    told what follows each prompt as soon as it is whole, what is computed again included
    """

    model: Transformer
    tokenizer: Tokenizer
    sampling: Sampling
    thinking: bool = False
    batch_size: int = 16
    on_event: Callable[[Event], None] = lambda event: None
    on_end: Callable[[Continuation], None] = lambda found: None

    def start(self, first: int, num_prompts: int) -> int:
        """Where the group of the prompt numbered `first` begins."""
        return first // (GROUP * self.batch_size) * GROUP * self.batch_size if first < num_prompts else first

    def run(self, prompts: Sequence[GivenPrompt], first: int = 0) -> Iterator[tuple[GivenPrompt, Continuation]]:
        """Each prompt from the one numbered `first` on, with what follows it.

        Errors:   UserError when the model's scores are not numbers
        """
        size = GROUP * self.batch_size
        for start in range(self.start(first, len(prompts)), len(prompts), size):
            group = prompts[start : start + size]
            for place, found in enumerate(self._group(group, start)):
                if start + place >= first:
                    yield group[place], found

    def _group(self, prompts: Sequence[GivenPrompt], start: int) -> Iterator[Continuation]:
        ids = [prompt.ids(self.tokenizer, thinking=self.thinking) for prompt in prompts]
        context = self.model.config.max_position_embeddings
        found = [Continuation(error=misfit(len(some), context)) for some in ids]
        for one in found:
            if one.error:
                self.on_end(one)
        fitting = [place for place, one in enumerate(found) if not one.error]
        engine = Engine(
            self.model,
            self.tokenizer,
            max_rows=min(self.batch_size, len(prompts)),
            capacity=max((len(ids[place]) for place in fitting), default=1) + self.sampling.max_tokens,
            max_queue=len(prompts),
            max_queue_tokens=sys.maxsize,
        )
        numbers = {engine.submit(self._request(prompts[place], ids[place], start + place)): place for place in fitting}
        events = engine.run()
        for one in found:
            while not (one.finish_reason or one.error):
                event = next(events)
                place = numbers[event.request]
                if event.finish_reason == "error":
                    raise UserError(f"{prompts[place].where}: {event.error}")
                found[place].take(event)
                self.on_event(event)
                if event.finish_reason:
                    self.on_end(found[place])
            yield one

    def _request(self, prompt: GivenPrompt, ids: Sequence[int], stream: int) -> Request:
        settings = {"sampling": self.sampling, "stream": stream}
        if prompt.conversation is None:
            return Request(prompt=ids, stop_ids=self.tokenizer.end_ids, **settings)
        has_tools = bool(prompt.conversation.tools)
        return Request.for_answer(ids, self.tokenizer, has_tools=has_tools, **settings)
