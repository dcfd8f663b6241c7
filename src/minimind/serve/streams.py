"""A reply under way: streams of the engine opened, told whole or event by event, and closed whatever ends it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from minimind.generation.request import Event
from minimind.serve.problems import Problem
from minimind.serve.runner import Stream

__all__ = ["ReplyShape", "answer", "close_all"]


class ReplyShape(Protocol):
    """How one API tells what an engine says, whole or as server-sent events; empty bytes tell nothing."""

    def begin(self) -> bytes: ...

    def push(self, index: int, events: Sequence[Event]) -> bytes:
        """What these events of one stream tell. Errors: Problem when the engine gave up"""
        ...

    def fail(self, problem: Problem) -> bytes: ...

    def end(self) -> bytes: ...

    def whole(self) -> dict[str, Any]:
        """The reply that is not streamed, when all was pushed."""
        ...


async def answer(reply: ReplyShape, streams: Sequence[Stream], receive: Receive, *, is_streamed: bool) -> Response:
    """Errors: Problem, where nothing was sent yet"""
    if is_streamed:
        return _EventStream(_chunks(reply, streams), streams)

    async def whole() -> Response:
        async for index, events in _merged(streams):
            reply.push(index, events)
        return JSONResponse(reply.whole())

    try:
        # Nobody is left to read the reply of a client that is gone, so any will do.
        return await _unless_gone(receive, whole) or Response(status_code=499)
    finally:
        close_all(streams)


async def _chunks(reply: ReplyShape, streams: Sequence[Stream]) -> AsyncIterator[bytes]:
    if begun := reply.begin():
        yield begun
    try:
        async for index, events in _merged(streams):
            if told := reply.push(index, events):
                yield told
    except Problem as problem:
        yield reply.fail(problem)
    yield reply.end()


async def _merged(streams: Sequence[Stream]) -> AsyncIterator[tuple[int, list[Event]]]:
    """The events of all streams as they come, with the place of their stream."""
    if len(streams) == 1:
        async for events in streams[0]:
            yield 0, events
        return
    queue: asyncio.Queue[tuple[int, list[Event]]] = asyncio.Queue()

    async def pump(index: int, stream: Stream) -> None:
        async for events in stream:
            queue.put_nowait((index, events))

    tasks = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    try:
        running = len(streams)
        while running:
            index, events = await queue.get()
            running -= events[-1].finish_reason is not None
            yield index, events
    finally:
        for task in tasks:
            task.cancel()


class _EventStream(Response):
    """Server-sent events, until they end or their reader is gone."""

    def __init__(self, chunks: AsyncIterator[bytes], streams: Sequence[Stream]) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        # The length is not known yet.
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._chunks = chunks
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await _unless_gone(receive, lambda: self._send(send))
        finally:
            close_all(self._streams)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for content in self._chunks:
            await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _unless_gone(receive: Receive, work: Callable[[], Awaitable[Any]]) -> Any:
    """The result of `work`, or None as soon as the client has left."""
    working = asyncio.ensure_future(work())
    leaving = asyncio.ensure_future(_wait_until_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def close_all(streams: Sequence[Stream]) -> None:
    for stream in streams:
        stream.close()
