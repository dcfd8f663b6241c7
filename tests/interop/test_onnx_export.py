"""The exported folder says in onnxruntime what the model says; a graph that says something else is never left there."""

import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from tests.interop.tiny_models import SHAPES, tiny_model, trained_model

from minimind.errors import CheckpointError, ConfigError
from minimind.generation.completions import complete
from minimind.generation.sampling import Sampling
from minimind.interop.onnx_export import OnnxModel, export_onnx, require_same_logits
from minimind.interop.onnx_graph import build_onnx
from minimind.storage.verify import read_json
from minimind.text.tokenizer import Tokenizer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FILES = [
    *("README.md", "chat_template.jinja", "config.json", "generation_config.json", "onnx/model.onnx"),
    *("tokenizer.json", "tokenizer_config.json"),
]


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def greedy(path: Path, prompt: list[int], num_tokens: int) -> list[int]:
    """The loop that a stranger would write: one piece for the prompt, then a token at a time."""
    session = onnxruntime.InferenceSession(path)
    past = {
        given.name: np.zeros((1, given.shape[1], 0, given.shape[3]), np.float32) for given in session.get_inputs()[3:]
    }
    ids, new = list(prompt), list(prompt)
    while len(ids) < len(prompt) + num_tokens:
        places = np.arange(len(ids) - len(new), len(ids))
        inputs = {
            "input_ids": np.array([new]),
            "attention_mask": np.ones((1, len(ids)), int),
            "position_ids": places[None],
        }
        logits, *kept = session.run(None, {**inputs, **past})
        past = dict(zip(past, kept, strict=True))
        new = [int(logits[0, -1].argmax())]
        ids += new
    return ids[len(prompt) :]


@pytest.mark.parametrize("architecture", SHAPES)
def test_onnxruntime_writes_the_same_greedy_text(architecture: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = [line for page in sorted(topics.values())[:9] for line in page.split("\n\n") if len(line) > 40]
    model = trained_model(tokenizer, texts, architecture, steps=30)
    prompts = [[tokenizer.bos_id, *tokenizer.encode(text)[:12]] for text in texts[:4]]

    written = export_onnx(tmp_path / "out", model, tokenizer, card="# tiny\n")

    assert written.difference < 1e-5
    ours = complete(model, tokenizer, prompts, Sampling(temperature=0, max_tokens=32), stop_ids=())
    path = tmp_path / "out" / "onnx" / "model.onnx"
    assert [greedy(path, prompt, 32) for prompt in prompts] == [answer.ids for answer in ours]


def test_the_folder_has_what_readers_want_beside_the_graph(tokenizer: Tokenizer, tmp_path: Path) -> None:
    out = tmp_path / "out"

    written = export_onnx(out, tiny_model(tokenizer), tokenizer, card="# tiny\n")

    assert files_of(tmp_path) == [f"out/{name}" for name in FILES]
    assert sorted(file.name for file in written.files) == FILES
    assert Tokenizer.load(out).fingerprint == tokenizer.fingerprint
    assert read_json(out / "tokenizer_config.json")["chat_template"] == (out / "chat_template.jinja").read_text()
    assert (out / "README.md").read_text() == "# tiny\n"


def test_weights_that_are_too_large_for_the_file_lie_beside_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer)

    export_onnx(tmp_path / "out", model, tokenizer, card="", largest_file=100_000)

    assert files_of(tmp_path / "out") == sorted([*FILES, "onnx/model.onnx_data"])
    graph, weights = (tmp_path / "out" / "onnx" / name for name in ("model.onnx", "model.onnx_data"))
    assert graph.stat().st_size < 100_000
    # Who may read the graph may read its weights.
    assert weights.stat().st_mode == graph.stat().st_mode
    assert read_json(tmp_path / "out" / "config.json")["transformers.js_config"] == {"use_external_data_format": True}
    found = OnnxModel(tmp_path / "out" / "onnx" / "model.onnx")
    assert require_same_logits(tmp_path, found, model, tokenizer) < 1e-5


@pytest.mark.parametrize("context", [1, 2, 7])
def test_the_shortest_contexts_are_checked_too(context: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer, max_position_embeddings=context)

    assert export_onnx(tmp_path / "out", model, tokenizer, card="").difference < 1e-5


def weight(name: str, factor: float) -> Callable[[Any], None]:
    def damage(graph: Any) -> None:
        (found,) = (each for each in graph.initializer if each.name == name)
        changed = onnx.numpy_helper.to_array(found) * np.float32(factor)
        found.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), name))

    return damage


def operator(kind: str, other: str) -> Callable[[Any], None]:
    def damage(graph: Any) -> None:
        next(node for node in graph.node if node.op_type == kind).op_type = other

    return damage


def padding_is_seen(graph: Any) -> None:
    """A position counts by its place alone."""
    (both,) = (node for node in graph.node if node.op_type == "And")
    both.input[1] = both.input[0]


@pytest.mark.parametrize(
    ("architecture", "damage", "words"),
    [
        ("qwen3", weight("layers.1.mlp.up_proj.weight", 1.01), "a batch of prompts came back different"),
        ("qwen3", weight("rotary_frequencies", 1.001), "came back different"),
        ("qwen3", weight("norm.weight", float("nan")), "came back different: logits by nan"),
        ("qwen2", weight("layers.0.self_attn.k_proj.bias", 1.5), "a batch of prompts came back different"),
        ("qwen3moe", weight("layers.1.mlp.experts.3.down_proj.weight", 1.1), "a batch of prompts came back different"),
        ("qwen3", padding_is_seen, "a batch of prompts came back different"),
        ("qwen3", operator("LessOrEqual", "Less"), "a batch of prompts came back different"),
        ("qwen3", operator("Cos", "NoSuchOperator"), "onnxruntime refuses the graph"),
    ],
)
def test_a_damaged_graph_is_noticed(
    architecture: str, damage: Callable[[Any], None], words: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model(tokenizer, architecture)
    graph = build_onnx(model)
    damage(graph.graph)
    onnx.save_model(graph, tmp_path / "model.onnx")

    with pytest.raises(CheckpointError, match=words):
        require_same_logits(Path("out"), OnnxModel(tmp_path / "model.onnx"), model, tokenizer)


def test_what_was_kept_in_the_wrong_order_is_noticed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer)
    graph = build_onnx(model)
    for node in graph.graph.node:
        if node.output[0] == "present.1.value":
            node.input[0], node.input[1] = node.input[1], node.input[0]
    onnx.save_model(graph, tmp_path / "model.onnx")

    with pytest.raises(CheckpointError, match="a batch of prompts in pieces came back different"):
        require_same_logits(Path("out"), OnnxModel(tmp_path / "model.onnx"), model, tokenizer)


def test_a_folder_that_fails_its_check_is_gone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer)
    # This model says something else than its weights do.
    model.layers[0].mlp.register_forward_hook(lambda module, inputs, output: output * 1.1)

    with pytest.raises(CheckpointError, match="out: not written, a batch of prompts came back different: logits by 0"):
        export_onnx(tmp_path / "out", model, tokenizer, card="")
    assert not list(tmp_path.iterdir())


def test_what_no_architecture_has_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer, num_experts=2, qk_norm=False)

    with pytest.raises(CheckpointError, match="num_experts with qk_norm off"):
        export_onnx(tmp_path / "out", model, tokenizer, card="")
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_is_left_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already"):
        export_onnx(tmp_path, tiny_model(tokenizer), tokenizer, card="")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(
    package: str, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ConfigError, match=r"pip install 'minimind-lm\[onnx\]'"):
        export_onnx(tmp_path / "out", tiny_model(tokenizer), tokenizer, card="")
