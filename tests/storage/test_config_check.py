"""config.json: what is read is what was written, what says nothing is read past, and the rest is refused by name."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minimind.errors import CheckpointError
from minimind.generation.cache import KeyValueCache
from minimind.model import ModelConfig
from minimind.storage.checkpoint import load_model
from minimind.storage.config_check import shape_from_json
from minimind.storage.config_json import json_from_shape
from minimind.text.tokenizer import Tokenizer

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
MIXTURE = ModelConfig(num_experts=4, num_experts_per_tok=2, norm_topk_prob=True)


def written(**changes: Any) -> dict[str, Any]:
    """A file of ours with fields changed."""
    return json_from_shape(asdict(ModelConfig()), "x") | changes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "mamba"),
        ("model_type", None),
        ("architectures", ["Qwen3ForSequenceClassification"]),
        ("use_sliding_window", True),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("hidden_act", "gelu"),
        ("attention_dropout", 0.1),
        ("mlp_bias", True),
        ("quantization_config", {"bits": 4}),
        ("auto_map", {"AutoModel": "modeling.Evil"}),
        ("num_experts", 8),
        ("rope_scaling", {"rope_type": "dynamic", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0}),
        ("rope_parameters", {**YARN, "short_factor": [1.0]}),
        ("rope_parameters", {**YARN, "truncate": False}),
        ("rope_parameters", {**YARN, "partial_rotary_factor": 0.5}),
        ("rope_parameters", {**LLAMA3, "high_freq_factor": 1.0}),
        ("rope_parameters", {**LLAMA3, "low_freq_factor": None}),
        ("rope_parameters", {"rope_type": "longrope", "factor": 2.0}),
        ("use_mrope", True),
        ("use_qk_norm", True),
        ("rope_scaling", YARN),
        ("rope_scaling", "yarn"),
        ("rope_theta", 5.0),
        ("rope_theta", "1e6"),
        ("partial_rotary_factor", 0.5),
        ("vocab_size", 10**12),
        ("vocab_size", -1),
        ("vocab_size", True),
        ("vocab_size", 6400.0),
        ("vocab_size", None),
        ("num_hidden_layers", 10**6),
        ("rms_norm_eps", float("nan")),
        ("rms_norm_eps", 10**400),
        ("tie_word_embeddings", 1),
    ],
)
def test_a_field_that_is_not_understood_is_refused_by_name(field: str, value: Any) -> None:
    values = written(**{field: value})
    with pytest.raises(CheckpointError, match=f"^folder/config.json.*{field}.*; expected") as error:
        shape_from_json(values, "folder/config.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(json_from_shape(asdict(MIXTURE), "x"))), JSON)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: Any) -> None:
    values = json_from_shape(asdict(MIXTURE), "x") | {field: value}
    try:
        shape = shape_from_json(values, "x")
    except CheckpointError:
        return
    defaults = asdict(MIXTURE)
    assert all(type(shape[name]) is type(defaults[name]) for name in defaults if name != "rope_scaling")


def test_version_4_and_version_5_files_mean_the_same() -> None:
    old = json_from_shape(asdict(ModelConfig(rope_scaling=YARN)), "x")
    new = dict(old)
    del old["rope_parameters"], new["rope_theta"], new["rope_scaling"]
    assert shape_from_json(old, "x") == shape_from_json(new, "x")


def test_a_null_of_a_feature_nobody_knows_is_harmless() -> None:
    values = written(a_feature_of_tomorrow=None)
    assert ModelConfig(**shape_from_json(values, "x")) == ModelConfig()


@pytest.mark.parametrize(
    "notes",
    [
        # What trainers, transformers of all versions, and files of tokenizers leave in a config.json.
        {"unsloth_version": "2025.3.19", "unsloth_fixed": True},
        {"use_mrope": False, "max_window_layers": 21, "sliding_window": 4096, "use_sliding_window": False},
        {"_attn_implementation_autoset": True, "_name_or_path": "x/y", "_commit_hash": "1a2b"},
        {"truncation": {"max_length": 512}, "padding": "left", "padding_side": "left", "tokenizer_class": "X"},
        {"temperature": 0.6, "do_sample": True, "max_length": 20, "pruned_heads": {}, "torchscript": False},
        {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}},
    ],
)
def test_what_cannot_change_the_computation_is_read_past(notes: dict[str, Any]) -> None:
    assert ModelConfig(**shape_from_json(written(**notes), "x")) == ModelConfig()


def test_yarn_is_understood_as_transformers_does() -> None:
    """It reads attention_factor, or DeepSeek's two factors where both are given; attn_factor is llama.cpp's alone."""

    def scaling(**more: float) -> Any:
        return shape_from_json(written(rope_parameters={**YARN, **more}, rope_scaling=None), "x")["rope_scaling"]

    assert scaling(attn_factor=0.8782, mscale=0.7) == YARN
    assert scaling(mscale=1.0, mscale_all_dim=1.0) == YARN | {"attention_factor": 1.0}
    assert scaling(mscale=1.0, mscale_all_dim=1.0, attention_factor=2.0) == YARN | {"attention_factor": 2.0}


def test_a_bias_of_llama_stands_behind_the_output_too_and_one_of_qwen2_does_not() -> None:
    for kind, has_output in (("llama", True), ("qwen3", True), ("qwen2", False)):
        values = written(model_type=kind, architectures=None, attention_bias=True)
        del values["output_bias"]
        shape = shape_from_json(values, "x")
        assert (shape["attention_bias"], shape["output_bias"]) == (True, has_output)


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 295,
    "max_position_embeddings": 131072,
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": [2, 0],
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6, "sliding_window": 4096}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, "pretraining_tp": 1}
# The fields of published models' files, with small numbers in them.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama 3.2": SIZES
    | LLAMA
    | {"head_dim": 16, "rope_theta": 5e5, "rope_scaling": LLAMA3 | {"factor": 32.0}}
    | {"tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "transformers_version": "4.45.0"},
    "a distill of Llama": SIZES
    | LLAMA
    | {"rope_theta": 5e5, "rope_scaling": LLAMA3, "tie_word_embeddings": False}
    | {"_name_or_path": "x/y", "unsloth_version": "2025.3.19", "pad_token_id": 3},
    "a distill of Qwen2": SIZES
    | QWEN2
    | {"max_window_layers": 21, "use_mrope": False, "use_sliding_window": False}
    | {"rope_theta": 10000, "tie_word_embeddings": False},
    "YaRN of a distill of Qwen3": SIZES
    | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 32}
    | {"rope_scaling": YARN | {"attn_factor": 0.8782488562869419}, "rope_theta": 1000000, "rms_norm_eps": 1e-6}
    | {"attention_bias": False, "max_window_layers": 36, "sliding_window": None, "use_sliding_window": False},
    "YaRN as DeepSeek writes it": SIZES
    | LLAMA
    | {"rope_theta": 1e4}
    | {"rope_scaling": YARN | {"type": "yarn", "beta_fast": 16, "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 1.0}},
    "linear, from long ago": SIZES | LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}, "use_bfloat16": False},
    "biases of a Llama": SIZES | LLAMA | {"attention_bias": True, "tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_logits_of_published_configurations_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """As one row, with documents packed, and token after token from the cache."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(**{k: v for k, v in PUBLISHED[name].items() if k != "torch_dtype"})
        theirs = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in theirs.parameters():
            parameter.data.normal_(0.5 if parameter.ndim == 1 else 0, 0.2)
        theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    Tokenizer.train(["hello world"], 295).save(tmp_path)
    model, _ = load_model(tmp_path)
    tokens = torch.randint(0, 295, (2, 48))

    with torch.no_grad():
        expected = theirs(tokens).logits
        apart = torch.cat([theirs(part).logits for part in tokens[:1].split([30, 18], dim=1)], dim=1)
        packed = model.logits(model.hidden_states(tokens[:1], lengths=(30, 18)).states)
        cache = KeyValueCache.allocate(model.config, batch=2, capacity=48)
        cached = []
        for part in tokens.split([40, 1, 1, 1, 5], dim=1):
            cached.append(model.logits(model.hidden_states(part, cache=cache).states))
            cache.advance(part.shape[1])

    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(packed, apart, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat(cached, dim=1), expected, rtol=0, atol=1e-5)
