"""How much of the machine's arithmetic training uses: a whole step beside bare matrix products, in turn.

A step is everything the trainer does: making the batch, forward, backward, clipping, optimiser. It counts only the
operations that the mathematics needs, whatever is computed beside them (masked scores, casts, Muon's iterations,
recomputation), so the share is of useful work:

    forward and backward of a token:  6 * matrix parameters  +  12 * layers * heads * head width * positions it sees

Matrix parameters are all 2-D weights, a tied embedding once, as the head; looking up an embedding is free. A position
of a document of n sees (n + 1) / 2 of them on average, itself included. Each product takes 2 operations per weight
and token forward and 4 backward; attention's two products likewise.

The yardstick is the best rate of `F.linear` in float32 at the shapes of the feed-forward part, over several numbers of
rows. The share of float32's rate is given for bfloat16 too; above 100 % it only says that bfloat16 pays. Tokens are
random: their values change nothing here. A step is that of the shape's recipe: for 26m it has 32,768 tokens in 8
micro-batches and takes about a minute on two cores. With --set batch_tokens=4096 --set accumulate=1 the optimiser
weighs eight times as much.
"""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    DTYPES,
    Encoded,
    make_parser,
    model_shape,
    print_machine,
    print_table,
    seconds_in_turn,
    start,
)
from sides import add_train_options, train_settings, trainer

from minimind.model import ModelConfig, Transformer
from minimind.training.settings import TrainConfig

__all__ = ["main"]

CONTEXT = 1024
# A turn of bare products takes about this long.
PRODUCT_SECONDS = 0.2


def main() -> None:
    arguments = _parse()
    start(arguments.threads)
    print_machine()
    config = model_shape(arguments.shape, arguments.vocabulary)
    settings: TrainConfig = arguments.settings
    products = {
        (dtype, rows, shape): _Product(dtype, rows, *shape)
        for dtype in arguments.dtypes
        for rows in arguments.rows
        for shape in ((config.hidden_size, config.intermediate_size), (config.intermediate_size, config.hidden_size))
    }
    documents = _random_documents(config.vocab_size, arguments.document, settings.batch_tokens or 0)
    steps = {
        dtype: trainer(config, documents, settings, dtype=DTYPES[dtype], context=CONTEXT).update
        for dtype in arguments.dtypes
    }
    seconds = seconds_in_turn({str(key): run for key, run in (products | steps).items()}, arguments.turns)

    rates = {key: product.operations / seconds[str(key)] / 1e9 for key, product in products.items()}
    print_table(
        "F.linear, GFLOP/s",
        ("rows, shape", *arguments.dtypes),
        [
            (f"{rows:,} x {shape[0]} -> {shape[1]}", *(rates[dtype, rows, shape] for dtype in arguments.dtypes))
            for (first, rows, shape) in products
            if first == arguments.dtypes[0]
        ],
    )
    best = {dtype: max(rate for key, rate in rates.items() if key[0] == dtype) for dtype in arguments.dtypes}
    tokens = len(documents) * arguments.document
    work = tokens * operations_per_token(config, arguments.document) / 1e9
    rows = []
    for dtype in arguments.dtypes:
        rate = work / seconds[dtype]
        shares = (f"{rate / best['float32']:.0%}", f"{rate / best[dtype]:.0%}")
        rows.append((dtype, seconds[dtype], tokens / seconds[dtype], rate, *shares))
    print_table(
        f"training steps of {tokens:,} tokens, {arguments.shape} shape, documents of {arguments.document}, "
        f"{settings.optimizer}; {operations_per_token(config, arguments.document) / 1e6:.0f} MFLOP a token",
        ("dtype", "seconds", "tokens/s", "GFLOP/s", "of float32 F.linear", "of F.linear in this dtype"),
        rows,
    )


def operations_per_token(config: ModelConfig, document: int) -> float:
    """The floating-point operations that forward and backward need for one token of a document of so many positions."""
    with torch.device("meta"):
        model = Transformer(config)
    matrices = sum(weight.numel() for weight in model.parameters() if weight.ndim == 2)
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    attention = config.num_hidden_layers * config.num_attention_heads * config.head_dim * (document + 1) / 2
    return 6 * (matrices - looked_up) + 12 * attention


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, shape="26m")
    parser.add_argument("--vocabulary", type=int, default=ModelConfig.vocab_size, help="ids (default 6400)")
    parser.add_argument("--document", type=int, default=256, help="positions of each document (default 256)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 4096, 8192], help="rows of the bare products")
    parser.add_argument(
        "--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="float32 has to be among them"
    )
    parser.add_argument("--turns", type=int, default=5, help="steps of each dtype (default 5)")
    add_train_options(parser)
    arguments = parser.parse_args()
    if "float32" not in arguments.dtypes:
        parser.error("--dtypes: float32 has to be among them, it is the yardstick")
    arguments.settings = train_settings(parser, arguments.shape, arguments.set)
    return arguments


class _Product:
    """As many calls of F.linear as fill a turn."""

    def __init__(self, dtype: str, rows: int, width: int, inner: int) -> None:
        self.x, self.weight = (torch.randn(n, width, dtype=DTYPES[dtype]) for n in (rows, inner))
        F.linear(self.x, self.weight)
        begin = time.perf_counter()
        F.linear(self.x, self.weight)
        self.calls = max(1, round(PRODUCT_SECONDS / (time.perf_counter() - begin)))
        self.operations = 2.0 * rows * width * inner * self.calls

    @torch.inference_mode()
    def __call__(self) -> None:
        for _ in range(self.calls):
            F.linear(self.x, self.weight)


def _random_documents(vocab_size: int, document: int, batch_tokens: int) -> Encoded:
    """As many as fill a step's rows: each has one id more than positions, the last target."""
    random = np.random.default_rng(0)
    count = batch_tokens // CONTEXT * (CONTEXT // document)
    ids = [random.integers(vocab_size, size=document + 1) for _ in range(count)]
    return Encoded(ids, [np.ones(document + 1, dtype=np.float32)] * count)


if __name__ == "__main__":
    main()
