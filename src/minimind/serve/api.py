"""The routes: OpenAI's chats, completions, responses and models, Anthropic's messages, health and metrics."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response

from minimind.errors import UserError
from minimind.generation.engine import Engine
from minimind.generation.grammar import Grammars
from minimind.generation.request import QueueFull, Request
from minimind.generation.sampling import Sampling
from minimind.serve.anthropic import AnthropicBody, CountBody, chat_of_anthropic
from minimind.serve.anthropic_reply import AnthropicReply
from minimind.serve.ask import chat_requests, completion_requests
from minimind.serve.metrics import render_metrics
from minimind.serve.problems import Problem, translated
from minimind.serve.replies import ChatChoice, Envelope, OpenAIReply, TextChoice
from minimind.serve.responses import ResponsesBody, chat_of_responses
from minimind.serve.responses_reply import ResponsesReply
from minimind.serve.runner import Runner, Stream
from minimind.serve.schema import AskBody, ChatBody, CompletionBody
from minimind.serve.streams import ReplyShape, answer, close_all

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
            close_all(streams)
            if isinstance(error, QueueFull):
                raise Problem(429, str(error), code="queue_full") from None
            raise Problem(400, str(error), code="invalid_value") from None
        return streams

    async def answer(
        self, body: AskBody, requests: Sequence[Request], reply: ReplyShape, http: HttpRequest
    ) -> Response:
        """Open the streams, and tell of them as the body asks. Errors: Problem"""
        streams = self.open(body.model, requests)
        return await answer(reply, streams, http.receive, is_streamed=bool(body.stream))


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
        reply = OpenAIReply(Envelope("chat.completion", body.model), choices, len(requests[0].prompt), body)
        return await service.answer(body, requests, reply, http)

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
        reply = OpenAIReply(Envelope("text_completion", body.model), choices, counted, body)
        return await service.answer(body, requests, reply, http)

    _add_translations(router, service)

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


def _add_translations(router: APIRouter, service: Service) -> None:
    """The routes of APIs that become chats."""

    async def chat(body: ChatBody) -> tuple[Request, ChatChoice]:
        """A chat with one answer, for the APIs that are translations."""
        engine, grammars = service.engine(body.model), service.grammars(body.model)
        [request] = await asyncio.to_thread(
            chat_requests, body, engine.tokenizer, service.defaults, engine.capacity, grammars
        )
        return request, ChatChoice(request, engine.tokenizer, 0)

    @router.post("/v1/responses")
    async def responses(body: ResponsesBody, http: HttpRequest) -> Response:
        request, choice = await chat(translated(chat_of_responses, body))
        return await service.answer(body, [request], ResponsesReply(body, choice, len(request.prompt)), http)

    @router.post("/v1/messages")
    async def messages(body: AnthropicBody, http: HttpRequest) -> Response:
        request, choice = await chat(translated(chat_of_anthropic, body))
        return await service.answer(body, [request], AnthropicReply(body.model, choice, len(request.prompt)), http)

    @router.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountBody) -> dict[str, int]:
        request, _ = await chat(translated(chat_of_anthropic, body))
        return {"input_tokens": len(request.prompt)}


def _model(service: Service, name: str) -> dict[str, Any]:
    """OpenAI's fields, and the context as other servers call it."""
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "minimind",
        "max_model_len": service.runner.engines[name].capacity,
    }
