"""What the benchmarks share: options, data, model shapes, taking turns, peak memory, held-out loss, and a table.

Two sides of a comparison are never timed one after the other: they take turns, step by step, in one process, so that
whatever else the machine does hits both. A figure is the median over turns, and every table says on what it was taken.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minimind.evals.bits_per_byte import cut_documents
from minimind.model import ModelConfig
from minimind.text.conversation import Conversation, render
from minimind.text.tokenizer import Tokenizer
from minimind.training.device import fastest_dtype, reuse_freed_memory

__all__ = [
    "DTYPES",
    "SHAPES",
    "Encoded",
    "add_text_options",
    "dtype_name",
    "dtypes_to_compare",
    "figures_of_child",
    "held_out_bits_per_byte",
    "load_conversations",
    "load_texts",
    "make_parser",
    "model_shape",
    "peak_megabytes",
    "print_machine",
    "print_table",
    "read_rows",
    "seconds_in_turn",
    "start",
    "transformers_model",
    "typical_seconds",
]

SHAPES = {
    "tiny": ModelConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=176,
    ),
    "5m": ModelConfig(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        intermediate_size=704,
    ),
    "26m": ModelConfig(),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Above this much other work for each core, a figure says more about that work.
BUSY_LOAD = 0.2


def make_parser(description: str | None, *, shape: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have; the script's docstring is its help."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--shape", choices=SHAPES, default=shape, help=f"the model's shape (default {shape})")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch (default: what torch takes)")
    return parser


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """What a script needs that trains on texts and scores others."""
    parser.add_argument("--texts", type=Path, required=True, help="jsonl to learn from, such as pretrain_train.jsonl")
    parser.add_argument("--valid", type=Path, required=True, help="jsonl held out, such as pretrain_valid.jsonl")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json, or the folder that holds it")
    parser.add_argument("--limit", type=int, help="read only so many rows of each file")


def start(threads: int) -> None:
    """Set the threads, and let both sides keep freed memory: what training does, and worth a fifth to any loop."""
    if threads:
        torch.set_num_threads(threads)
    reuse_freed_memory()


def model_shape(name: str, vocab_size: int) -> ModelConfig:
    """A shape of the list, with the tokenizer's vocabulary."""
    return dataclasses.replace(SHAPES[name], vocab_size=vocab_size)


def dtypes_to_compare(choice: str) -> list[torch.dtype]:
    """float32, and beside it the dtype that training takes: by its probe for "auto", or as told."""
    chosen = fastest_dtype(torch.device("cpu")) if choice == "auto" else DTYPES[choice]
    return [torch.float32] if chosen == torch.float32 else [torch.float32, chosen]


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Documents in memory: what the loader packs, and what the plain loops pad."""

    ids: Sequence[np.ndarray]
    weights: Sequence[np.ndarray]

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(ids) for ids in self.ids], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, document: int) -> tuple[np.ndarray, np.ndarray]:
        return self.ids[document], self.weights[document]


def read_rows(path: Path, limit: int | None = None) -> list[dict]:
    """The objects of a jsonl file, or the first `limit` of them."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, limit)]


def load_texts(path: Path, tokenizer: Tokenizer, limit: int | None = None) -> Encoded:
    """BOS + text + EOS of each row; all is learnt but BOS."""
    texts = [row["text"] for row in read_rows(path, limit)]
    ids = [
        np.array([tokenizer.bos_id, *encoded, tokenizer.eos_id], dtype=np.int64)
        for encoded in tokenizer.encode_batch(texts)
    ]
    weights = [np.ones(len(document), dtype=np.float32) for document in ids]
    for document in weights:
        document[0] = 0
    return Encoded(ids, weights)


def load_conversations(path: Path, tokenizer: Tokenizer, limit: int | None = None) -> Encoded:
    """Each row as training renders it; what the assistant says is learnt."""
    rendered = [
        render(Conversation.parse(row, f"{path}:{line}"), tokenizer)
        for line, row in enumerate(read_rows(path, limit), start=1)
    ]
    return Encoded(
        [np.array(one.ids, dtype=np.int64) for one in rendered],
        [np.array(one.weights, dtype=np.float32) for one in rendered],
    )


def seconds_in_turn(sides: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """The median seconds of each side: once to warm up, then A B, B A, A B, ..."""
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            begin = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def typical_seconds(run: Callable[[], object], *, at_least: float) -> float:
    """The median seconds of `run` over `at_least` seconds, the first call left out."""
    run()
    seconds: list[float] = []
    while sum(seconds) < at_least or len(seconds) < 3:
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def peak_megabytes() -> float:
    """The most memory this process ever held. 1 MB is 10^6 bytes.

    getrusage would tell a child its parent's peak, which survives the exec: so the kernel's mark, where there is one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def figures_of_child(arguments: Sequence[str]) -> list[float]:
    """Run a script of ours in a fresh process; the numbers it prints, one a line."""
    done = subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return [float(line) for line in done.stdout.split()]


@torch.inference_mode()
def held_out_bits_per_byte(
    logits: Callable[[Tensor], Tensor], tokenizer: Tokenizer, rows: Sequence[Mapping], max_tokens: int = 1024
) -> float:
    """Summed loss over summed bytes of BOS + text + EOS, each document cut at `max_tokens`, in float32.

    logits: [B, T] ids -> [B, T, V]; any model, which is why this is not the package's own evaluation
    """
    documents = sorted(cut_documents(tokenizer, rows, max_tokens), key=lambda document: len(document.ids))
    nats = 0.0
    for first in range(0, len(documents), 4):
        batch = documents[first : first + 4]
        ids = torch.full((len(batch), max(len(document.ids) for document in batch)), -1)
        for row, document in zip(ids, batch, strict=True):
            row[: len(document.ids)] = torch.tensor(document.ids)
        # Padding is on the right, where causal attention never looks.
        scores = logits(ids[:, :-1].clamp_min(0)).float()
        nats += float(F.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-1, reduction="sum"))
    return nats / math.log(2) / sum(len(document.data) for document in documents)


def transformers_model(config: ModelConfig) -> Any:
    """transformers' Qwen3ForCausalLM of this shape, with its own initial weights. Needs the package `transformers`."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from minimind.storage.config_json import json_from_shape

    return Qwen3ForCausalLM(Qwen3Config.from_dict(json_from_shape(dataclasses.asdict(config), "benchmark")))


def print_machine() -> None:
    """What every figure below was taken on; a busy machine is named, for its figures mean little."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    print(
        f"{_processor()}, {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()}), load {load:.1f}"
    )
    if load / cores > BUSY_LOAD:
        print("warning: this machine is doing other work; do not quote these figures")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A title and aligned columns: the first to the left, figures to the right."""
    cells = [list(header), *([_shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    print(f"\n{title}")
    for row in cells:
        first, *others = (
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def _shown(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}" if abs(cell) < 1 else f"{cell:.2f}"
