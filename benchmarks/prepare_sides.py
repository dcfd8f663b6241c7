"""One side of `prepare.py` in a process of its own, which imports nothing that the side does not need.

python benchmarks/prepare_sides.py loop|plain|clean TEXTS TOKENIZER OUT
"""

import json
import sys
from pathlib import Path

import numpy as np

__all__ = ["main"]


def main() -> None:
    side, *paths = sys.argv[1:]
    {"loop": _loop, "plain": _ours, "clean": _ours_cleaned}[side](*map(Path, paths))


def _loop(texts: Path, tokenizer: Path, out: Path) -> None:
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer))
    ids: list[int] = []
    with texts.open(encoding="utf-8") as file:
        for line in file:
            ids += [1, *encoder.encode(json.loads(line)["text"], add_special_tokens=False).ids, 2]
    np.array(ids, dtype=np.uint16).tofile(out)


def _ours(texts: Path, tokenizer: Path, out: Path, **options: object) -> None:
    from minimind.data.prepare import PrepareOptions, prepare
    from minimind.text.tokenizer import Tokenizer

    prepare([texts], Tokenizer.load(tokenizer), out, PrepareOptions(**options))


def _ours_cleaned(texts: Path, tokenizer: Path, out: Path) -> None:
    from minimind.data.options import CleanConfig, DedupConfig

    _ours(texts, tokenizer, out, clean=CleanConfig(), dedup=DedupConfig(near=True))


if __name__ == "__main__":
    main()
