"""The same shape, data and time: `minimind`'s recipe against transformers' Qwen3ForCausalLM in a plain loop.

The plain loop is what a tutorial would write: rows of one document cut or padded to 340 tokens, batches of 32, all
logits, AdamW at 5e-4 falling to a tenth by a cosine that ends with the time, gradient clipping at 1. It gets no
attention mask (causal attention never sees padding on the right, and a mask is slower), rows padded before the clock
starts, the fused AdamW and kept freed memory. It runs in float32, and once more under bfloat16 autocast where
`minimind`'s probe picks that for itself.

The sides train in slices, in turn, each on its own clock, which counts steps alone. Then one scorer takes all models,
in float32: bits per byte of held-out text (BOS + text + EOS, at most 1,024 tokens of a document, summed loss over
summed bytes). Real tokens per second leave padding out. Needs the package `transformers`.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Protocol

import torch
from common import (
    DTYPES,
    Encoded,
    add_text_options,
    dtype_name,
    dtypes_to_compare,
    held_out_bits_per_byte,
    load_texts,
    make_parser,
    model_shape,
    print_machine,
    print_table,
    read_rows,
    start,
    transformers_model,
)
from sides import PaddedLoop, TimedRun, train_settings, trainer
from torch import Tensor, nn

from minimind.model import ModelConfig
from minimind.text.tokenizer import Tokenizer

__all__ = ["main"]

WIDTH, BATCH, RATE = 340, 32, 5e-4


class Run(Protocol):
    """One side: steps until its own clock is at its end."""

    seconds: float

    @property
    def is_over(self) -> bool: ...
    @property
    def tokens(self) -> int: ...
    def step(self) -> None: ...


class PlainRun:
    """The plain loop against the clock, its rate a cosine of the time."""

    def __init__(self, config: ModelConfig, documents: Encoded, dtype: torch.dtype, seconds: float) -> None:
        self.budget, self.seconds = seconds, 0.0
        torch.manual_seed(0)
        self.model = transformers_model(config).train()
        logits = _logits(self.model)
        self.loop = PaddedLoop(self.model, documents, width=WIDTH, batch=BATCH, dtype=dtype, logits=logits, lr=RATE)

    @property
    def is_over(self) -> bool:
        return self.seconds >= self.budget

    @property
    def tokens(self) -> int:
        return self.loop.tokens

    def step(self) -> None:
        begin = time.perf_counter()
        self.loop.set_rate(RATE * (0.55 + 0.45 * math.cos(math.pi * self.seconds / self.budget)))
        self.loop.step()
        self.seconds += time.perf_counter() - begin


def main() -> None:
    arguments = _parse()
    start(arguments.threads)
    print_machine()
    tokenizer = Tokenizer.load(arguments.tokenizer)
    documents = load_texts(arguments.texts, tokenizer, arguments.limit)
    valid = read_rows(arguments.valid, arguments.limit)
    config = model_shape(arguments.shape, tokenizer.vocab_size)
    dtypes = dtypes_to_compare(arguments.dtype)
    ours = TimedRun(lambda: trainer(config, documents, arguments.settings, dtype=dtypes[-1]), arguments.seconds)
    plain = {
        f"transformers, {dtype_name(dtype)}": PlainRun(config, documents, dtype, arguments.seconds) for dtype in dtypes
    }
    sides: dict[str, Run] = {f"minimind, {dtype_name(dtypes[-1])}": ours, **plain}
    _train_in_turn(list(sides.values()), arguments.seconds, arguments.slice)

    models: dict[str, Callable[[Tensor], Tensor]] = {name: _logits(side.model.eval()) for name, side in plain.items()}
    ours_name = next(iter(sides))
    models[ours_name] = ours.trainer.model.eval()
    scores = {name: held_out_bits_per_byte(models[name], tokenizer, valid) for name in sides}
    speeds = {name: side.tokens / side.seconds for name, side in sides.items()}
    print_table(
        f"{arguments.shape} shape, {tokenizer.vocab_size:,} ids, {len(documents):,} documents",
        ("side", "trained s", "real tokens/s", "our ratio", "bits per byte", "ours less"),
        [
            (
                name,
                side.seconds,
                speeds[name],
                speeds[ours_name] / speeds[name],
                score,
                scores[name] - scores[ours_name],
            )
            for (name, side), score in zip(sides.items(), scores.values(), strict=True)
        ],
    )


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, shape="5m")
    add_text_options(parser)
    parser.add_argument("--seconds", type=float, default=300, help="training time of each side (default 300)")
    parser.add_argument("--slice", type=float, default=10, help="seconds of a turn (default 10)")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="ours (auto: the probe's)")
    arguments = parser.parse_args()
    arguments.settings = train_settings(parser, arguments.shape)
    return arguments


def _train_in_turn(sides: list[Run], seconds: float, slice_seconds: float) -> None:
    for turn in range(1, math.ceil(seconds / slice_seconds) + 1):
        for side in sides[:: -1 if turn % 2 else 1]:
            while side.seconds < turn * slice_seconds and not side.is_over:
                side.step()


def _logits(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda tokens: model(input_ids=tokens, use_cache=False).logits


if __name__ == "__main__":
    main()
