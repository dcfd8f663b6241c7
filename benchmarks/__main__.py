"""`python -m benchmarks`: all comparisons, one after the other, on your data or on the built-in corpus.

With the built-in corpus a tokenizer of 6,400 ids is trained first, and a tenth of the texts is held out by their hash.
What needs transformers or llama.cpp is left out where those are not installed. About 50 minutes on two cores; --seconds
shortens it.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["main"]

FOLDER = Path(__file__).parent
VALID_FRACTION = 0.1
NEED_TRANSFORMERS = {"against_transformers.py", "generation/generate.py", "serving.py"}
LLAMA = Path(".venv/llama")


def main() -> int:
    """The number of scripts that failed."""
    arguments = _parse()
    with TemporaryDirectory() as folder:
        if arguments.tokenizer is None:
            _write_builtin(arguments, Path(folder))
        return sum(_run(name, words) for name, words in _commands(arguments).items())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("tokenizer", "texts", "valid", "conversations"):
        parser.add_argument(f"--{name}", type=Path, help="give all four paths, or none for the built-in corpus")
    parser.add_argument("--seconds", type=float, default=600, help="training time of time_to_loss.py (default 600)")
    arguments = parser.parse_args()
    given = [arguments.tokenizer, arguments.texts, arguments.valid, arguments.conversations]
    if any(given) and not all(given):
        parser.error("give all of --tokenizer, --texts, --valid and --conversations, or none of them")
    return arguments


def _commands(arguments: argparse.Namespace) -> dict[str, list[object]]:
    tokenizer = ["--tokenizer", arguments.tokenizer]
    texts = ["--texts", arguments.texts, *tokenizer]
    seconds, held_out = arguments.seconds, [*texts, "--valid", arguments.valid]
    return {
        "compute_rate.py": [],
        "prepare.py": texts,
        "padding.py": ["--conversations", arguments.conversations, *texts],
        "generation/generate.py": [],
        "serving.py": [],
        "against_llama_cpp.py": [],
        "against_transformers.py": [*held_out, "--seconds", seconds / 2],
        "time_to_loss.py": [*held_out, "--seconds", seconds, "--marks", seconds / 12],
    }


def _run(name: str, words: list[object]) -> int:
    print(f"\n== {name} {' '.join(map(str, words))}", flush=True)
    if name in NEED_TRANSFORMERS and find_spec("transformers") is None:
        print("left out: it needs transformers; install it with: pip install 'minimind-lm[hf]'")
        return 0
    if name == "against_llama_cpp.py" and not LLAMA.is_dir():
        print(f"left out: it needs {LLAMA}; `make llama` makes it")
        return 0
    return int(subprocess.run([sys.executable, FOLDER / name, *map(str, words)]).returncode != 0)


def _write_builtin(arguments: argparse.Namespace, folder: Path) -> None:
    """The built-in corpus as the files that the scripts read, and a tokenizer trained on its training part."""
    from minimind.builtin.corpus import builtin_rows
    from minimind.data.dedup import document_hash
    from minimind.data.split import is_chosen
    from minimind.text.tokenizer import Tokenizer

    texts, valid = [], []
    for row in builtin_rows("texts"):
        (valid if is_chosen(document_hash(row["text"]), VALID_FRACTION) else texts).append(row)
    for name, rows in (("texts", texts), ("valid", valid), ("conversations", builtin_rows("conversations"))):
        setattr(arguments, name, folder / f"{name}.jsonl")
        _write(folder / f"{name}.jsonl", rows)
    arguments.tokenizer = folder / "tokenizer"
    Tokenizer.train((row["text"] for row in texts), 6400).save(arguments.tokenizer)


def _write(path: Path, rows: Iterable[Mapping]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
