"""The thread that runs engines, and its side of asyncio: a route opens a `Stream` and reads events as they come.

The thread hands over what a step did in one call, however many requests it served; with more than a few, what the steps
of HOLD_SECONDS did. A stream that was not read for a while gives all that has come since. Leaving a stream, for
whatever reason, cancels its request.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from minimind.generation.engine import Engine
from minimind.generation.request import Event, Request

__all__ = ["Runner", "Stream"]

# With many streams, an event for each token costs a good part of the token: what a few steps bring goes out together.
FEW = 4
HOLD_SECONDS = 0.1

log = logging.getLogger(__name__)


class Stream:
    """The events of one request: `async with runner.open(...) as stream: async for events in stream`."""

    def __init__(self, runner: "Runner", model: str, number: int) -> None:
        self._runner = runner
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._is_over = False
        self.key = (model, number)

    def push(self, event: Event) -> None:
        """Called in the loop's own thread."""
        self._events.append(event)
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        """What has come since the last time, at least one event; ends behind the last event."""
        while not self._is_over:
            await self._news.wait()
            self._news.clear()
            events = list(self._events)
            self._events.clear()
            self._is_over = bool(events) and events[-1].finish_reason is not None
            if events:
                yield events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the request if it still runs, and forget it."""
        self._runner.forget(self.key, cancel=not self._is_over)


class Runner:
    """Runs engines, by the names of their models, in one thread of their own."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines = engines
        self._streams: dict[tuple[str, int], tuple[asyncio.AbstractEventLoop, Stream]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._held: dict[str, list[Event]] = {name: [] for name in engines}
        self._handed_over = dict.fromkeys(engines, 0.0)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def num_open(self) -> int:
        """Streams that were opened and not closed yet."""
        return len(self._streams)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread behind its current step, if it runs."""
        self._is_stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def open(self, model: str, request: Request) -> Stream:
        """Ask the engine of `model`. To be called in a running loop. Errors: as `Engine.submit`"""
        loop = asyncio.get_running_loop()
        with self._lock:
            stream = Stream(self, model, self.engines[model].submit(request))
            self._streams[stream.key] = (loop, stream)
        self._wake.set()
        return stream

    def forget(self, key: tuple[str, int], *, cancel: bool) -> None:
        model, number = key
        with self._lock:
            known = self._streams.pop(key, None)
        if cancel and known is not None:
            self.engines[model].cancel(number)
            self._wake.set()

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait()
            self._wake.clear()
            # A cancelled request is work, too: its slot is to be freed.
            while not self._is_stopping and any([self._step(name) for name in self.engines]):
                pass

    def _step(self, name: str) -> bool:
        """One step of an engine, if it has something to do; does it have more?"""
        engine = self.engines[name]
        try:
            events = engine.step()
        except Exception:
            log.exception("a step of %s failed", name)
            events = engine.abort("an error of the server")
        held = self._held[name]
        held += events
        is_due = time.monotonic() - self._handed_over[name] >= HOLD_SECONDS
        if is_due or engine.num_running <= FEW or any(event.finish_reason for event in events):
            self._hand_over(name, held)
            held.clear()
            self._handed_over[name] = time.monotonic()
        return not engine.is_idle

    def _hand_over(self, name: str, events: Sequence[Event]) -> None:
        parcels: dict[asyncio.AbstractEventLoop, list[tuple[Stream, Event]]] = {}
        with self._lock:
            for event in events:
                loop, stream = self._streams.get((name, event.request), (None, None))
                if loop is not None and stream is not None:
                    parcels.setdefault(loop, []).append((stream, event))
        for loop, parcel in parcels.items():
            # A loop that was closed has nobody left who would read.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_deliver, parcel)


def _deliver(parcel: Sequence[tuple[Stream, Event]]) -> None:
    for stream, event in parcel:
        stream.push(event)
