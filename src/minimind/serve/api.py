"""The routes of OpenAI's API: chat completions, completions, models, health and metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from minimind.errors import UserError
from minimind.generation.engine import Engine
from minimind.generation.grammar import Grammars
from minimind.generation.request import Event, QueueFull, Request
from minimind.generation.sampling import Sampling
from minimind.serve.ask import chat_requests, completion_requests
from minimind.serve.metrics import render_metrics
from minimind.serve.problems import Problem
from minimind.serve.replies import DONE, ChatChoice, Envelope, TextChoice, chunk, usage
from minimind.serve.runner import Runner, Stream
from minimind.serve.schema import ChatBody, CompletionBody, GenerationBody

__all__ = ["Service", "make_router"]


@dataclass
class Service:
    """What the routes need.

    runner:    engines by the names of their models
    defaults:  settings that a request does not give
    """

    runner: Runner
    defaults: Sampling = field(default_factory=lambda: Sampling(max_tokens=512))
    started: int = field(default_factory=lambda: int(time.time()))
    _grammars: dict[str, Grammars] = field(default_factory=dict)

    def engine(self, model: str) -> Engine:
        if model not in self.runner.engines:
            names = ", ".join(self.runner.engines)
            raise Problem(
                404, f"there is no such model; this server has {names}", param="model", code="model_not_found"
            )
        return self.runner.engines[model]

    def grammars(self, model: str) -> Grammars:
        """Those of a model's tokenizer, made once."""
        if model not in self._grammars:
            self._grammars[model] = Grammars(self.engine(model).tokenizer)
        return self._grammars[model]

    def open(self, model: str, requests: Sequence[Request]) -> list[Stream]:
        """All of them, or none. Errors: Problem"""
        streams: list[Stream] = []
        try:
            self.engine(model).require_room(requests)
            for request in requests:
                streams.append(self.runner.open(model, request))
        except UserError as error:
            _close(streams)
            if isinstance(error, QueueFull):
                raise Problem(429, str(error), code="queue_full") from None
            raise Problem(400, str(error), code="invalid_value") from None
        return streams


def make_router(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody, http: HttpRequest) -> Response:
        engine = service.engine(body.model)
        grammars = service.grammars(body.model)
        # In a thread: a long prompt or schema takes its time, and the streams of others must not wait.
        requests = await asyncio.to_thread(
            chat_requests, body, engine.tokenizer, service.defaults, engine.capacity, grammars
        )
        choices = [ChatChoice(request, engine.tokenizer, index) for index, request in enumerate(requests)]
        counted = len(requests[0].prompt)
        return await _reply(service, body, http, Envelope("chat.completion", body.model), requests, choices, counted)

    @router.post("/v1/completions")
    async def completions(body: CompletionBody, http: HttpRequest) -> Response:
        engine = service.engine(body.model)
        requests = await asyncio.to_thread(
            completion_requests, body, engine.tokenizer, service.defaults, engine.capacity
        )
        is_text = isinstance(body.prompt, str) or isinstance(body.prompt[0], str)
        choices = [
            TextChoice(
                engine.tokenizer,
                index,
                echo=request.prompt if body.echo else None,
                num_added=int(is_text),
                has_scores=body.logprobs is not None,
            )
            for index, request in enumerate(requests)
        ]
        counted = sum(len(request.prompt) for request in requests[:: body.n or 1])
        return await _reply(service, body, http, Envelope("text_completion", body.model), requests, choices, counted)

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service, name) for name in service.runner.engines]}

    # A name may be a path.
    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.engine(name)
        return _model(service, name)

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(render_metrics(service.runner.engines), media_type="text/plain; version=0.0.4")

    return router


def _model(service: Service, name: str) -> dict[str, Any]:
    """OpenAI's fields, and the context as other servers call it."""
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "minimind",
        "max_model_len": service.runner.engines[name].capacity,
    }


async def _reply(
    service: Service,
    body: GenerationBody,
    http: HttpRequest,
    envelope: Envelope,
    requests: Sequence[Request],
    choices: Sequence[ChatChoice | TextChoice],
    num_prompt: int,
) -> Response:
    """Open the streams, then answer whole or in chunks. Whatever ends the reply, the streams are closed."""
    streams = service.open(body.model, requests)

    def counted() -> dict[str, int]:
        return usage(num_prompt, sum(choice.num_drawn for choice in choices))

    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return _EventStream(_chunks(envelope, streams, choices, counted if with_usage else None), streams)

    async def whole() -> Response:
        async for index, events in _merged(streams):
            choices[index].push(events)
        return JSONResponse(envelope.whole([choice.whole() for choice in choices], counted()))

    try:
        # Nobody is left to read the reply of a client that is gone, so any will do.
        return await _unless_gone(http.receive, whole) or Response(status_code=499)
    finally:
        _close(streams)


async def _chunks(
    envelope: Envelope,
    streams: Sequence[Stream],
    choices: Sequence[ChatChoice | TextChoice],
    counted: Callable[[], Mapping[str, int]] | None,
) -> AsyncIterator[bytes]:
    first = [begun for choice in choices if (begun := choice.begin()) is not None]
    for begun in first:
        yield envelope.part([begun])
    try:
        async for index, events in _merged(streams):
            parts = choices[index].push(events)
            if parts:
                yield b"".join(envelope.part([part]) for part in parts)
    except Problem as problem:
        yield chunk(problem.body())
    if counted is not None:
        yield envelope.part([], counted())
    yield DONE


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
            _close(self._streams)

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


def _close(streams: Sequence[Stream]) -> None:
    for stream in streams:
        stream.close()
