"""The model card says what the run recorded, and nothing that it did not."""

import json
from pathlib import Path

import pytest
from tests.interop.tiny_models import tiny_model

from minimind.errors import RunError
from minimind.interop.model_card import find_run, model_card
from minimind.storage.run import RunReader
from minimind.text.tokenizer import Tokenizer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step-000020").mkdir(parents=True)
    (folder / "checkpoints" / "latest").symlink_to("step-000020")
    (folder / "config.json").write_text(json.dumps({"data": {"source": ["texts/", f"{Path.home()}/own.jsonl"]}}))
    (folder / "recipe.toml").write_text(f'[data]\nsource = ["texts/", "{Path.home()}/own.jsonl"]\n')
    (folder / "environment.json").write_text(json.dumps({"stage": "pretrain", "versions": {"torch": "2.13.0"}}))
    rows = [{"step": 10, "loss": 5.0, "valid_loss": 4.5, "bits_per_byte": 2.125}, {"step": 20, "loss": 4.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluation.json").write_text(json.dumps({"tables": [], "figures": {"exact_answers": 0.875}}))
    return folder


def test_figures_data_and_recipe_are_the_runs(run: Path, tokenizer: Tokenizer) -> None:
    card = model_card("mine", tiny_model(tokenizer), tokenizer, RunReader.open(run), "bfloat16")

    assert "| bits per byte, held-out text | 2.125 |" in card and "| training loss at the end | 4 |" in card
    assert "| steps | 20 |" in card and "| exact_answers | 0.875 |" in card
    assert "- texts/" in card and "`minimind pretrain recipe.toml`" in card and "torch 2.13.0" in card
    assert "parameters in bfloat16: 2 layers, width 64" in card and "thinking and tools" in card


def test_the_licence_is_left_open_and_no_home_folder_is_named(run: Path, tokenizer: Tokenizer) -> None:
    card = model_card("mine", tiny_model(tokenizer), tokenizer, RunReader.open(run), "bfloat16")

    assert card.startswith("---\n# license: choose one") and "\nlicense:" not in card
    assert str(Path.home()) not in card and '"~/own.jsonl"' in card


def test_a_model_without_a_run_says_so(tokenizer: Tokenizer) -> None:
    card = model_card("mine", tiny_model(tokenizer, "qwen3moe"), tokenizer, None, "float32")

    assert "Not recorded" in card and "## Figures" not in card
    assert "4 experts of which a token takes 2" in card


def test_the_card_shows_the_library_that_reads_the_folder(tokenizer: Tokenizer) -> None:
    cards = [
        model_card("me/mine", tiny_model(tokenizer), tokenizer, None, "float32", library=library)
        for library in ("transformers", "transformers.js")
    ]

    assert "library_name: transformers\n" in cards[0] and 'AutoTokenizer.from_pretrained("me/mine")' in cards[0]
    assert "library_name: transformers.js\n" in cards[1] and 'pipeline("text-generation", "me/mine", {' in cards[1]
    assert "```js" not in cards[0] and "```python" not in cards[1]


@pytest.mark.parametrize("place", [".", "checkpoints/latest", "checkpoints/step-000020"])
def test_the_run_of_a_checkpoint_is_found(place: str, run: Path) -> None:
    found = find_run(run / place)
    assert found is not None and found.folder.resolve() == run.resolve()


def test_a_folder_of_its_own_has_no_run(tmp_path: Path) -> None:
    assert find_run(tmp_path) is None


def test_an_evaluation_that_is_none_is_named(run: Path, tokenizer: Tokenizer) -> None:
    (run / "evaluation.json").write_text("[]")

    with pytest.raises(RunError, match=r"evaluation.json: not what"):
        model_card("mine", tiny_model(tokenizer), tokenizer, RunReader.open(run), "float32")
