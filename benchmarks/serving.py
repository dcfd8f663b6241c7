"""Tokens per second of the serving engine against transformers' `generate`, and what HTTP adds.

The first table is `generation.py`'s, with the engine in place of the plain loop: the same random weights in float32,
greedy, the same prompts, a fixed number of new tokens, prompts included in the time, taking turns in one process.
transformers gets its requests as one padded batch, the engine as so many requests. The second table asks the same of
the server over HTTP on this machine, streamed, every token an event, from a process of its own, and says what share of
the engine's speed is left. The third says how much memory a stream takes. Needs `transformers`, `fastapi`, `uvicorn`.
"""

import argparse
import asyncio
import copy
import itertools
import json
import random
import re
import statistics
import threading
import time
from collections.abc import Sequence

import torch
from common import (
    figures_of_child,
    make_parser,
    model_shape,
    peak_megabytes,
    print_machine,
    print_table,
    seconds_in_turn,
    start,
    typical_seconds,
)
from generation import _generate, _random_model, _with_weights_of
from torch import Tensor

from minimind.model import ModelConfig, Transformer
from minimind.sampling import Sampling
from minimind.serve.api import Service
from minimind.serve.app import build_app, make_server
from minimind.serve.engine import Engine
from minimind.serve.precision import PRECISIONS
from minimind.serve.request import Request
from minimind.serve.runner import Runner
from minimind.tokenizer import RESERVED, Tokenizer

__all__ = ["main"]

RESERVED_IDS = len(RESERVED)
FIRST_IDS = itertools.cycle(range(RESERVED_IDS, RESERVED_IDS + 256))


def main() -> None:
    arguments = _parse()
    if arguments.client:
        print(asyncio.run(_ask_all(arguments)))
        return
    start(arguments.threads)
    print_machine()
    torch.manual_seed(0)
    model = _random_model(model_shape(arguments.shape, ModelConfig.vocab_size))
    _compare_engines(arguments, model)
    _compare_http(arguments, model)
    _measure_memory(arguments, model)


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, shape="26m")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="requests at once (default 1 8 32)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt (default 64)")
    parser.add_argument("--new", type=int, default=128, help="tokens to generate (default 128)")
    parser.add_argument("--turns", type=int, default=5, help="times that each side generates (default 5)")
    parser.add_argument("--client", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def _compare_engines(arguments: argparse.Namespace, model: Transformer) -> None:
    twin = _with_weights_of(model)
    engines = {name: _warm(_engine(model, name), arguments) for name in PRECISIONS}
    rows = []
    for batch in arguments.batches:
        prompts = torch.randint(model.config.vocab_size, (batch, arguments.prompt))
        sides = {"transformers": lambda p=prompts: _generate(twin, p, arguments.new)}
        for name, engine in engines.items():
            sides[name] = lambda p=prompts, e=engine: _answer(e, p, arguments.new)
        seconds = seconds_in_turn(sides, arguments.turns)
        speeds = {name: batch * arguments.new / taken for name, taken in seconds.items()}
        ratio = speeds["fp32"] / speeds["transformers"]
        rows.append((f"{batch} requests", *(speeds[name] for name in sides), ratio))
    print_table(
        f"new tokens/s, {arguments.shape} shape, prompts of {arguments.prompt}, {arguments.new} new tokens",
        ("", "transformers", *(f"engine {name}" for name in PRECISIONS), "fp32 ratio"),
        rows,
    )


def _compare_http(arguments: argparse.Namespace, model: Transformer) -> None:
    """The client is another process, as a real one is."""
    rows = []
    for batch in arguments.batches:
        prompts = torch.randint(model.config.vocab_size, (batch, arguments.prompt))
        engine = _warm(_engine(model, "fp32"), arguments)
        alone = typical_seconds(lambda p=prompts, e=engine: _answer(e, p, arguments.new), at_least=3)
        server = make_server(build_app(Service(Runner({"m": engine}))), "127.0.0.1", 0)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        words = ["--batches", str(batch), "--prompt", str(arguments.prompt), "--new", str(arguments.new)]
        [served] = figures_of_child([__file__, "--client", str(port), "--turns", str(arguments.turns), *words])
        server.should_exit = True
        thread.join()
        speed = batch * arguments.new / alone
        rows.append((f"{batch} requests", speed, served, f"{1 - served / speed:.1%}"))
    print_table("the same over HTTP, streamed, new tokens/s in fp32", ("", "engine", "server", "lost"), rows)


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


def _tokenizer(size: int) -> Tokenizer:
    """As many ids as the model has, of no meaning."""
    letters = random.Random(0)
    words = ("".join(letters.choices("abcdefghijklmnop", k=6)) for _ in range(4 * size))
    tokenizer = Tokenizer.train([" ".join(words)], size)
    assert tokenizer.vocab_size == size, f"expected {size} ids, got {tokenizer.vocab_size}"
    return tokenizer


def _answer(engine: Engine, prompts: Tensor, new: int) -> int:
    """All prompts at once; the number of tokens drawn."""
    sampling = Sampling(temperature=0.0, max_tokens=new)
    # Another first id each time: what the last turn left in the slots would save the engine the prompts.
    first = next(FIRST_IDS)
    for prompt in prompts.tolist():
        engine.submit(Request(prompt=[first, *prompt[1:]], sampling=sampling))
    return sum(event.id is not None for event in engine.run())


async def _ask_all(arguments: argparse.Namespace) -> float:
    """Tokens per second of so many streams at once, the median over turns."""
    [batch] = arguments.batches
    speeds = []
    for turn in range(arguments.turns + 1):
        prompts = torch.randint(RESERVED_IDS, 6400, (batch, arguments.prompt))
        prompts[:, 0] = RESERVED_IDS + turn
        begin = time.perf_counter()
        drawn = await asyncio.gather(*(_ask(arguments, prompt) for prompt in prompts.tolist()))
        speeds.append(sum(drawn) / (time.perf_counter() - begin))
    return statistics.median(speeds[1:])


async def _ask(arguments: argparse.Namespace, prompt: Sequence[int]) -> int:
    """A request and its stream, read as bytes, for the client is not what is measured: the tokens it brought."""
    body = {"model": "m", "prompt": prompt, "max_tokens": arguments.new, "temperature": 0, "stream": True}
    content = json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", arguments.client)
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    received = (await reader.read()).decode()
    writer.close()
    [drawn] = re.findall('"completion_tokens":([0-9]+)', received)
    return int(drawn)


if __name__ == "__main__":
    main()
