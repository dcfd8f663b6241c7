"""The model computes what transformers' Qwen3, Qwen3-MoE, Llama and Qwen2 compute; its parts do what they say."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from minimind.model import (
    MixtureOfExperts,
    ModelConfig,
    RMSNorm,
    Transformer,
    attend_to_earlier,
    rotary_frequencies,
    rotate,
)

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "moe_intermediate_size": 24}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
UPSTREAM: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 96,
    "intermediate_size": 2432,
    "vocab_size": 6400,
}


def random_model(**changes: Any) -> Transformer:
    """A model with nothing at its neutral start: no norm of ones, no projection or bias of zeros."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**{**SHAPE, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2).add_(1.0 if parameter.ndim == 1 else 0.0)
    return model


def random_tokens(*shape: int) -> Tensor:
    return torch.randint(0, SHAPE["vocab_size"], shape, generator=torch.Generator().manual_seed(1))


# ---- the oracle


def hugging_face(model: Transformer, kind: str) -> transformers.PreTrainedModel:
    """transformers' model of that kind, with the same weights by name."""
    config = model.config
    fields = {**SHAPE, "rms_norm_eps": config.rms_norm_eps, "tie_word_embeddings": config.tie_word_embeddings}
    scaling = config.rope_scaling or {"rope_type": "default"}
    fields["rope_parameters"] = {"rope_theta": config.rope_theta, **scaling}
    if kind == "Qwen3Moe":
        names = (*EXPERTS, "num_experts_per_tok", "norm_topk_prob")
        fields |= {name: getattr(config, name) for name in names}
    theirs = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**fields))
    state = {name if name.startswith("lm_head") else f"model.{name}": t for name, t in model.state_dict().items()}
    theirs.load_state_dict(fuse_experts(state, config) | {"lm_head.weight": model.output_weight})
    return theirs.eval()


def fuse_experts(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """In memory, transformers keeps all experts of a layer in two tensors; files have one per expert, as we do."""
    fused = {name: tensor for name, tensor in state.items() if ".experts." not in name}
    for layer in range(config.num_hidden_layers if config.num_experts else 0):
        prefix = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            torch.stack([state[f"{prefix}.{expert}.{part}_proj.weight"] for expert in range(config.num_experts)])
            for part in ("gate", "up", "down")
        )
        fused |= {f"{prefix}.gate_up_proj": torch.cat([gate, up], dim=1), f"{prefix}.down_proj": down}
    return fused


KINDS = [
    ("Qwen3", {}),
    ("Qwen3", {"tie_word_embeddings": False}),
    ("Qwen3", {"rope_theta": 1e4, "rms_norm_eps": 1e-5}),
    ("Qwen3", {"rope_scaling": YARN}),
    ("Qwen3", {"rope_scaling": YARN | {"beta_fast": 16, "beta_slow": 2, "attention_factor": 1.3}}),
    ("Llama", {"qk_norm": False}),
    ("Llama", {"qk_norm": False, "tie_word_embeddings": False}),
    ("Qwen2", {"qk_norm": False, "attention_bias": True}),
    *(
        ("Qwen3Moe", {**EXPERTS, "num_experts_per_tok": chosen, "norm_topk_prob": is_normalised})
        for chosen in (1, 2)
        for is_normalised in (False, True)
    ),
]


@pytest.mark.parametrize(("kind", "changes"), KINDS)
def test_logits_are_those_of_transformers(kind: str, changes: dict[str, Any]) -> None:
    model, tokens = random_model(**changes), random_tokens(2, 100)
    with torch.no_grad():
        ours, theirs = model(tokens), hugging_face(model, kind)(tokens).logits
    assert theirs.std() > 0.5, "logits all near zero would be equal to anything"
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scaling", [None, YARN, YARN | {"factor": 40.0, "beta_fast": 8}])
@pytest.mark.parametrize(("head_dim", "theta"), [(8, 1e4), (96, 1e6), (128, 5e5)])
def test_rotary_frequencies_are_those_of_transformers_to_the_last_bit(
    head_dim: int, theta: float, scaling: dict[str, Any] | None
) -> None:
    """At position 32,768 a difference in the last bit would already turn a pair by a thousandth of a radian."""
    config = ModelConfig(**{**SHAPE, "head_dim": head_dim, "rope_theta": theta, "rope_scaling": scaling})
    frequencies, factor = rotary_frequencies(config)
    parameters = {"rope_theta": theta, **(scaling or {"rope_type": "default"})}
    theirs = Qwen3RotaryEmbedding(
        transformers.Qwen3Config(**{**SHAPE, "head_dim": head_dim}, rope_parameters=parameters)
    )
    torch.testing.assert_close(frequencies, theirs.inv_freq, atol=0, rtol=0 if scaling is None else 1e-6)
    assert factor == pytest.approx(theirs.attention_scaling)


# ---- shape and start


@pytest.mark.parametrize(
    ("experts", "expected"),
    [({}, 63_912_192), ({"num_experts": 4, "moe_intermediate_size": 2432}, 198_416_640)],
)
def test_the_upstream_shapes_have_the_upstream_number_of_parameters(experts: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        model = Transformer(ModelConfig(**UPSTREAM, **experts))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"vocab_size": 0}, "vocab_size is 0; expected at least 1"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1; expected at least 1"),
        ({"num_key_value_heads": 3}, r"num_attention_heads is 4; expected a multiple of num_key_value_heads \(3\)"),
        ({"head_dim": 7}, "head_dim is 7; expected an even number"),
        ({**EXPERTS, "num_experts_per_tok": 5}, "num_experts_per_tok is 5; expected 1 to 4"),
        ({**EXPERTS, "num_experts_per_tok": 0}, "num_experts_per_tok is 0; expected 1 to 4"),
        ({**EXPERTS, "moe_intermediate_size": 0}, "moe_intermediate_size is 0; expected at least 1"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling is .*'llama3'.*; expected"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling is .*; expected"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": "2"}}, "rope_scaling is .*'2'.*; expected"),
    ],
)
def test_an_impossible_shape_is_refused_before_a_model_is_made(changes: dict[str, Any], answer: str) -> None:
    with pytest.raises(ValueError, match=answer):
        ModelConfig(**{**SHAPE, **changes})


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, EXPERTS])
def test_a_fresh_model_finds_all_tokens_about_equally_likely(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, tokens = Transformer(ModelConfig(**{**SHAPE, **changes})), random_tokens(4, 65)
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(SHAPE["vocab_size"]), abs=0.05)


def test_fresh_blocks_leave_the_stream_as_it_is() -> None:
    torch.manual_seed(0)
    model, tokens = Transformer(ModelConfig(**SHAPE)), random_tokens(2, 9)
    expected = model.norm(model.embed_tokens(tokens))
    assert torch.equal(model.hidden_states(tokens).states, expected)


# ---- positions and attention


def test_scores_depend_on_relative_positions_alone() -> None:
    config = ModelConfig(**SHAPE)
    frequencies, _ = rotary_frequencies(config)
    q, k = torch.randn(2, 1, 1, 1, config.head_dim, generator=torch.Generator().manual_seed(0))

    def score(query_position: int, key_position: int) -> Tensor:
        turned = []
        for x, position in ((q, query_position), (k, key_position)):
            angles = torch.tensor([[float(position)]]) * frequencies
            turned.append(rotate(x, (angles.cos(), angles.sin())))
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(9, 4), score(105, 100), atol=1e-5, rtol=1e-5)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


def test_a_later_token_changes_no_earlier_logit() -> None:
    model, tokens = random_model(), random_tokens(2, 20)
    changed = tokens.clone()
    changed[:, 13] = (changed[:, 13] + 1) % SHAPE["vocab_size"]
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :13], after[:, :13])
    assert (before[:, 13:] != after[:, 13:]).any(-1).all()


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("time", [1, 7, 64])
def test_attention_by_plain_bfloat16_products_is_close_to_the_kernel(heads: int, groups: int, time: int) -> None:
    """bfloat16 has 8 bits; a wrong head or a leak from the future would be off by 1, the size of the values."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, time, n, 16, generator=generator).bfloat16() for n in (heads, groups, groups))
    expected = attend_to_earlier(q.float(), k.float(), v.float())
    torch.testing.assert_close(attend_to_earlier(q, k, v).float(), expected, atol=0.03, rtol=0.03)


def test_a_model_in_bfloat16_stays_close_to_itself_in_float32() -> None:
    model, tokens = random_model(), random_tokens(2, 30)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        rounded = model(tokens)
    exact = model(tokens)
    assert rounded.dtype == torch.float32 and 0 < (rounded - exact).std() < 0.02 * exact.std()


def test_under_autocast_products_are_bfloat16_and_the_stream_is_float32() -> None:
    model, streams = random_model(), []
    for block in model.layers:
        block.register_forward_hook(lambda _, __, output: streams.append(output[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        states = model.hidden_states(random_tokens(1, 4)).states
    assert (states.dtype, streams) == (torch.bfloat16, [torch.float32] * 2)


def test_rms_norm_gives_vectors_of_root_mean_square_one() -> None:
    norm = RMSNorm(32, eps=0.0)
    y = norm(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)) * 100)
    torch.testing.assert_close(y.square().mean(-1), torch.ones(5))


# ---- experts and gradients


@pytest.mark.parametrize("changes", [{}, {**EXPERTS, "num_experts_per_tok": 2}])
def test_recomputed_blocks_give_the_same_gradients(changes: dict[str, Any]) -> None:
    model, tokens = random_model(**changes), random_tokens(2, 12)

    def gradients() -> list[Tensor]:
        hidden = model.hidden_states(tokens, lengths=(5, 7, 9, 3))
        total = model.logits(hidden.states).logsumexp(-1).sum() + sum(r.square().sum() for r in hidden.router_logits)
        return list(torch.autograd.grad(total, list(model.parameters())))

    kept = gradients()
    model.recompute_blocks = True
    assert all(torch.equal(a, b) for a, b in zip(kept, gradients(), strict=True))


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "attention_bias": True}, EXPERTS])
def test_each_parameter_gets_a_gradient_even_an_expert_without_tokens(changes: dict[str, Any]) -> None:
    """A single token leaves three of four experts without any; their gradient is zero, not absent."""
    model = random_model(**changes)
    model(random_tokens(1, 1)).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("is_normalised", "chosen", "learns"), [(False, 1, True), (True, 1, False), (False, 2, True), (True, 2, True)]
)
def test_the_router_learns_from_the_language_loss(is_normalised: bool, chosen: int, learns: bool) -> None:
    """Except where a single expert's weight is normalised to the constant 1, which is why that is not the default."""
    model = random_model(**EXPERTS, num_experts_per_tok=chosen, norm_topk_prob=is_normalised)
    tokens = random_tokens(2, 17)
    F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for layer in model.layers:
        assert (layer.mlp.gate.weight.grad.abs().max() > 1e-5) == learns


@pytest.mark.parametrize("is_normalised", [False, True])
def test_a_mixture_is_the_weighted_sum_of_its_chosen_experts(is_normalised: bool) -> None:
    mixture = random_model(**EXPERTS, num_experts_per_tok=2, norm_topk_prob=is_normalised).layers[0].mlp
    assert isinstance(mixture, MixtureOfExperts)
    x = torch.randn(3, 5, SHAPE["hidden_size"], generator=torch.Generator().manual_seed(0))
    for token, y in zip(x.flatten(0, 1), mixture(x)[0].flatten(0, 1), strict=True):
        weights, chosen = mixture.gate(token).softmax(-1).sort(descending=True)
        weights = weights[:2] / (weights[:2].sum() if is_normalised else 1)
        expected = sum(w * mixture.experts[int(e)](token) for w, e in zip(weights, chosen, strict=False))
        torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)
