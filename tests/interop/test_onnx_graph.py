"""The graph is the model in every shape: whole or in pieces, alone or padded, wherever the router sends a token."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.tiny_models import SHAPES, tiny_model
from torch import Tensor

from minimind.interop.onnx_export import OnnxModel
from minimind.interop.onnx_graph import build_onnx
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in SHAPES},
    "yarn": ("qwen3", {"rope_scaling": YARN}),
    "qwen3 with biases": ("qwen3", {"attention_bias": True, "output_bias": True}),
    "linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "one key head, narrow": ("llama", {"num_key_value_heads": 1, "head_dim": 6}),
    "top-1, weighted": ("qwen3moe", {"num_experts_per_tok": 1, "norm_topk_prob": False}),
    "all experts": ("qwen3moe", {"num_experts_per_tok": 4, "norm_topk_prob": False, "moe_intermediate_size": 32}),
}
# Sums in another order: the largest logits are about 40 here.
CLOSE = {"rtol": 1e-5, "atol": 2e-4}


def written(model: Transformer, folder: Path) -> OnnxModel:
    onnx.save_model(build_onnx(model), folder / "model.onnx")
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    return OnnxModel(folder / "model.onnx")


def drawn(model: Transformer, *shape: int) -> Tensor:
    return torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(1))


def ask(found: OnnxModel, tokens: Tensor, mask: Tensor) -> Tensor:
    return found(tokens, mask, (mask.cumsum(-1) - 1).clamp_min(0))[0]


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_the_graph_has_the_logits_of_the_model(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    architecture, changes = MODELS[name]
    model = tiny_model(tokenizer, architecture, **changes)
    tokens = drawn(model, 3, 40)

    logits = ask(written(model, tmp_path), tokens, torch.ones_like(tokens))

    torch.testing.assert_close(logits, model(tokens), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("architecture", SHAPES)
def test_pieces_with_what_was_kept_are_the_whole(architecture: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer, architecture)
    found, tokens, past = written(model, tmp_path), drawn(model, 2, 20), None

    pieces = []
    for start, end in [(0, 9), (9, 10), (10, 11), (11, 20)]:
        positions = torch.arange(start, end).expand(2, -1)
        logits, past = found(tokens[:, start:end], torch.ones(2, end, dtype=torch.int64), positions, past)
        pieces.append(logits)

    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), **CLOSE)
    assert past is not None and {kept.shape[2] for kept in past.values()} == {20}


@torch.no_grad()
@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(
    architecture: str, side: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model(tokenizer, architecture)
    tokens, mask = drawn(model, 2, 12), torch.ones(2, 12, dtype=torch.int64)
    real = slice(7, 12) if side == "left" else slice(0, 5)
    mask[1] = 0
    mask[1, real] = 1

    logits = ask(written(model, tmp_path), tokens, mask)

    torch.testing.assert_close(logits[0], model(tokens[:1])[0], **CLOSE)
    torch.testing.assert_close(logits[1, real], model(tokens[1:, real])[0], **CLOSE)


@torch.no_grad()
def test_experts_take_every_token_or_none(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer, "qwen3moe", num_experts_per_tok=1)
    found = written(model, tmp_path)

    chosen = set()
    for token in range(40, 60):
        # A token among its own kind gathers the same values everywhere, so all go to the same expert.
        tokens = torch.full((1, 6), token)
        torch.testing.assert_close(ask(found, tokens, torch.ones_like(tokens)), model(tokens), **CLOSE)
        experts = [router.argmax(-1).tolist() for router in model.hidden_states(tokens).router_logits]
        assert all(len(set(row)) == 1 for row in experts)
        chosen |= {row[0] for row in experts}
    assert chosen == {0, 1, 2, 3}


@pytest.mark.parametrize("architecture", SHAPES)
def test_each_weight_is_stored_once_under_its_own_name(architecture: str, tokenizer: Tokenizer) -> None:
    model = tiny_model(tokenizer, architecture)
    graph = build_onnx(model).graph

    state = model.state_dict()
    stored = {weight.name: weight for weight in graph.initializer}
    assert state.keys() <= stored.keys() and len(stored) == len(graph.initializer)
    assert sum(len(weight.raw_data) for weight in stored.values()) - 4 * sum(x.numel() for x in state.values()) < 1000


def test_inputs_and_outputs_have_the_names_that_readers_expect(tokenizer: Tokenizer) -> None:
    graph = build_onnx(tiny_model(tokenizer)).graph

    cache = [f"{layer}.{kind}" for layer in (0, 1) for kind in ("key", "value")]
    tokens = ["input_ids", "attention_mask", "position_ids"]
    assert [value.name for value in graph.input] == [*tokens, *(f"past_key_values.{name}" for name in cache)]
    assert [value.name for value in graph.output] == ["logits", *(f"present.{name}" for name in cache)]
    dims = [dim.dim_param or dim.dim_value for dim in graph.input[3].type.tensor_type.shape.dim]
    assert dims == ["batch", 2, "past_sequence", 128]


def test_the_same_model_gives_the_same_bytes(tokenizer: Tokenizer) -> None:
    first, second = (build_onnx(tiny_model(tokenizer, "qwen3moe")) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
