"""Published families have transformers' logits, however the tokens come, and are saved as theirs."""

import contextlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minimind.errors import CheckpointError
from minimind.generation.cache import KeyValueCache
from minimind.generation.engine import Engine
from minimind.generation.live_forward import LiveForward
from minimind.generation.slot_attention import NewTokens
from minimind.generation.slots import Slots
from minimind.interfaces import Batch
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.storage.checkpoint import load_model, save_checkpoint
from minimind.storage.config_check import shape_from_json
from minimind.storage.families import model_config
from minimind.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

NUM_IDS = 295
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": NUM_IDS,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "bos_token_id": 1,
    "eos_token_id": [2, 0],
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "transformers_version": "4.48.0",
}
SILU = {"hidden_act": "silu"}
MISTRAL = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "tie_word_embeddings": False, **SILU}
SMOLLM3 = {
    **{"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "attention_bias": False, "mlp_bias": False},
    **{"max_window_layers": 28, "no_rope_layer_interval": 4, "pretraining_tp": 2, "rope_scaling": None, **SILU},
    **{"rope_theta": 5e6, "sliding_window": None, "use_sliding_window": False, "rms_norm_eps": 1e-6, "pad_token_id": 3},
}
GRANITE = {
    **{"model_type": "granite", "architectures": ["GraniteForCausalLM"], "attention_bias": False, "mlp_bias": False},
    **{"attention_multiplier": 0.015625, "embedding_multiplier": 12.0, "logits_scaling": 8.0, **SILU},
    **{"residual_multiplier": 0.22, "rope_scaling": None, "rope_theta": 1e7, "tie_word_embeddings": True},
}
OLMO2 = {
    **{"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "attention_bias": False, **SILU},
    **{"num_key_value_heads": 4, "pad_token_id": 3, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 5e5},
    **{"tie_word_embeddings": False},
}
GEMMA3 = {
    **{"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "attention_bias": False},
    **{"attn_logit_softcapping": None, "cache_implementation": "hybrid", "final_logit_softcapping": None},
    **{"head_dim": 24, "hidden_activation": "gelu_pytorch_tanh", "num_key_value_heads": 1, "pad_token_id": 0},
    **{"query_pre_attn_scalar": 168, "rms_norm_eps": 1e-6, "rope_local_base_freq": 10000, "rope_scaling": None},
    **{"rope_theta": 1000000, "sliding_window": 9, "sliding_window_pattern": 2},
}
# The fields of published models' files, with small numbers in them.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Mistral 0.1": MISTRAL | {"sliding_window": 7, "rope_theta": 1e4},
    "Mistral 0.3": MISTRAL | {"sliding_window": None, "rope_theta": 1e6, "head_dim": 24},
    "SmolLM3": SMOLLM3 | {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]},
    "SmolLM3 by interval": SMOLLM3 | {"no_rope_layer_interval": 2},
    "Granite 3": GRANITE,
    "OLMo 2": OLMO2,
    "Gemma 3 1B": GEMMA3,
    "Gemma 3 270M": GEMMA3
    | {"_sliding_window_pattern": 6, "use_bidirectional_attention": False, "sliding_window_pattern": None}
    | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "Gemma 3 as version 5 writes it, positions scaled": {k: v for k, v in GEMMA3.items() if "rope" not in k}
    | {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    },
}


@pytest.fixture(params=PUBLISHED)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """transformers' model with nothing at its neutral start, and a folder with its weights as published."""
    values = SIZES | PUBLISHED[request.param]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(**{k: v for k, v in values.items() if k != "torch_dtype"})
        theirs = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in theirs.parameters():
            parameter.data.normal_(0.5 if parameter.ndim == 1 else 0, 0.15)
        theirs.save_pretrained(tmp_path / "published")
    (tmp_path / "published" / "config.json").write_text(json.dumps(values))
    Tokenizer.train(["hello world"], NUM_IDS).save(tmp_path / "published")
    return theirs, tmp_path / "published"


def random_tokens(*shape: int) -> Tensor:
    return torch.randint(0, NUM_IDS, shape, generator=torch.Generator().manual_seed(1))


def engine_logits(model: Transformer, texts: list[list[int]]) -> list[Tensor]:
    """Each text in a slot of its own: a piece of it, another with the others' single tokens beside it, the rest."""
    slots = Slots(model.config, len(texts), 64)
    forward, found = LiveForward(model, slots), [[] for _ in texts]
    sizes = [len(text) for text in texts]
    steps = [[(slot, 0, size - 5) for slot, size in enumerate(sizes)]]
    steps += [[(slot, size - 5 + step, size - 4 + step) for slot, size in enumerate(sizes)] for step in range(3)]
    steps += [[(slot, size - 2, size) for slot, size in enumerate(sizes)]]
    for step in steps:
        chunks = [NewTokens(slot, texts[slot][first:last]) for slot, first, last in step]
        for chunk, states in zip(chunks, forward(chunks).split([len(chunk.ids) for chunk in chunks]), strict=True):
            found[chunk.slot].append(forward.logits(states))
            slots.append(chunk.slot, list(chunk.ids))
    return [torch.cat(parts) for parts in found]


@torch.no_grad()
def test_logits_are_those_of_transformers_whole_packed_cached_and_batched(published: tuple[Any, Path]) -> None:
    theirs, folder = published
    model, _ = load_model(folder)
    tokens = random_tokens(2, 48)
    expected = theirs(tokens).logits
    apart = torch.cat([theirs(part).logits for part in tokens[:1].split([30, 18], dim=1)], dim=1)

    packed = model.logits(model.hidden_states(tokens[:1], lengths=(30, 18)).states)
    cache = KeyValueCache.allocate(model.config, batch=2, capacity=48)
    cached = []
    for part in tokens.split([30, 1, 1, 1, 15], dim=1):
        cached.append(model.logits(model.hidden_states(part, cache=cache).states))
        cache.advance(part.shape[1])
    served = engine_logits(model, [tokens[0].tolist(), tokens[1, :20].tolist(), tokens[1].tolist()])

    assert expected.std() > 0.05, "logits all near zero would be equal to anything"
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(packed, apart, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat(cached, dim=1), expected, rtol=0, atol=1e-5)
    for found, wanted in zip(served, (expected[0], expected[1, :20], expected[1]), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_is_saved_here_has_the_same_logits_in_transformers_and_comes_back_as_it_was(
    published: tuple[Any, Path], tmp_path: Path
) -> None:
    theirs, folder = published
    model, tokenizer = load_model(folder)
    save_checkpoint(tmp_path / "saved", model, tokenizer)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again, told = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    tokens = random_tokens(2, 40)
    torch.testing.assert_close(again(tokens).logits, theirs(tokens).logits, rtol=0, atol=1e-6)
    loaded, _ = load_model(tmp_path / "saved")
    assert loaded.config == model.config
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_the_loss_of_a_step_and_its_gradient_are_a_float64_loop_s(published: tuple[Any, Path]) -> None:
    """Document after document through transformers' model, in double precision."""
    theirs, folder = published
    model, _ = load_model(folder)
    tokens, targets = random_tokens(2, 2, 24)
    weights, lengths = torch.rand(2, 24, generator=torch.Generator().manual_seed(2)), (24, 15, 9)
    loss = NextToken()(model, Batch(tokens=tokens, targets=targets, weights=weights, lengths=lengths, num_tokens=48))
    loss.total.backward()

    theirs, expected, start = theirs.double(), torch.zeros((), dtype=torch.float64), 0
    flat, wanted, weight = tokens.flatten(), targets.flatten(), weights.flatten().double()
    for length in lengths:
        shares = theirs(flat[None, start : start + length]).logits[0].double().log_softmax(-1)
        for place in range(length):
            expected = expected - weight[start + place] * shares[place, wanted[start + place]]
        start += length
    expected.backward()
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)
    name = "layers.0.mlp.down_proj.weight"
    ours, other = (each.get_parameter(name).grad for each in (model, theirs.model))
    assert ours is not None
    torch.testing.assert_close(ours.double(), other, rtol=0, atol=1e-5 * ours.abs().max().item())


def test_the_engine_takes_the_model_s_own_pass_where_there_is_no_other(published: tuple[Any, Path]) -> None:
    model, tokenizer = load_model(published[1])
    is_plain = type(model.config) is ModelConfig
    assert isinstance(Engine(model, tokenizer, capacity=32)._forward, LiveForward) == (not is_plain)


def test_a_mistral_without_a_window_or_with_one_as_wide_as_its_context_is_a_llama() -> None:
    for window in (None, 4096, 5000):
        config = model_config(shape_from_json(SIZES | MISTRAL | {"sliding_window": window}, "x"))
        assert type(config) is ModelConfig and not config.qk_norm
    # transformers takes 4096 for a field that is not there.
    left_out = model_config(shape_from_json(SIZES | MISTRAL | {"max_position_embeddings": 8192}, "x"))
    assert getattr(left_out, "sliding_window", None) == 4096


@pytest.mark.parametrize(
    ("values", "field", "value"),
    [
        (MISTRAL, "sliding_window", 0),
        (MISTRAL, "attention_bias", True),
        (MISTRAL, "no_rope_layers", [1, 1, 1]),
        (SMOLLM3, "no_rope_layers", [1, 0]),
        (SMOLLM3, "no_rope_layers", [1, 0, 2]),
        (SMOLLM3, "no_rope_layer_interval", 0),
        (SMOLLM3, "use_sliding_window", True),
        (SMOLLM3, "embedding_multiplier", 2.0),
        (GRANITE, "residual_multiplier", 0),
        (GRANITE, "attention_multiplier", "1"),
        (GRANITE, "mlp_bias", True),
        (OLMO2, "clip_qkv", 8.0),
        (GEMMA3, "final_logit_softcapping", 30.0),
        (GEMMA3, "use_bidirectional_attention", True),
        (GEMMA3, "hidden_activation", "gelu"),
        (GEMMA3, "layer_types", ["sliding_attention"]),
        (GEMMA3, "rope_scaling", {"rope_type": "yarn", "factor": 2.0}),
        (GEMMA3, "query_pre_attn_scalar", 0.5),
    ],
)
def test_a_field_that_is_not_understood_is_refused_by_name(values: dict[str, Any], field: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"^folder/config.json: {field} is .*; expected"):
        shape_from_json(SIZES | values | {field: value}, "folder/config.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from(["full_attention", "linear"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["rope_type", "factor", "x"]), inner),
    max_leaves=5,
)
FAMILY_FIELDS_READ = [(name, field) for name, values in PUBLISHED.items() for field in sorted(values)]


@given(st.sampled_from(FAMILY_FIELDS_READ), JSON)
def test_any_value_in_any_field_of_a_family_is_read_or_refused(place: tuple[str, str], value: Any) -> None:
    name, field = place
    with contextlib.suppress(CheckpointError, ValueError):
        assert model_config(shape_from_json(SIZES | PUBLISHED[name] | {field: value}, "x")).hidden_size == 64
