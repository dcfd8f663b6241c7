"""The same model has the same score in lm-evaluation-harness: from our folder, and from our server, by local tasks.

It needs the package lm_eval[api,hf] 0.4.13, and is skipped where that is not installed. `benchmarks/lm_harness.py` asks
the same of a model of yours.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.lm_harness import choice_rows, pair_rows, write_task

from minimind.evals.choices import multiple_choice, parse_question
from minimind.evals.minimal_pairs import minimal_pairs
from minimind.storage.checkpoint import load_model

# Scores are shares of a few hundred rows: one row decided otherwise is already more than this.
TOLERANCE = 1e-3
MAX_ROWS = 150


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are large enough to prefer one text to another."""
    import torch

    from minimind.model import ModelConfig, Transformer
    from minimind.storage.checkpoint import save_checkpoint
    from minimind.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["the patients resembled most sketches. 下列 正确 的 是 答案： A. B. C. D. " * 3], 340)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    shape = ModelConfig(vocab_size=340, head_dim=16, intermediate_size=48, max_position_embeddings=512, **sizes)
    made = Transformer(shape)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("lm_eval") / "model"
    save_checkpoint(folder, made, tokenizer)
    return folder


def rows_of(path: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    step = max(1, len(lines) // MAX_ROWS)
    return [(f"{path}:{n}", json.loads(line)) for n, line in enumerate(lines[::step][:MAX_ROWS], start=1)]


@pytest.fixture(scope="module", params=["hf", "local-completions"])
def backend(request: pytest.FixtureRequest, model: Path) -> Iterator[tuple[str, str]]:
    """The name of a backend of lm_eval, and what it needs to reach the model."""
    pytest.importorskip("lm_eval")
    if request.param == "hf":
        yield "hf", f"pretrained={model},dtype=float32"
        return
    from tests.serve.tiny_server import listen

    from minimind.generation.engine import Engine
    from minimind.serve.api import Service
    from minimind.serve.runner import Runner

    with listen(Service(Runner({"served": Engine(*load_model(model))}))) as running:
        address = f"model=served,base_url={running.url}/v1/completions,max_length=512"
        yield "local-completions", f"{address},tokenizer={model},tokenizer_backend=huggingface"


def theirs(
    backend: tuple[str, str], folder: Path, name: str, rows: list[dict[str, Any]], *, delimiter: str
) -> dict[str, float]:
    os.environ.update({"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")})
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    folder.mkdir(exist_ok=True)
    write_task(folder, name, rows, delimiter=delimiter)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(*backend, tasks=[name], task_manager=manager, device="cpu", batch_size=8)
    assert found is not None
    return {key.removesuffix(",none"): value for key, value in found["results"][name].items()}


def test_minimal_pairs_have_its_accuracy(backend: tuple[str, str], model: Path, shared: Path, tmp_path: Path) -> None:
    rows = rows_of(shared / "data" / "eval" / "blimp_dev.jsonl")
    ours = minimal_pairs(*load_model(model), rows).overall
    found = theirs(backend, tmp_path / "pairs", "pairs", pair_rows([row for _, row in rows]), delimiter="")
    assert found["acc"] == pytest.approx(ours.value, abs=TOLERANCE)
    assert found["acc_stderr"] == pytest.approx(ours.standard_error, abs=TOLERANCE)


def test_multiple_choice_has_its_accuracy_by_letter_by_sum_and_by_byte(
    backend: tuple[str, str], model: Path, shared: Path, tmp_path: Path
) -> None:
    rows = rows_of(shared / "data" / "nc" / "cmmlu_dev.jsonl")
    ours = multiple_choice(*load_model(model), rows).by_method
    questions = [parse_question(where, row) for where, row in rows]
    letters, answers = (choice_rows(questions, by_letter=by_letter) for by_letter in (True, False))
    by_letter = theirs(backend, tmp_path / "letters", "letters", letters, delimiter=" ")
    by_answer = theirs(backend, tmp_path / "answers", "answers", answers, delimiter=" ")
    assert by_letter["acc"] == pytest.approx(ours["letter"].value, abs=TOLERANCE)
    assert by_answer["acc"] == pytest.approx(ours["continuation, sum"].value, abs=TOLERANCE)
    assert by_answer["acc_bytes"] == pytest.approx(ours["continuation, by byte"].value, abs=TOLERANCE)
