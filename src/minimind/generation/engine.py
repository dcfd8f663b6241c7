"""The loop that serves many requests at once: admit, compute one pass, choose, tell.

Every step computes one pass over the new tokens of all requests: one token of each that is answering, and behind them
at most `prefill_tokens` of prompts, so that a long prompt is read in pieces and the others do not wait for it. Requests
come and go between steps (continuous batching, Yu et al. 2022, the Orca paper). A request's slot keeps its ids, and the
next prompt that begins with them goes on there.

Three promises, up to rounding: what a request says is the same alone and among others, it is what `generate.py` says
with the same seed, and a request that fails takes no other with it. `submit` and `cancel` may be called from any
thread; `step` from one. A server's is `serve/runner.py`; `completions.py` steps until all is said.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from minimind.errors import UserError
from minimind.generation.counters import Counters
from minimind.generation.forward import Forward
from minimind.generation.live_forward import LiveForward, fastest_forward
from minimind.generation.precision import set_precision
from minimind.generation.request import Event, QueueFull, Request, TokenScore, misfit
from minimind.generation.running import RunningRequest
from minimind.generation.sampler import choose, score
from minimind.generation.slot_attention import NewTokens
from minimind.generation.slots import Slots
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

__all__ = ["Engine"]

# What a request may ask for without a length of its own; memory is taken as it is used.
LONGEST_SLOT = 4096


class Engine:
    """Answers requests with one model.

    max_rows:        requests answered at once, a slot each
    capacity:        tokens that a slot can hold, prompt and answer; the model's context, but at most LONGEST_SLOT
    max_queue:       requests that may wait for a slot
    max_queue_tokens: tokens that those may come to hold, which bounds the wait
    prefill_tokens:  tokens of prompts computed in a step
    precision:       of the weights: fp32, bf16 or int8; changes `model` in place
    forward:         makes what computes a pass: of weights that stay, or `LiveForward` of a model in training
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        max_rows: int = 32,
        capacity: int | None = None,
        max_queue: int = 256,
        max_queue_tokens: int = 1_000_000,
        prefill_tokens: int = 256,
        precision: str = "fp32",
        forward: Callable[[Transformer, Slots], Forward | LiveForward] = fastest_forward,
    ) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size
        self.capacity = min(model.config.max_position_embeddings, capacity or LONGEST_SLOT)
        self.counters = Counters()
        set_precision(model.eval(), precision)
        self.slots = Slots(model.config, max_rows, self.capacity, device=model.output_weight.device)
        with torch.inference_mode():
            self._forward = forward(model, self.slots)
        self._max_rows, self._max_queue, self._max_queue_tokens = max_rows, max_queue, max_queue_tokens
        self._prefill_tokens = prefill_tokens
        self._queue: deque[RunningRequest] = deque()
        self._queue_tokens = 0
        self._cancelled: set[int] = set()
        self._rows: list[RunningRequest] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @property
    def is_idle(self) -> bool:
        return not self._rows and not self._queue

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    @property
    def num_running(self) -> int:
        return len(self._rows)

    def submit(self, request: Request) -> int:
        """Accept a request; the number by which its events name it. Errors: QueueFull; UserError for a wrong prompt"""
        self._require_fit(request)
        row = RunningRequest(next(self._numbers), request, self.tokenizer, self.capacity)
        with self._lock:
            # The first in the queue do not wait where slots are free: the next step takes them.
            num_free = self.slots.num_free
            if (num_waiting := len(self._queue) - num_free) >= 0:
                tokens = self._queue_tokens - sum(one.num_tokens for one in itertools.islice(self._queue, num_free))
                if not self._has_room(num_waiting + 1, tokens + row.num_tokens):
                    raise QueueFull(f"{num_waiting} requests with {tokens:,} tokens wait already; try again later")
            self._queue.append(row)
            self._queue_tokens += row.num_tokens
        return row.number

    def require_room(self, requests: Sequence[Request]) -> None:
        """Errors: UserError for so many at once that no quiet hour would help."""
        waiting = requests[self._max_rows :]
        tokens = sum(request.num_tokens(self.capacity) for request in waiting)
        if not self._has_room(len(waiting), tokens):
            raise UserError(
                f"{len(requests)} answers at once are too many: of those beyond {self._max_rows} at most "
                f"{self._max_queue} may wait, with {self._max_queue_tokens:,} tokens, and these would be "
                f"{len(waiting)} with {tokens:,}; ask for fewer, or shorter ones"
            )

    def cancel(self, number: int) -> None:
        """Stop a request before the next step; of one that has ended already nothing is known, and nothing happens."""
        with self._lock:
            self._cancelled.add(number)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One pass for all: what it did. Nothing when there is nothing to do."""
        events = self._drop_cancelled()
        self._admit()
        plan = self._plan()
        if not plan:
            return events
        begin = time.perf_counter()
        try:
            states = self._forward([chunk for _, chunk in plan])
        except Exception as error:
            # Whose fault it was cannot be told: all that took part end, and the engine goes on.
            return events + [self._fail(row, f"the pass failed: {type(error).__name__}") for row, _ in plan]
        for row, chunk in plan:
            self.slots.append(row.slot, list(chunk.ids))
        events += self._tell(plan, states)
        self.counters.note_step(time.perf_counter() - begin, sum(len(chunk.ids) for _, chunk in plan))
        return events

    def run(self) -> Iterator[Event]:
        """All events until nothing is left to do."""
        while not self.is_idle:
            yield from self.step()

    def abort(self, reason: str) -> list[Event]:
        """End everything, waiting or not."""
        with self._lock:
            waiting, self._queue, self._queue_tokens = list(self._queue), deque(), 0
        return [self._fail(row, reason) for row in [*self._rows, *waiting]]

    def _has_room(self, num_waiting: int, tokens: int) -> bool:
        """May so many wait? One may, however long it is."""
        return num_waiting <= self._max_queue and (num_waiting <= 1 or tokens <= self._max_queue_tokens)

    def _require_fit(self, request: Request) -> None:
        prompt = request.prompt
        if not prompt:
            raise UserError("the prompt is empty; expected at least one token, such as BOS")
        if problem := misfit(len(prompt), self.capacity, 0 if request.prompt_only else 1):
            raise UserError(problem)
        if not 0 <= min(prompt) <= max(prompt) < self.vocab_size:
            raise UserError(f"the prompt has ids outside 0..{self.vocab_size - 1}; use the model's own tokenizer")
        if not all(0 <= index < self.vocab_size for index in request.logit_bias):
            raise UserError(f"logit_bias has ids outside 0..{self.vocab_size - 1}; use the model's own tokenizer")

    def _drop_cancelled(self) -> list[Event]:
        if not self._cancelled:
            return []
        with self._lock:
            cancelled, self._cancelled = self._cancelled, set()
            waiting = [row for row in self._queue if row.number in cancelled]
            for row in waiting:
                self._queue.remove(row)
                self._queue_tokens -= row.num_tokens
        running = [row for row in self._rows if row.number in cancelled]
        return [self._end(row, row.cancel()) for row in waiting + running]

    def _admit(self) -> None:
        while self._queue and self.slots.num_free:
            with self._lock:
                row = self._queue.popleft()
                self._queue_tokens -= row.num_tokens
                # The scores of a prompt need all its states anew.
                prompt = np.array(row.request.prompt, np.int32)
                row.slot, kept = self.slots.acquire(prompt, reuse=not row.request.score_prompt)
            row.pending = list(row.request.prompt[kept:])
            self._rows.append(row)
            self.counters.note_prompt(len(prompt), kept)
        self._rows.sort(key=lambda row: row.slot)

    def _plan(self) -> list[tuple[RunningRequest, NewTokens]]:
        """The rows of this step: those with one token to compute by their slots, then prompts, the oldest first."""
        plan = [(row, NewTokens(row.slot, row.pending)) for row in self._rows if len(row.pending) == 1]
        budget = self._prefill_tokens
        reading = sorted((row for row in self._rows if len(row.pending) > 1), key=lambda row: row.number)
        for row in reading:
            # A piece of one token would have to stand among the answering rows; it waits for the next step.
            if budget < 2:
                break
            chunk = NewTokens(row.slot, row.pending[:budget])
            budget -= len(chunk.ids)
            plan.append((row, chunk))
        return plan

    def _tell(self, plan: Sequence[tuple[RunningRequest, NewTokens]], states: Tensor) -> list[Event]:
        """Choose for each row whose prompt is read, and say what came of it."""
        events, ready, places, last = [], [], [], -1
        for row, chunk in plan:
            first, last = last + 1, last + len(chunk.ids)
            row.pending = row.pending[len(chunk.ids) :]
            if row.request.score_prompt and not row.num_drawn:
                self._score_prompt(row, chunk, states[first : last + 1])
            if row.pending:
                continue
            if row.request.prompt_only:
                event = Event(row.number, scores=row.take_scores(), finish_reason="length")
                events.append(self._end(row, event))
            else:
                ready.append(row)
                places.append(last)
        if not ready:
            return events
        if len(places) < len(states):
            states = states[torch.tensor(places, device=states.device)]
        logits = self._forward.logits(states)[:, : self.vocab_size]
        # One number that is none makes a sum that is none.
        sound = logits.sum(-1).isfinite().tolist()
        if not all(sound):
            events += [
                self._fail(row, "its scores are not numbers") for row, ok in zip(ready, sound, strict=True) if not ok
            ]
            ready = [row for row, ok in zip(ready, sound, strict=True) if ok]
            logits = logits[torch.tensor(sound, device=logits.device)]
            if not ready:
                return events
        events += self._choose(ready, logits)
        self.counters.num_generated += len(ready)
        return events

    def _choose(self, ready: Sequence[RunningRequest], logits: Tensor) -> list[Event]:
        """The next id of each row, and what becomes of it. A row that fails fails alone."""
        events = []
        for place, (row, drawn) in enumerate(zip(ready, choose(logits, [row.sampler for row in ready]), strict=True)):
            if drawn is None:
                events.append(self._fail(row, "its settings failed"))
                continue
            scores: Sequence[TokenScore] = ()
            if row.request.num_top is not None:
                scores = score(logits[place : place + 1], [drawn.id], row.request.num_top)
            try:
                event = row.take(drawn, scores)
            except ValueError as error:
                # Nothing else in a row raises one: a form whose grammar takes more work than it may.
                reason = f"the form that the answer should have cannot be held: {error}"
                event = Event(row.number, finish_reason="error", error=reason, is_refused=True)
            except Exception as error:
                event = Event(row.number, finish_reason="error", error=f"its text failed: {type(error).__name__}")
            events.append(event if event.finish_reason is None else self._end(row, event))
        return events

    def _score_prompt(self, row: RunningRequest, chunk: NewTokens, states: Tensor) -> None:
        prompt, done = row.request.prompt, self.slots.lengths[row.slot]
        following = prompt[done - len(chunk.ids) + 1 : done + 1]
        if following:
            logits = self._forward.logits(states[: len(following)])[:, : self.vocab_size]
            row.prompt_scores += score(logits, following, row.request.num_top or 0)

    def _fail(self, row: RunningRequest, reason: str) -> Event:
        return self._end(row, Event(row.number, finish_reason="error", error=f"the model cannot go on: {reason}"))

    def _end(self, row: RunningRequest, event: Event) -> Event:
        assert event.finish_reason is not None
        if row in self._rows:
            self._rows.remove(row)
            self.slots.release(row.slot, forget=event.finish_reason == "error")
        self.counters.note_end(event.finish_reason)
        return event
