"""The examples do what their first line says, on tiny models, and stay short."""

import ast
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind import ModelConfig, Tokenizer, Transformer, generate, load_model, save_checkpoint

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
MAX_LINES = 40


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["the sun and the moon " * 10], 300)
    shape: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    model = Transformer(ModelConfig(vocab_size=300, hidden_size=16, intermediate_size=32, **shape))
    with torch.no_grad():
        model.embed_tokens.weight.normal_()
    folder = tmp_path_factory.mktemp("example") / "model"
    save_checkpoint(folder, model, tokenizer)
    return folder


def output(name: str, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What an example prints when it is called with these words."""
    [path] = [path for path in EXAMPLES if path.name == name]
    runpy.run_path(str(path))["main"](*map(str, words))
    return capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_to_call_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    told = ast.get_docstring(ast.parse(text)) or ""
    assert f"python examples/{path.name}" in told.partition("\n")[0]


def test_a_text_is_continued_whole_and_in_pieces(capsys: pytest.CaptureFixture[str], model_folder: Path) -> None:
    shown = output("generate_text.py", capsys, model_folder, "the sun")
    expected = generate(*load_model(model_folder), "the sun", temperature=0, max_tokens=40)
    assert f"the likeliest text:\nthe sun{expected}\n" in shown
    assert shown.count("the sun") >= 3


def test_the_next_tokens_are_listed_with_their_probabilities(
    capsys: pytest.CaptureFixture[str], model_folder: Path
) -> None:
    shown = output("next_token.py", capsys, model_folder, "the sun")
    shares = [float(share) for share in re.findall(r"^ *([\d.]+)%", shown, re.MULTILINE)]
    assert len(shares) == 10 and shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 100


def test_what_an_assistant_says_is_marked_and_counted(
    capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path
) -> None:
    marked = re.findall(r"^> +\d+ '(.*)'$", output("what_is_learnt.py", capsys, model_folder), re.MULTILINE)
    assert "".join(marked) == r"Two and three.\n</think>\n\nIt is 5.<|im_end|>"
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    shown = output("what_is_learnt.py", capsys, model_folder, tmp_path / "chats.jsonl")
    assert re.search(r"^3 conversations, \d+ tokens, of which 6 \(\d+%\) are learnt$", shown, re.MULTILINE)


def test_a_toy_learns_its_strings(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output("train_toy.py", capsys)
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", shown)]
    assert losses[-1] < losses[0] / 10
    assert " sat on the mat" in shown and "坐在垫子上" in shown
