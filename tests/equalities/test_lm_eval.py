"""The same model has the same score in lm-evaluation-harness: on its hf backend, from our folder, by local tasks.

It needs the package lm_eval 0.4.13, and is skipped where that is not installed.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from minimind.checkpoint import load_model
from minimind.evals.choices import multiple_choice, parse_question
from minimind.evals.minimal_pairs import minimal_pairs

# Scores are shares of a few hundred rows: one row decided otherwise is already more than this.
TOLERANCE = 1e-3
MAX_ROWS = 150

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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are large enough to prefer one text to another."""
    import torch

    from minimind.checkpoint import save_checkpoint
    from minimind.model import ModelConfig, Transformer
    from minimind.tokenizer import Tokenizer

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


def theirs(model: Path, folder: Path, name: str, rows: list[dict[str, Any]], *, delimiter: str) -> dict[str, float]:
    os.environ.update({"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")})
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=data, delimiter=delimiter))
    arguments = f"pretrained={model},dtype=float32"
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate("hf", arguments, tasks=[name], task_manager=manager, device="cpu", batch_size=8)
    assert found is not None
    return {key.removesuffix(",none"): value for key, value in found["results"][name].items()}


def test_minimal_pairs_have_its_accuracy(model: Path, shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    rows = rows_of(shared / "data" / "eval" / "blimp_dev.jsonl")
    ours = minimal_pairs(*load_model(model), rows).overall
    tasks = [{"context": "", "continuations": [row["good"], row["bad"]], "answer": 0} for _, row in rows]
    found = theirs(model, tmp_path / "pairs", "pairs", tasks, delimiter="")
    assert found["acc"] == pytest.approx(ours.value, abs=TOLERANCE)
    assert found["acc_stderr"] == pytest.approx(ours.standard_error, abs=TOLERANCE)


def test_multiple_choice_has_its_accuracy_by_letter_by_sum_and_by_byte(
    model: Path, shared: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    rows = rows_of(shared / "data" / "nc" / "cmmlu_dev.jsonl")
    ours = multiple_choice(*load_model(model), rows).by_method
    questions = [parse_question(where, row) for where, row in rows]
    letters = [
        {"context": q.context_with_choices(), "continuations": list("ABCD"), "answer": q.answer} for q in questions
    ]
    answers = [{"context": q.context(), "continuations": q.choices, "answer": q.answer} for q in questions]
    by_letter = theirs(model, tmp_path / "letters", "letters", letters, delimiter=" ")
    by_answer = theirs(model, tmp_path / "answers", "answers", answers, delimiter=" ")
    assert by_letter["acc"] == pytest.approx(ours["letter"].value, abs=TOLERANCE)
    assert by_answer["acc"] == pytest.approx(ours["continuation, sum"].value, abs=TOLERANCE)
    assert by_answer["acc_bytes"] == pytest.approx(ours["continuation, by byte"].value, abs=TOLERANCE)
