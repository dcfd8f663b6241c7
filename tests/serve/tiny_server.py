"""A tiny model whose next token depends on all earlier ones, a tokenizer of some words, and a server of both."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import uvicorn
from tests.tiny import SHAPE, TOKENIZER, random_model

from minimind.generation.engine import Engine
from minimind.generation.sampling import Sampling
from minimind.generation.slot_attention import NewTokens
from minimind.serve.api import Service
from minimind.serve.app import build_app, make_server
from minimind.serve.guard import Policy
from minimind.serve.runner import Runner


class Scripted:
    """In place of a `Forward`: whatever the prompt, it says `script` id by id, then EOS, then from the start."""

    def __init__(self, script: list[int], vocab_size: int, pause: float = 0.0) -> None:
        self.script = [*script, TOKENIZER.eos_id]
        self.vocab_size = vocab_size
        self.pause = pause
        self.place = 0

    def __call__(self, chunks: Sequence[NewTokens]) -> torch.Tensor:
        return torch.zeros(sum(len(chunk.ids) for chunk in chunks), 1)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(states), self.vocab_size)
        scores[:, self.script[self.place % len(self.script)]] = 50.0
        self.place += 1
        time.sleep(self.pause)
        return scores


@dataclass(frozen=True)
class Running:
    """A server that listens: its address, and what it serves."""

    port: int
    service: Service
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, *texts: str, pause: float = 0.0) -> None:
        """The next answers of the model "scripted", `pause` seconds a token; control tokens may be spelled in them."""
        engine = self.service.runner.engines["scripted"]
        script = TOKENIZER.encode_with_control("<|im_end|>".join(texts))
        engine._forward = Scripted(script, SHAPE.vocab_size, pause)  # type: ignore[assignment]


def make_engine(**settings: Any) -> Engine:
    """With room for the words that tools take."""
    return Engine(random_model(max_position_embeddings=1024), TOKENIZER, **settings)


def make_service(**settings: Any) -> Service:
    engines = {name: make_engine(**settings) for name in ("tiny", "scripted")}
    return Service(Runner(engines), Sampling(temperature=1.0, top_p=1.0, max_tokens=24))


@contextmanager
def listen(service: Service, policy: Policy | None = None, **options: Any) -> Iterator[Running]:
    server = make_server(build_app(service, policy, **options), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield Running(server.servers[0].sockets[0].getsockname()[1], service, server)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_for(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Returns as soon as it holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.005)
