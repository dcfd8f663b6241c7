"""Whatever ends a reply, its streams are closed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from minimind.generation.request import Event
from minimind.serve.problems import Problem
from minimind.serve.streams import answer


class Told:
    """A reply that counts events."""

    def __init__(self, fails: bool = False) -> None:
        self.seen, self.fails = 0, fails

    def begin(self) -> bytes:
        return b"begin;"

    def push(self, index: int, events: Sequence[Event]) -> bytes:
        if self.fails:
            raise Problem(500, "gone")
        self.seen += len(events)
        return f"{index};".encode()

    def fail(self, problem: Problem) -> bytes:
        return problem.message.encode()

    def end(self) -> bytes:
        return b";end"

    def whole(self) -> dict[str, Any]:
        return {"seen": self.seen}


class Source:
    """A stream of the engine's that has two events."""

    closed = False

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        yield [Event(0, 1, "a")]
        yield [Event(0, 2, "b", finish_reason="stop")]

    def close(self) -> None:
        self.closed = True


async def never() -> Any:
    await asyncio.sleep(60)


def reply(told: Told, *, is_streamed: bool) -> tuple[bytes, bool]:
    """What is sent, and whether the stream was closed."""
    source, sent = Source(), []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    async def run() -> None:
        response = await answer(told, [source], never, is_streamed=is_streamed)  # type: ignore[list-item]
        await response({"type": "http"}, never, send)

    asyncio.run(run())
    return b"".join(sent), source.closed


def test_a_whole_reply_is_told_when_all_was_seen() -> None:
    assert reply(Told(), is_streamed=False) == (b'{"seen":2}', True)


def test_a_stream_tells_its_beginning_its_events_and_its_end() -> None:
    assert reply(Told(), is_streamed=True) == (b"begin;0;0;;end", True)


def test_an_engine_that_gives_up_is_told_in_the_stream() -> None:
    assert reply(Told(fails=True), is_streamed=True) == (b"begin;gone;end", True)
