"""Preparation: `minimind prepare` against the loop one would write around `tokenizers`, in speed and in memory.

The loop reads a line, parses it, encodes the text, appends the ids to a list, and writes one array at the end: no
checks, no hashes, no split. Ours validates each row, hashes each document, splits, and writes shards with their hashes,
on all cores; the second row for it adds cleaning and the removal of exact and near duplicates.

Each side runs in a fresh process, in turn, over the file given and over that file --times over, which shows what grows
with the data. Speed counts the bytes of the file; memory is the highest sum over the process and its workers.
"""

import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import numpy as np
from common import make_parser, print_machine, print_table

__all__ = ["main"]

SCRIPT = Path(__file__).with_name("prepare_sides.py")
SIDES = {
    "tokenizers in a loop": "loop",
    "minimind": "plain",
    "minimind, cleaned and deduplicated": "clean",
}


def main() -> None:
    parser = make_parser(__doc__, shape="5m")
    parser.add_argument("--texts", type=Path, required=True, help="jsonl with texts, such as pretrain_train.jsonl")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json, or the folder that holds it")
    parser.add_argument("--times", type=int, default=4, help="how many times over in the second part (default 4)")
    parser.add_argument("--turns", type=int, default=3, help="runs of each side (default 3)")
    arguments = parser.parse_args()
    print_machine()
    with TemporaryDirectory() as folder:
        many = Path(folder) / "many.jsonl"
        many.write_bytes(arguments.texts.read_bytes() * arguments.times)
        for texts in (arguments.texts, many):
            _compare(arguments, texts, Path(folder))


def _compare(arguments: Namespace, texts: Path, folder: Path) -> None:
    megabytes = texts.stat().st_size / 1e6
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for turn in range(arguments.turns):
        for name in list(SIDES)[:: -1 if turn % 2 else 1]:
            out = folder / f"{SIDES[name]}-{turn}-{texts.stem}"
            words = [sys.executable, SCRIPT, SIDES[name], texts, arguments.tokenizer, out]
            found[name].append(_measured([*map(str, words)]))
    rows = []
    for name, figures in found.items():
        seconds, memory = (float(np.median(part)) for part in zip(*figures, strict=True))
        rows.append((name, seconds, megabytes / seconds, memory))
    print_table(f"{megabytes:,.0f} MB of text, {arguments.turns} turns", ("side", "seconds", "MB/s", "peak MB"), rows)


def _measured(command: list[str]) -> tuple[float, float]:
    """Seconds, and the highest memory of the process and its children together, in MB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak, over = [0.0], Event()
    watcher = Thread(target=_watch, args=(process.pid, peak, over))
    watcher.start()
    _, errors = process.communicate()
    over.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{errors}")
    return time.perf_counter() - begin, peak[0]


def _watch(pid: int, peak: list[float], over: Event) -> None:
    while not over.wait(0.05):
        peak[0] = max(peak[0], sum(map(_resident, [pid, *_children(pid)])))


def _children(pid: int) -> Iterator[int]:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, words):
        yield child
        yield from _children(child)


def _resident(pid: int) -> float:
    """Memory that counts for this process alone, plus its share of what is shared, in MB of 10^6 bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


if __name__ == "__main__":
    main()
