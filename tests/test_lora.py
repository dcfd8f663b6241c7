"""A fresh adapter changes nothing, a merged one is the adapted model, and nothing else ever learns."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minimind.config import Config, load
from minimind.errors import CheckpointError, ConfigError
from minimind.generation.cache import KeyValueCache
from minimind.interfaces import Batch
from minimind.lora import (
    TARGETS,
    LoraConfig,
    LoraLinear,
    add_lora,
    has_lora,
    load_lora_weights,
    lora_shapes,
    lora_weights,
    merge_lora,
    remove_lora,
)
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.training.optimizer import make_optimizers
from minimind.training.settings import TrainConfig
from minimind.training.trainer import Trainer

DENSE = ModelConfig(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    intermediate_size=24,
    max_position_embeddings=64,
)
CONFIGS = {
    "qwen3": DENSE,
    "qwen3 moe": replace(DENSE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12),
    "llama, untied": replace(DENSE, qk_norm=False, tie_word_embeddings=False),
    "qwen2": replace(DENSE, qk_norm=False, attention_bias=True),
}
TOKENS = torch.randint(0, 60, (2, 12), generator=torch.Generator().manual_seed(0))
each_shape = pytest.mark.parametrize("name", CONFIGS)


def random_model(name: str = "qwen3", seed: int = 0) -> Transformer:
    """Every weight random: initial zeros and ones would hide what is not used."""
    model = Transformer(CONFIGS[name]).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.5 if parameter.ndim == 1 else 0, 0.2, generator=generator)
    return model


def adapted_model(name: str = "qwen3", config: LoraConfig | None = None) -> Transformer:
    """A model whose adapter says something: B is no longer zero."""
    model = random_model(name)
    add_lora(model, config or LoraConfig(rank=3, alpha=6.0), seed=1)
    generator = torch.Generator().manual_seed(2)
    for weight in lora_weights(model).values():
        weight.normal_(0, 0.2, generator=generator)
    return model


def loss_of(model: Transformer) -> Tensor:
    return nn.functional.cross_entropy(model(TOKENS[:, :-1]).flatten(0, 1), TOKENS[:, 1:].flatten())


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@each_shape
@pytest.mark.parametrize("is_training", [False, True])
def test_a_fresh_adapter_changes_no_bit(name: str, is_training: bool) -> None:
    model = random_model(name).train(is_training)
    before = model(TOKENS)
    add_lora(model, LoraConfig(dropout=0.5), seed=0)
    assert model.training is is_training and torch.equal(model(TOKENS), before)


@each_shape
def test_merged_is_the_base_and_its_adapter(name: str) -> None:
    model = adapted_model(name)
    adapted = model(TOKENS)
    merge_lora(model)
    assert not has_lora(model) and model.state_dict().keys() == random_model(name).state_dict().keys()
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(model(TOKENS), adapted, rtol=0, atol=1e-6)
    assert (model(TOKENS) - random_model(name)(TOKENS)).abs().max() > 1e-2


@each_shape
def test_a_removed_adapter_leaves_the_base_bit_for_bit(name: str) -> None:
    model = adapted_model(name)
    remove_lora(model)
    assert not has_lora(model) and same(model.state_dict(), random_model(name).state_dict())
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_merging_adds_in_an_order_that_no_processor_changes() -> None:
    """Plain float32 arithmetic, one outer product after the other, gives the same bits."""
    model = adapted_model(config=LoraConfig(rank=5, alpha=3.0))
    layer = model.layers[1].mlp.up_proj
    assert isinstance(layer, LoraLinear)
    a, b, weight = (part.detach().numpy() for part in (layer.lora_A.weight, layer.lora_B.weight, layer.weight))
    delta = np.zeros_like(weight)
    for rank in range(5):
        delta += b[:, rank, None] * a[None, rank]
    assert np.array_equal(layer.merged_weight().detach().numpy(), weight + delta * np.float32(3 / 5))


@each_shape
def test_only_the_adapter_has_gradients_and_all_of_it(name: str) -> None:
    """An expert that no token takes included: ranks must agree on who has a gradient."""
    model = adapted_model(name)
    loss_of(model).backward()
    with_gradient = {path for path, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == lora_weights(model).keys()


@each_shape
def test_the_layers_of_the_blocks_are_adapted_and_no_others(name: str) -> None:
    model = random_model(name)
    linear = {path for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    add_lora(model, LoraConfig(), seed=0)
    adapted = {path for path, module in model.named_modules() if isinstance(module, LoraLinear)}
    left = {path for path in linear - adapted}
    assert all(path == "lm_head" or path.endswith("mlp.gate") for path in left)
    assert {path.rpartition(".")[2] for path in adapted} == set(TARGETS)


def test_chosen_layers_only_are_adapted() -> None:
    model = random_model()
    add_lora(model, LoraConfig(rank=2, targets=("v_proj", "q_proj")), seed=0)
    names = [f"layers.{i}.self_attn.{p}.lora_{m}.weight" for i in range(2) for p in ("q_proj", "v_proj") for m in "AB"]
    assert list(lora_weights(model)) == names


@each_shape
def test_the_base_keeps_the_names_of_its_weights(name: str) -> None:
    model = adapted_model(name)
    state = model.state_dict()
    shapes = lora_shapes(random_model(name), LoraConfig(rank=3))
    assert state.keys() == random_model(name).state_dict().keys() | shapes.keys()
    assert {path: list(tensor.shape) for path, tensor in lora_weights(model).items()} == shapes
    assert shapes == lora_shapes(model, LoraConfig(rank=3))


def test_the_seed_alone_decides_how_an_adapter_begins() -> None:
    models = [random_model() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.manual_seed(id(model) % 1000)
        add_lora(model, LoraConfig(), seed)
    first, second, other = (lora_weights(model) for model in models)
    assert same(first, second) and not same(first, other)
    for name, weight in first.items():
        if "lora_B" in name:
            assert not weight.any()
        else:
            # Uniform within 1 / √in, as PEFT draws it.
            assert 0.5 / math.sqrt(weight.shape[1]) < weight.abs().max() <= 1 / math.sqrt(weight.shape[1])


def test_dropout_is_for_training_alone() -> None:
    model = adapted_model(config=LoraConfig(rank=3, dropout=0.5))
    assert torch.equal(model(TOKENS), model(TOKENS))
    model.train()
    assert not torch.equal(model(TOKENS), model(TOKENS))


def test_recomputed_blocks_draw_the_same_dropout() -> None:
    gradients = []
    for recompute in (False, True):
        model = adapted_model(config=LoraConfig(rank=3, dropout=0.5)).train()
        model.recompute_blocks = recompute
        torch.manual_seed(3)
        loss_of(model).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == 28 and same(*gradients)


@each_shape
def test_autocast_computes_in_half_and_learns_in_full_precision(name: str) -> None:
    model = adapted_model(name)
    exact = loss_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model)
    loss.backward()
    assert abs(loss.item() - exact.item()) < 0.1
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


@each_shape
def test_a_cache_gives_what_the_whole_text_gives(name: str) -> None:
    model = adapted_model(name)
    cache = KeyValueCache.allocate(model.config, 2, 12)
    parts = []
    with torch.no_grad():
        for part in TOKENS.split((5, 1, 6), dim=1):
            parts.append(model.logits(model.hidden_states(part, cache=cache).states))
            cache.advance(part.shape[1])
        torch.testing.assert_close(torch.cat(parts, 1), model(TOKENS), rtol=0, atol=1e-5)


@dataclass
class OneBatch:
    """A source that gives the same rows at each step."""

    steps_per_epoch: int = 1

    def describe(self) -> str:
        return "one batch"

    def micro_batches(self, step: int) -> Sequence[Batch]:
        weights = torch.ones(2, 11)
        return [Batch(tokens=TOKENS[:, :-1], targets=TOKENS[:, 1:], weights=weights, num_tokens=22)]

    def accepts(self, metrics: Mapping[str, float]) -> bool:
        return True

    def state_files(self) -> Mapping[str, bytes]:
        return {}

    def load_state(self, folder: Path) -> None: ...


@each_shape
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_trainer_changes_the_adapter_and_leaves_the_base(name: str, optimizer: str) -> None:
    model = random_model(name)
    add_lora(model, LoraConfig(rank=4), seed=0)
    before, base = copied(lora_weights(model)), random_model(name).state_dict()
    rates = {"muon_lr": 0.02, "lr": 0.02, "embedding_lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.95)}
    trainer = Trainer(
        model=model,
        objective=NextToken(0.01),
        source=OneBatch(),
        optimizers=make_optimizers(model, name=optimizer, **rates),  # type: ignore[arg-type]
        settings=TrainConfig(warmup_steps=0),
        total_steps=20,
    )
    losses = [trainer.update().loss for _ in range(8)]
    assert losses[-1] < losses[0] - 0.01
    assert not any(torch.equal(before[path], weight) for path, weight in lora_weights(model).items())
    assert all(torch.equal(tensor, base[path]) for path, tensor in model.state_dict().items() if path in base)


def test_weights_are_copied_in_and_only_where_all_fit() -> None:
    source, target, wider = adapted_model(), adapted_model(), adapted_model(config=LoraConfig(rank=4))
    for weight in lora_weights(target).values():
        weight.zero_()
    zeros = copied(lora_weights(target))
    few = dict(list(lora_weights(source).items())[1:])
    for wrong in (lora_weights(wider), few, {**lora_weights(source), "other": torch.ones(1)}, {}):
        with pytest.raises(CheckpointError, match=r"adapter weights: \S+ is .*; expected .*same rank and layers"):
            load_lora_weights(target, wrong)
        assert same(lora_weights(target), zeros)
    load_lora_weights(target, lora_weights(source))
    assert same(lora_weights(target), lora_weights(source))
    lora_weights(source)["layers.0.self_attn.q_proj.lora_A.weight"].zero_()
    assert not same(lora_weights(target), lora_weights(source))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoraConfig(rank=0), r"lora\.rank is 0; expected from 1 to 4096"),
        (lambda: LoraConfig(rank=10**9), r"lora\.rank is 1000000000; expected"),
        (lambda: LoraConfig(alpha=0.0), r"lora\.alpha is 0\.0; expected above 0"),
        (lambda: LoraConfig(alpha=math.nan), r"lora\.alpha is nan; expected above 0"),
        (lambda: LoraConfig(dropout=1.0), r"lora\.dropout is 1\.0; expected at least 0, below 1"),
        (lambda: LoraConfig(targets=("q_proj", "gate")), r"lora\.targets has 'gate'; expected some of q_proj, k_proj"),
        (lambda: LoraConfig(targets=("lm_head",)), r"lora\.targets has 'lm_head'.*down_proj"),
    ],
)
def test_a_value_out_of_bounds_is_named(make: Callable[[], LoraConfig], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


class Stage(Config):
    """A stage with the section that training stages have."""

    lora: LoraConfig | None = None


def test_it_is_a_section_of_a_recipe_and_of_flags(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('[lora]\nrank = 4\nalpha = "none"\ntargets = ["q_proj"]\n')
    assert load(Stage).lora is None
    assert load(Stage, tmp_path / "recipe.toml").lora == LoraConfig(rank=4, targets=("q_proj",))
    words = {"lora.rank": "2", "lora.alpha": "8", "lora.targets": ["up_proj", "q_proj"], "lora.dropout": "0.1"}
    found = load(Stage, None, words).lora
    assert found == LoraConfig(2, 8.0, 0.1, ("up_proj", "q_proj"))
    assert found.scale == 4 and found.layers == ("q_proj", "up_proj") and LoraConfig(rank=16).scale == 1
    with pytest.raises(ConfigError, match=r"lora\.targets has 'q_prj'; expected some of q_proj"):
        load(Stage, None, {"lora.targets": ["q_prj"]})
