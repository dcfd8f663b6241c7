"""Streams get all events of their request in order, and leaving one cancels it within a step."""

import asyncio

from tests.serve.tiny_server import make_engine, wait_for
from tests.tiny import TOKENIZER, random_model

from minimind.generation.generate import draw_ids
from minimind.generation.request import Request
from minimind.generation.sampling import Sampling
from minimind.serve.runner import Runner

GREEDY = Sampling(temperature=0, max_tokens=20)


def test_many_streams_at_once_each_get_what_they_asked_for() -> None:
    runner = Runner({"a": make_engine(max_rows=4), "b": make_engine()})
    prompts = [[1, 50 + n] for n in range(16)]

    async def ask(number: int) -> list[int]:
        async with runner.open("ab"[number % 2], Request(prompt=prompts[number], sampling=GREEDY)) as stream:
            return [event.id async for events in stream for event in events if event.id is not None]

    async def ask_all() -> list[list[int]]:
        return await asyncio.gather(*(ask(number) for number in range(16)))

    runner.start()
    found = asyncio.run(ask_all())
    runner.stop()
    alone = [draw_ids(random_model(), prompt, GREEDY, num_ids=TOKENIZER.vocab_size) for prompt in prompts]
    assert found == [[one.id for one in some] for some in alone]
    assert runner.num_open == 0


def test_leaving_a_stream_frees_its_slot_within_a_step() -> None:
    engine = make_engine()
    runner = Runner({"a": engine})

    async def leave() -> int:
        sampling = Sampling(temperature=0, max_tokens=200)
        async with runner.open("a", Request(prompt=[1], sampling=sampling)) as stream:
            async for _ in stream:
                return engine.counters.num_generated
        raise AssertionError

    runner.start()
    generated = asyncio.run(leave())
    wait_for(lambda: engine.is_idle)
    runner.stop()
    assert engine.counters.ends == {"cancelled": 1}
    # One step may have been under way, and one more have begun before the word arrived.
    assert engine.counters.num_generated <= generated + 3


def test_an_engine_that_breaks_ends_its_requests_and_serves_the_next() -> None:
    engine = make_engine()
    runner = Runner({"a": engine})
    admit, engine._admit = engine._admit, lambda: 1 / 0  # type: ignore[method-assign]

    async def ask() -> str | None:
        async with runner.open("a", Request(prompt=[1], sampling=GREEDY)) as stream:
            return [event.finish_reason async for events in stream for event in events][-1]

    runner.start()
    assert asyncio.run(ask()) == "error"
    engine._admit = admit  # type: ignore[method-assign]
    assert asyncio.run(ask()) == "length"
    runner.stop()
