"""MiniMind's own files become a model, or an adapter, by their shapes; another's are refused by tensor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.tiny_models import tiny_model
from torch import Tensor

from minimind.errors import CheckpointError
from minimind.interop.upstream import UpstreamShape, load_upstream, load_upstream_lora
from minimind.lora import lora_weights, merge_lora
from minimind.model import ModelConfig, Transformer
from minimind.text.tokenizer import Tokenizer

TOKENS = torch.tensor([[1, 50, 60, 70, 71, 200, 310, 2]])
SHAPE = UpstreamShape(rope_theta=1e5, rms_norm_eps=1e-5, max_position_embeddings=128, num_experts_per_tok=2)


def upstream_names(model: Transformer, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    weights = {f"model.{name}": tensor.to(dtype) for name, tensor in model.state_dict().items()}
    return weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}


@pytest.mark.parametrize("architecture", ["qwen3", "qwen3moe"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
def test_the_shape_is_read_from_the_tensors(
    architecture: str, prefix: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model(tokenizer, architecture)
    torch.save({prefix + name: tensor for name, tensor in upstream_names(model).items()}, tmp_path / "x.pth")

    found = load_upstream(tmp_path / "x.pth", SHAPE)

    expected = model.half().float()
    inner = {"intermediate_size": 768} if architecture == "qwen3moe" else {}
    assert found.config == ModelConfig(**(vars(model.config) | inner))
    with torch.no_grad():
        assert torch.equal(found(TOKENS), expected(TOKENS))
    assert not found.training


def test_minimind_3_is_what_is_assumed(tmp_path: Path) -> None:
    shape = {"hidden_size": 768, "num_hidden_layers": 1, "head_dim": 96, "intermediate_size": 2432}
    torch.save(upstream_names(Transformer(ModelConfig(vocab_size=64, **shape))), tmp_path / "x.pth")

    assert load_upstream(tmp_path / "x.pth").config == ModelConfig(vocab_size=64, **shape)


def test_a_head_of_its_own_stays_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    weights = upstream_names(tiny_model(tokenizer))
    weights["lm_head.weight"] = weights["lm_head.weight"] * 2
    torch.save(weights, tmp_path / "x.pth")

    found = load_upstream(tmp_path / "x.pth", SHAPE)

    assert not found.config.tie_word_embeddings
    assert torch.equal(found.output_weight, weights["lm_head.weight"].float())


def test_old_files_need_the_number_of_heads(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(tokenizer, "llama", tie_word_embeddings=True)
    torch.save(upstream_names(model, torch.float32), tmp_path / "x.pth")

    with pytest.raises(CheckpointError, match=r"give --shape.num_attention_heads"):
        load_upstream(tmp_path / "x.pth", SHAPE)
    shape = UpstreamShape(num_attention_heads=4, rope_theta=1e5, rms_norm_eps=1e-5, max_position_embeddings=128)
    found = load_upstream(tmp_path / "x.pth", shape)

    assert found.config == model.config
    with torch.no_grad():
        assert torch.equal(found(TOKENS), model(TOKENS))


def _with(name: str, tensor: Tensor | None) -> Any:
    def change(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        others = {key: value for key, value in weights.items() if key != name}
        return others if tensor is None else others | {name: tensor}

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_with("model.embed_tokens.weight", None), "model.embed_tokens.weight is missing"),
        (_with("model.embed_tokens.weight", torch.ones(4)), "model.embed_tokens.weight is [4]"),
        (_with("model.layers.1.mlp.up_proj.weight", None), "missing model.layers.1.mlp.up_proj.weight"),
        (_with("model.layers.1.mlp.up_proj.weight", torch.ones(3, 64)), "up_proj.weight is [3, 64] and not [96, 64]"),
        (_with("model.layers.5.mlp.up_proj.weight", torch.ones(96, 64)), "missing model.layers.2."),
        (_with("optimizer.state", torch.ones(3)), "unexpected optimizer.state"),
        (_with("model.layers.0.self_attn.q_norm.weight", torch.ones(7)), "expected whole heads"),
        (_with("model.layers.0.self_attn.k_proj.weight", torch.ones(1, 64)), "num_key_value_heads is 0"),
        (_with("model.layers.x.up_proj.weight", torch.ones(3)), "unexpected model.layers.x.up_proj.weight"),
        (_with("module.model.norm.weight", torch.ones(64)), "are one tensor"),
        (_with("model.layers.0.self_attn.q_proj.lora.A.weight", torch.ones(4, 64)), "holds an adapter (LoRA)"),
        (_with("model.norm.weight", torch.full((64,), torch.nan)), "model.norm.weight has NaN"),
    ],
)
def test_a_file_of_another_model_is_refused_by_tensor(
    change: Any, words: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    torch.save(change(upstream_names(tiny_model(tokenizer))), tmp_path / "x.pth")

    with pytest.raises(CheckpointError) as error:
        load_upstream(tmp_path / "x.pth", SHAPE)

    assert str(tmp_path / "x.pth") in str(error.value) and words in str(error.value)


def lora_file(model: Transformer, rank: int = 4) -> dict[str, Tensor]:
    """As upstream adapts a model: the square layers, A and B beside each."""
    torch.manual_seed(1)
    return {
        f"module.model.{name.removesuffix('.weight')}.lora.{part}.weight": torch.randn(shape) / 8
        for name, weight in model.state_dict().items()
        if name.endswith(("q_proj.weight", "o_proj.weight"))
        for part, shape in (("A", (rank, weight.shape[1])), ("B", (weight.shape[0], rank)))
    }


def test_an_adapter_counts_once_beside_its_layers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, base = (tiny_model(tokenizer, head_dim=16) for _ in range(2))
    weights = lora_file(model)
    torch.save(weights, tmp_path / "x.pth")

    config = load_upstream_lora(tmp_path / "x.pth", model)

    assert (config.rank, config.scale, config.targets) == (4, 1.0, ("q_proj", "o_proj"))
    assert len(lora_weights(model)) == len(weights) == 8
    merge_lora(model)
    name = "layers.1.self_attn.q_proj"
    a, b = (weights[f"module.model.{name}.lora.{part}.weight"] for part in "AB")
    expected = base.get_submodule(name).weight + b @ a
    torch.testing.assert_close(model.get_submodule(name).weight, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_with("module.model.layers.0.self_attn.q_proj.lora.A.weight", torch.ones(4, 9)), "of another shape"),
        (_with("module.model.layers.0.self_attn.q_proj.lora.A.weight", torch.ones(5, 64)), "ranks [4, 5]"),
        (_with("module.model.layers.0.self_attn.q_proj.lora.B.weight", None), "missing layers.0.self_attn.q_proj"),
        (_with("module.model.layers.7.self_attn.q_proj.lora.B.weight", torch.ones(64, 4)), "unexpected layers.7"),
        (_with("module.model.embed_tokens.lora.A.weight", torch.ones(4, 64)), "for embed_tokens"),
        (_with("model.norm.weight", torch.ones(64)), "'model.norm.weight' beside an adapter's tensors"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_and_the_model_is_as_it_was(
    change: Any, words: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model(tokenizer, head_dim=16)
    torch.save(change(lora_file(model)), tmp_path / "x.pth")

    with pytest.raises(CheckpointError) as error:
        load_upstream_lora(tmp_path / "x.pth", model)

    assert str(tmp_path / "x.pth") in str(error.value) and words in str(error.value)
    assert not lora_weights(model)
