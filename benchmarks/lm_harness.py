"""The same model has the same score in lm-evaluation-harness, from its files and over HTTP.

Minimal pairs and multiple choice are scored four times: by `minimind.evals`; and by lm_eval on the exported folder
(`hf`) and on `minimind serve` (`local-completions`), sent as ids and as text. lm_eval is another program, in an
environment of its own: `python -m venv ENV && ENV/bin/pip install 'lm_eval[api,hf]==0.4.13'`, then
`--lm_eval ENV/bin/lm_eval`. The last column is how far the log-likelihood of any continuation lies from that of `hf`,
in nats. As text no equality is to be had: the server puts BOS before a text, and no text can spell the BOS that
lm_eval puts before a sentence.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from minimind.evals.choices import Question, multiple_choice, parse_question
from minimind.evals.minimal_pairs import minimal_pairs
from minimind.storage.checkpoint import load_model

__all__ = ["choice_rows", "main", "pair_rows", "write_task"]

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
target_delimiter: "{delimiter}"
doc_to_text: context
doc_to_choice: continuations
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_bytes
"""
# Task and metric there, and the name of the figure here.
FIGURES = {
    ("pairs", "acc"): "minimal pairs",
    ("letters", "acc"): "letter",
    ("answers", "acc"): "continuation, sum",
    ("answers", "acc_bytes"): "continuation, by byte",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
START_SECONDS = 60


def main() -> None:
    arguments = _parse()
    pairs = _placed_rows(arguments.pairs, arguments.rows)
    choices = _placed_rows(arguments.choices, arguments.rows)
    loaded = load_model(arguments.model)
    ours = {"minimal pairs": minimal_pairs(*loaded, pairs).overall, **multiple_choice(*loaded, choices).by_method}
    with TemporaryDirectory() as name:
        folder = Path(name)
        questions = [parse_question(*row) for row in choices]
        write_task(folder, "pairs", pair_rows([row for _, row in pairs]), delimiter="")
        write_task(folder, "letters", choice_rows(questions, by_letter=True), delimiter=" ")
        write_task(folder, "answers", choice_rows(questions, by_letter=False), delimiter=" ")
        _minimind("export", arguments.model, "--out", folder / "model")
        sides = {"hf": _ask(arguments.lm_eval, folder, "hf", f"pretrained={folder / 'model'},dtype=float32")}
        with _serving(arguments.model) as address:
            served = f"model=served,base_url={address}/v1/completions,tokenizer={folder / 'model'}"
            served += ",tokenizer_backend=huggingface"
            for kind, is_ids in {"ids": True, "text": False}.items():
                given = f"{served},tokenized_requests={is_ids}"
                sides[f"local-completions, {kind}"] = _ask(arguments.lm_eval, folder, "local-completions", given)
    _print({name: ours[name].value for name in FIGURES.values()}, sides)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a run, or a model folder")
    parser.add_argument("--pairs", type=Path, required=True, help="jsonl as BLiMP")
    parser.add_argument("--choices", type=Path, required=True, help="jsonl as CMMLU")
    parser.add_argument("--lm_eval", default="lm_eval", help="the program (default: lm_eval, where it is found)")
    parser.add_argument("--rows", type=int, default=300, help="of each file, spread over it (default 300)")
    return parser.parse_args()


def _placed_rows(path: Path, limit: int) -> list[tuple[str, Mapping[str, Any]]]:
    """At most `limit` rows from all parts of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    step = -(-len(lines) // limit)
    return [(f"{path}:{number + 1}", json.loads(lines[number])) for number in range(0, len(lines), step)]


def pair_rows(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Minimal pairs as rows of a task: the good sentence is the answer."""
    return [{"context": "", "continuations": [row["good"], row["bad"]], "answer": 0} for row in pairs]


def choice_rows(questions: Sequence[Question], *, by_letter: bool) -> list[dict[str, Any]]:
    """Questions as rows of a task, with letters or with the answers themselves as continuations."""
    return [
        {
            "context": question.context_with_choices() if by_letter else question.context(),
            "continuations": [chr(ord("A") + n) for n in range(len(question.choices))]
            if by_letter
            else question.choices,
            "answer": question.answer,
        }
        for question in questions
    ]


def write_task(folder: Path, name: str, rows: Sequence[Mapping[str, Any]], *, delimiter: str) -> None:
    """NAME.yaml and its data. `delimiter` stands between a context and its continuations."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=data, delimiter=delimiter), encoding="utf-8")


def _ask(program: str, folder: Path, backend: str, arguments: str) -> tuple[dict[str, float], list[float]]:
    """lm_eval's figures by our names, and the log-likelihood of every continuation in order."""
    out = folder / f"out-{time.monotonic_ns()}"
    words = ["--model", backend, "--model_args", arguments, "--tasks", "pairs,letters,answers", "--batch_size", "16"]
    words += ["--include_path", folder, "--device", "cpu", "--output_path", out, "--log_samples"]
    environment = os.environ | OFFLINE | {"HF_HOME": str(folder / "cache")}
    subprocess.run([program, "run", *map(str, words)], check=True, env=environment, stdout=subprocess.DEVNULL)
    [results] = out.rglob("results_*.json")
    found = json.loads(results.read_text(encoding="utf-8"))["results"]
    figures = {name: found[task][f"{metric},none"] for (task, metric), name in FIGURES.items()}
    nats = []
    for path in sorted(out.rglob("samples_*.jsonl")):
        rows = sorted(map(json.loads, path.read_text(encoding="utf-8").splitlines()), key=lambda row: row["doc_id"])
        nats += [float(value) for row in rows for value, _ in row["filtered_resps"]]
    return figures, nats


@contextmanager
def _serving(model: Path) -> Iterator[str]:
    """The address of `minimind serve`, until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "minimind", "serve", model, "--name", "served", "--port", port]
    server = subprocess.Popen(list(map(str, words)))
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait_for(address: str, server: subprocess.Popen) -> None:
    until = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    sys.exit("the server did not start; see its output above")


def _minimind(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "minimind", *map(str, words)], check=True)


def _print(ours: Mapping[str, float], sides: Mapping[str, tuple[dict[str, float], list[float]]]) -> None:
    """A line for each side."""
    print("\n" + "  ".join(["side".ljust(24), *FIGURES.values(), "farthest from hf, nats"]))
    reference = sides["hf"][1]
    rows: dict[str, tuple[Mapping[str, float], str]] = {"minimind evaluate": (ours, "")}
    for name, (figures, nats) in sides.items():
        rows[name] = figures, f"{max(abs(a - b) for a, b in zip(nats, reference, strict=True)):.2g}"
    for name, (figures, distance) in rows.items():
        cells = [f"{figures[figure]:.4f}".rjust(len(figure)) for figure in FIGURES.values()]
        print("  ".join([name.ljust(24), *cells, distance]).rstrip())


if __name__ == "__main__":
    main()
