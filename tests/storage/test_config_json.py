"""config.json: what is read is what was written, and what is not understood is refused by name."""

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.errors import CheckpointError
from minimind.model import ModelConfig
from minimind.storage.config_json import json_from_shape, shape_from_json

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
SHAPES = [
    ModelConfig(),
    ModelConfig(tie_word_embeddings=False, rope_scaling=YARN),
    ModelConfig(attention_bias=True),
    ModelConfig(num_experts=4, num_experts_per_tok=2, norm_topk_prob=True),
    ModelConfig(qk_norm=False),
    ModelConfig(qk_norm=False, attention_bias=True),
]


@pytest.mark.parametrize("config", SHAPES)
def test_reading_gives_what_was_written(config: ModelConfig) -> None:
    values = json_from_shape(asdict(config), "config.json")
    assert ModelConfig(**shape_from_json(values, "config.json")) == config


def test_the_architecture_is_the_published_one_of_that_shape() -> None:
    names = [json_from_shape(asdict(config), "x")["architectures"][0].removesuffix("ForCausalLM") for config in SHAPES]
    assert names == ["Qwen3", "Qwen3", "Qwen3", "Qwen3Moe", "Llama", "Qwen2"]


def test_experts_without_query_norms_have_no_published_architecture() -> None:
    with pytest.raises(CheckpointError, match="num_experts with qk_norm off"):
        json_from_shape(asdict(ModelConfig(num_experts=4, qk_norm=False)), "x")


def test_both_spellings_of_renamed_fields_are_written() -> None:
    values = json_from_shape(asdict(ModelConfig(rope_theta=5e5)), "x")
    assert values["rope_theta"] == values["rope_parameters"]["rope_theta"] == 5e5
    assert values["dtype"] == values["torch_dtype"] == "float32"


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
        ("rope_scaling", {**YARN, "mscale": 1.0}),
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
    values = json_from_shape(asdict(ModelConfig()), "x") | {field: value}
    with pytest.raises(CheckpointError, match=f"^folder/config.json.*{field}.*; expected") as error:
        shape_from_json(values, "folder/config.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(json_from_shape(asdict(SHAPES[3]), "x"))), JSON)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: Any) -> None:
    values = json_from_shape(asdict(SHAPES[3]), "x") | {field: value}
    try:
        shape = shape_from_json(values, "x")
    except CheckpointError:
        return
    defaults = asdict(SHAPES[3])
    assert all(type(shape[name]) is type(defaults[name]) for name in defaults if name != "rope_scaling")


def test_version_4_and_version_5_files_mean_the_same() -> None:
    old = json_from_shape(asdict(ModelConfig(rope_scaling=YARN)), "x")
    new = dict(old)
    del old["rope_parameters"], new["rope_theta"], new["rope_scaling"]
    assert shape_from_json(old, "x") == shape_from_json(new, "x")


def test_a_null_of_a_feature_nobody_knows_is_harmless() -> None:
    values = json_from_shape(asdict(ModelConfig()), "x") | {"a_feature_of_tomorrow": None}
    assert ModelConfig(**shape_from_json(values, "x")) == ModelConfig()
