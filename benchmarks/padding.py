"""What padding costs: packed training against a loop that pads every row, in speed and in memory.

Speed is real tokens per second: positions that have an id to predict after them, padding left out, whether weighted or
not. Both sides train the same model class at the same shape on the same documents, take turns step by step in one
process, and keep freed memory. Ours packs documents into rows of --context, computes logits where there is weight, and
trains as the shape's recipe says, with Muon; the plain loop gives each document a row of 768 (conversations) or 340
(texts) positions, cuts what is longer, computes all logits, and uses AdamW. A step's time is the median over turns; its
real tokens are the average over the whole data, since single batches differ.

The headline compares at the same dtype. The last row compares what one gets without choosing: ours in the dtype its
probe picks, the plain loop in float32.

Memory is the peak of a fresh process that takes two steps over the same conversations, as many as a plain batch has:
the whole process (Python and torch, weights and optimiser state), and what the steps added to the process before them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from common import (
    DTYPES,
    Encoded,
    dtype_name,
    dtypes_to_compare,
    figures_of_child,
    load_conversations,
    load_texts,
    make_parser,
    model_shape,
    peak_megabytes,
    print_machine,
    print_table,
    seconds_in_turn,
    start,
)
from sides import PaddedLoop, train_settings, trainer

from minimind.data.loader import PackedRows
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer
from minimind.training.settings import TrainConfig

__all__ = ["main"]

WIDTHS = {"conversations": 768, "texts": 340}
STAGES = {"conversations": "5-sft", "texts": "3-pretrain"}


def main() -> None:
    arguments = _parse()
    start(arguments.threads)
    tokenizer = Tokenizer.load(arguments.tokenizer)
    if arguments.memory_of:
        documents = load_conversations(arguments.conversations, tokenizer, arguments.sft_batch)
        print("\n".join(map(str, _memory_of(arguments, tokenizer, documents))))
        return
    print_machine()
    arguments.dtypes = dtypes_to_compare(arguments.dtype)
    if arguments.conversations:
        documents = load_conversations(arguments.conversations, tokenizer, arguments.limit)
        _compare_speed("conversations", arguments, tokenizer, documents, batch=arguments.sft_batch)
        _compare_memory(arguments)
    if arguments.texts:
        documents = load_texts(arguments.texts, tokenizer, arguments.limit)
        _compare_speed("texts", arguments, tokenizer, documents, batch=arguments.pretrain_batch)


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, shape="26m")
    parser.add_argument("--conversations", type=Path, help="jsonl with conversations, such as sft_train.jsonl")
    parser.add_argument("--texts", type=Path, help="jsonl with texts, such as pretrain_train.jsonl")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json, or the folder that holds it")
    parser.add_argument("--turns", type=int, default=5, help="steps of each side (default 5)")
    parser.add_argument(
        "--dtype", choices=("auto", *DTYPES), default="auto", help="ours by default (auto: the probe's)"
    )
    parser.add_argument("--context", type=int, default=1024, help="width of our rows (default 1024)")
    parser.add_argument("--sft-batch", type=int, default=16, help="rows of a plain batch of conversations (default 16)")
    parser.add_argument("--pretrain-batch", type=int, default=32, help="rows of a plain batch of texts (default 32)")
    parser.add_argument("--limit", type=int, help="read only so many rows of each file")
    parser.add_argument("--memory-of", choices=("ours", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not (arguments.conversations or arguments.texts):
        parser.error("give --conversations, --texts or both")
    arguments.settings = {kind: train_settings(parser, arguments.shape, stage=stage) for kind, stage in STAGES.items()}
    return arguments


def _compare_speed(
    kind: str, arguments: argparse.Namespace, tokenizer: Tokenizer, documents: Encoded, *, batch: int
) -> None:
    config = model_shape(arguments.shape, tokenizer.vocab_size)
    dtypes, settings = arguments.dtypes, arguments.settings[kind]
    ours = {dtype: trainer(config, documents, settings, dtype=dtype, context=arguments.context) for dtype in dtypes}
    plain = {
        dtype: PaddedLoop(Transformer(config), documents, width=WIDTHS[kind], batch=batch, dtype=dtype)
        for dtype in dtypes
    }
    sides = {f"ours {dtype}": side.update for dtype, side in ours.items()}
    sides |= {f"plain {dtype}": side.step for dtype, side in plain.items()}
    seconds = seconds_in_turn(sides, arguments.turns)

    source = ours[torch.float32].source
    assert isinstance(source, PackedRows)
    packed_per_step = source.fill * arguments.context * min(source.items_per_step, len(source.rows))
    loop = plain[torch.float32]
    speeds = {dtype: packed_per_step / seconds[f"ours {dtype}"] for dtype in dtypes}
    plain_speeds = {dtype: loop.real_per_step / seconds[f"plain {dtype}"] for dtype in dtypes}
    pairs = {dtype_name(dtype): (speeds[dtype], plain_speeds[dtype]) for dtype in dtypes}
    pairs[f"{dtype_name(dtypes[-1])} against float32"] = speeds[dtypes[-1]], plain_speeds[torch.float32]
    print_table(
        f"{kind}: real tokens/s, {arguments.shape} shape, {arguments.turns} turns; a plain row of {WIDTHS[kind]} is "
        f"{loop.real_per_row / WIDTHS[kind]:.0%} full and keeps {loop.share_kept:.0%} of the tokens, ours are "
        f"{source.fill:.1%} full and keep all",
        ("dtype", "packed", "padded", "ratio"),
        [(name, *pair, pair[0] / pair[1]) for name, pair in pairs.items()],
    )


def _compare_memory(arguments: argparse.Namespace) -> None:
    rows = []
    for dtype in arguments.dtypes:
        peaks = {
            side: figures_of_child([*sys.argv, "--memory-of", side, "--dtype", dtype_name(dtype)])
            for side in ("ours", "plain")
        }
        for index, name in enumerate(("whole process", "steps alone")):
            ours, plain = peaks["ours"][index], peaks["plain"][index]
            rows.append((f"{dtype_name(dtype)}, {name}", ours, plain, ours / plain))
    print_table(
        f"conversations: peak MB of steps over {arguments.sft_batch} conversations, {arguments.shape} shape",
        ("dtype", "packed", "padded", "ratio"),
        rows,
    )


def _memory_of(arguments: argparse.Namespace, tokenizer: Tokenizer, documents: Encoded) -> tuple[float, float]:
    """Of this process: its peak over two steps, the second with optimiser state; and that less the peak before."""
    config, dtype = model_shape(arguments.shape, tokenizer.vocab_size), DTYPES[arguments.dtype]
    if arguments.memory_of == "ours":
        # Rows enough for any packing, so that one step takes all conversations.
        rows = int(np.ceil((documents.lengths - 1) / arguments.context).sum())
        settings = TrainConfig(batch_tokens=rows * arguments.context)
        step = trainer(config, documents, settings, dtype=dtype, context=arguments.context).update
    else:
        width, batch = WIDTHS["conversations"], len(documents)
        step = PaddedLoop(Transformer(config), documents, width=width, batch=batch, dtype=dtype).step
    before = peak_megabytes()
    step()
    step()
    return peak_megabytes(), peak_megabytes() - before


if __name__ == "__main__":
    main()
