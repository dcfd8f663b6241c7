"""Tokens per second of the serving engine against transformers' `generate`, and what HTTP adds.

The first table is `generation.py`'s, with the engine in place of the plain loop: the same random weights in float32,
greedy, the same prompts, a fixed number of new tokens, prompts included in the time, taking turns in one process.
transformers gets its requests as one padded batch, the engine as so many requests; "live" is the engine with the pass
that training samples with, through the model's own modules. The second table asks the same of
`minimind serve` over HTTP on this machine, streamed, and says what share of the engine's speed is lost. The third says
how much memory a stream takes. Needs `transformers`, `fastapi`, `uvicorn`.
"""

import argparse
import asyncio
import copy
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from common import make_parser, model_shape, peak_megabytes, print_machine, print_table, seconds_in_turn, start
from generation import _generate, _random_model, _tokenizer, _with_weights_of
from torch import Tensor

from minimind.generation.engine import Engine
from minimind.generation.live_forward import LiveForward
from minimind.generation.packed_weights import evaluating
from minimind.generation.precision import PRECISIONS
from minimind.generation.request import Request
from minimind.generation.sampling import Sampling
from minimind.model import ModelConfig, Transformer
from minimind.storage.checkpoint import save_checkpoint
from minimind.text.tokenizer import RESERVED

__all__ = ["main"]

RESERVED_IDS = len(RESERVED)
FIRST_IDS = itertools.cycle(range(RESERVED_IDS, RESERVED_IDS + 256))


def main() -> None:
    arguments = _parse()
    start(arguments.threads)
    print_machine()
    torch.manual_seed(0)
    model = _random_model(model_shape(arguments.shape, ModelConfig.vocab_size))
    # Their scores are 0 then, which is never the highest: no answer ends early.
    model.embed_tokens.weight.data[:RESERVED_IDS] = 0
    _compare_engines(arguments, model)
    _compare_http(arguments, model)
    _measure_memory(arguments, model)


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, shape="26m")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="requests at once (default 1 8 32)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt (default 64)")
    parser.add_argument("--new", type=int, default=128, help="tokens to generate (default 128)")
    parser.add_argument("--turns", type=int, default=5, help="times that each side generates (default 5)")
    return parser.parse_args()


def _compare_engines(arguments: argparse.Namespace, model: Transformer) -> None:
    twin = _with_weights_of(model)
    engines = {name: _warm(_engine(model, name), arguments) for name in PRECISIONS}
    live = _warm(Engine(model, _tokenizer(model.config.vocab_size), capacity=1024, forward=LiveForward), arguments)
    rows = []
    for batch in arguments.batches:
        prompts = torch.randint(model.config.vocab_size, (batch, arguments.prompt))
        sides = {"transformers": lambda p=prompts: _generate(twin, p, arguments.new)}
        for name, engine in engines.items():
            sides[name] = lambda p=prompts, e=engine: _answer(e, p, arguments.new)
        sides["live"] = lambda p=prompts: _answer_live(model, live, p, arguments.new)
        seconds = seconds_in_turn(sides, arguments.turns)
        speeds = {name: batch * arguments.new / taken for name, taken in seconds.items()}
        ratio = speeds["fp32"] / speeds["transformers"]
        rows.append((f"{batch} requests", *(speeds[name] for name in sides), ratio))
    print_table(
        f"new tokens/s, {arguments.shape} shape, prompts of {arguments.prompt}, {arguments.new} new tokens",
        ("", "transformers", *(f"engine {name}" for name in PRECISIONS), "live fp32", "fp32 ratio"),
        rows,
    )


def _compare_http(arguments: argparse.Namespace, model: Transformer) -> None:
    """The server is another process, as a real one is."""
    engine, rows = _warm(_engine(model, "fp32"), arguments), []
    with tempfile.TemporaryDirectory() as folder, _serve(model, folder, arguments.threads) as port:
        _ask_all(port, torch.randint(RESERVED_IDS, engine.vocab_size, (32, arguments.prompt)), arguments.new)
        for batch in arguments.batches:
            prompts = torch.randint(RESERVED_IDS, engine.vocab_size, (batch, arguments.prompt))
            sides = {
                "engine": lambda p=prompts: _answer(engine, p, arguments.new),
                "server": lambda p=prompts: _ask_all(port, p, arguments.new),
            }
            seconds = seconds_in_turn(sides, arguments.turns)
            speeds = [batch * arguments.new / seconds[name] for name in sides]
            rows.append((f"{batch} requests", *speeds, f"{1 - speeds[1] / speeds[0]:.1%}"))
    print_table("the same over HTTP, streamed, new tokens/s in fp32", ("", "engine", "server", "lost"), rows)


@contextmanager
def _serve(model: Transformer, folder: str, threads: int) -> Iterator[int]:
    """`minimind serve` with the model; its port."""
    save_checkpoint(folder, model, _tokenizer(model.config.vocab_size))
    words = ["serve", folder, "--name", "m", "--port", "0", "--context", "1024"]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with subprocess.Popen(
        [sys.executable, "-m", "minimind", *words], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split("/v1")[0].rpartition(":")[2])
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionError:
                time.sleep(0.05)
        try:
            yield port
        finally:
            process.terminate()


def _measure_memory(arguments: argparse.Namespace, model: Transformer) -> None:
    engine = _engine(model, "fp32")
    _answer(engine, torch.randint(model.config.vocab_size, (1, arguments.prompt)), arguments.new)
    before, batch = peak_megabytes(), max(arguments.batches)
    _answer(engine, torch.randint(model.config.vocab_size, (batch, arguments.prompt)), arguments.new)
    tokens = arguments.prompt + arguments.new
    exact = engine.slots.bytes_per_token * tokens / 1e6
    found = max(peak_megabytes() - before, 0) / max(batch - 1, 1)
    print_table(f"MB for a stream of {tokens} tokens", ("", "keys and values", "seen"), [("fp32", exact, found)])


def _engine(model: Transformer, precision: str) -> Engine:
    """Of a copy, for a precision changes its model; nothing ends an answer early."""
    return Engine(copy.deepcopy(model), _tokenizer(model.config.vocab_size), precision=precision, capacity=1024)


def _warm(engine: Engine, arguments: argparse.Namespace) -> Engine:
    """Let every slot be used once: memory is taken when it is first written, which a server does once."""
    _answer(engine, torch.randint(RESERVED_IDS, engine.vocab_size, (32, arguments.prompt)), arguments.new)
    return engine


def _answer(engine: Engine, prompts: Tensor, new: int) -> int:
    """All prompts at once; the number of tokens drawn."""
    sampling = Sampling(temperature=0.0, max_tokens=new)
    # Another first id each time: what the last turn left in the slots would save the engine the prompts.
    first = next(FIRST_IDS)
    for prompt in prompts.tolist():
        engine.submit(Request(prompt=[first, *prompt[1:]], sampling=sampling))
    return sum(event.id is not None for event in engine.run())


def _answer_live(model: Transformer, engine: Engine, prompts: Tensor, new: int) -> int:
    with evaluating(model):
        return _answer(engine, prompts, new)


def _ask_all(port: int, prompts: Tensor, new: int) -> None:
    """The same of the server, a stream for each prompt."""
    first = next(FIRST_IDS)

    async def ask() -> None:
        await asyncio.gather(*(_ask(port, [first, *prompt[1:]], new) for prompt in prompts.tolist()))

    asyncio.run(ask())


async def _ask(port: int, prompt: Sequence[int], new: int) -> None:
    """A request and its stream, read as bytes, for the client is not what is measured."""
    body = {"model": "m", "prompt": prompt, "max_tokens": new, "temperature": 0, "stream": True}
    content = json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    received = (await reader.read()).decode()
    writer.close()
    [drawn] = re.findall('"completion_tokens":([0-9]+)', received)
    assert int(drawn) == new, f"the server ended an answer after {drawn} tokens"


if __name__ == "__main__":
    main()
