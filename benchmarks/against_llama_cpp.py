"""Tokens per second of the serving engine against llama.cpp, which reads the same weights from our GGUF files.

The engine's float32 beside llama.cpp's F32, its int8 beside Q8_0: the same random weights, greedy, the same prompts as
ids, a fixed number of new tokens, prompts included in the time. llama.cpp is called through node-llama-cpp, whose own
share is counted in: a process that is started once and asked in turn with the engine. Needs node, and a folder with the
npm packages node-llama-cpp and @node-llama-cpp/linux-x64 (`make llama` makes one).
"""

import argparse
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from common import make_parser, model_shape, print_machine, print_table, seconds_in_turn, start
from generation import _random_model
from serving import _answer, _engine, _tokenizer, _warm

from minimind.interop.gguf_writer import GgufKind, export_gguf
from minimind.model import ModelConfig

__all__ = ["main"]

HERE = Path(__file__).parent
# Kinds of weights that are about alike: of the engine, and of a GGUF file.
PAIRS = {"fp32": "F32", "int8": "Q8_0"}


def main() -> None:
    arguments = _parse()
    start(arguments.threads)
    print_machine()
    torch.manual_seed(0)
    model = _random_model(model_shape(arguments.shape, ModelConfig.vocab_size))
    rows = []
    with TemporaryDirectory() as folder:
        for precision, kind in PAIRS.items():
            place = Path(folder) / f"model-{kind}"
            export_gguf(place, model, _tokenizer(model.config.vocab_size), kind=cast(GgufKind, kind))
            engine = _warm(_engine(model, precision), arguments)
            with _llama(arguments, next(place.glob("*.gguf"))) as llama:
                for batch in arguments.batches:
                    prompts = torch.randint(36, model.config.vocab_size, (batch, arguments.prompt))
                    sides = {
                        "ours": lambda p=prompts, e=engine: _answer(e, p, arguments.new),
                        "theirs": lambda p=prompts, ask=llama: ask(p.tolist(), arguments.new),
                    }
                    seconds = seconds_in_turn(sides, arguments.turns)
                    ours, theirs = (batch * arguments.new / seconds[side] for side in ("ours", "theirs"))
                    rows.append((f"{precision} / {kind}, {batch} requests", ours, theirs, ours / theirs))
    print_table(
        f"new tokens/s, {arguments.shape} shape, prompts of {arguments.prompt}, {arguments.new} new tokens",
        ("", "engine", "llama.cpp", "ratio"),
        rows,
    )


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, shape="26m")
    parser.add_argument("--llama", type=Path, default=Path(".venv/llama"), help="the packages (default .venv/llama)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="requests at once (default 1 8 32)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt (default 64)")
    parser.add_argument("--new", type=int, default=128, help="tokens to generate (default 128)")
    parser.add_argument("--turns", type=int, default=5, help="times that each side generates (default 5)")
    return parser.parse_args()


@contextmanager
def _llama(arguments: argparse.Namespace, model: Path) -> Iterator["_Ask"]:
    words = ["node", HERE / "llama_cpp.mjs", arguments.llama.resolve(), model, torch.get_num_threads()]
    with subprocess.Popen([*map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        ask = _Ask(process)
        yield ask
        assert process.stdin is not None
        process.stdin.close()


class _Ask:
    """llama.cpp in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._expect("ready")

    def __call__(self, prompts: Sequence[Sequence[int]], new: int) -> None:
        """Let all prompts be continued by `new` tokens."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "new": new}) + "\n")
        self._process.stdin.flush()
        self._expect(str(len(prompts) * new))

    def _expect(self, expected: str) -> None:
        assert self._process.stdout is not None
        found = self._process.stdout.readline().strip()
        assert found == expected, f"llama.cpp said {found!r}, expected {expected!r}"


if __name__ == "__main__":
    main()
