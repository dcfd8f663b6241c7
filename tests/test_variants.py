"""What other families do differently. Their logits stand beside transformers' in storage/test_families.py."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from tests.tiny import SHAPE, random_tokens

from minimind.model import Transformer
from minimind.variants import VariantConfig, is_near


def variant(**changes: Any) -> Transformer:
    """A model of the tiny shape with every weight random."""
    torch.manual_seed(0)
    model = Transformer(VariantConfig(**asdict(SHAPE) | {"model_type": "x", "qk_norm": False} | changes)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.2)
    return model


@torch.no_grad()
def test_with_its_defaults_a_variant_is_the_plain_model_to_the_bit() -> None:
    model = variant()
    plain = Transformer(replace(SHAPE, qk_norm=False))
    plain.load_state_dict(model.state_dict())
    tokens = random_tokens(2, 20)
    assert torch.equal(model(tokens), plain(tokens))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 5},
        {"no_rope_layers": (0,) * SHAPE.num_hidden_layers},
        {"embedding_multiplier": 3.0},
        {"attention_multiplier": 0.01},
        {"residual_multiplier": 0.5},
        {"logits_scaling": 2.0},
        {"norms": "after"},
        {"norms": "around"},
        {"norm_offset": True},
        {"hidden_act": "gelu_pytorch_tanh"},
        {
            "sliding_window": 5,
            "layer_types": ("sliding_attention",) + ("full_attention",) * (SHAPE.num_hidden_layers - 1),
        },
        {"sliding_window": 20, "rope_local_base_freq": 1e3},
        {"qk_norm": True, "qk_norm_across_heads": True},
    ],
)
def test_each_switch_changes_what_is_computed(changes: dict[str, Any]) -> None:
    tokens = random_tokens(2, 20)
    assert not torch.allclose(variant(**changes)(tokens), variant()(tokens), atol=1e-3)


@torch.no_grad()
def test_a_token_beyond_the_windows_of_all_layers_changes_nothing_and_the_last_one_inside_does() -> None:
    """Each layer reaches window - 1 positions further back."""
    model, tokens = variant(sliding_window=4), random_tokens(1, 20)
    reach = 3 * SHAPE.num_hidden_layers
    before = model(tokens)[0, -1]
    for place, changes in ((19 - reach - 1, False), (19 - reach, True)):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % SHAPE.vocab_size
        assert torch.equal(model(other)[0, -1], before) != changes


def test_a_query_sees_itself_and_the_window_less_one_before() -> None:
    places = torch.arange(5)
    assert is_near(places[:, None], places, 2).long().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize(
    "changes", [{"sliding_window": 0}, {"no_rope_layers": (1,)}, {"num_experts": 2, "num_experts_per_tok": 1}]
)
def test_a_shape_that_cannot_be_is_refused_by_name(changes: dict[str, Any]) -> None:
    name, _ = next(iter(changes.items()))
    with pytest.raises(ValueError, match=f"{name} .*; expected"):
        variant(**changes)
