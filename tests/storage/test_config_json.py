"""config.json: a shape is written as the published architecture that has it, for old readers and new ones."""

from dataclasses import asdict

import pytest

from minimind.errors import CheckpointError
from minimind.model import ModelConfig
from minimind.storage.config_check import shape_from_json
from minimind.storage.config_json import json_from_shape

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
SHAPES = [
    ModelConfig(),
    ModelConfig(tie_word_embeddings=False, rope_scaling=YARN),
    ModelConfig(attention_bias=True),
    ModelConfig(num_experts=4, num_experts_per_tok=2, norm_topk_prob=True),
    ModelConfig(qk_norm=False),
    ModelConfig(qk_norm=False, attention_bias=True),
    ModelConfig(qk_norm=False, attention_bias=True, output_bias=True),
]


@pytest.mark.parametrize("config", SHAPES)
def test_reading_gives_what_was_written(config: ModelConfig) -> None:
    values = json_from_shape(asdict(config), "config.json")
    assert ModelConfig(**shape_from_json(values, "config.json")) == config


def test_the_architecture_is_the_published_one_of_that_shape() -> None:
    names = [json_from_shape(asdict(config), "x")["architectures"][0].removesuffix("ForCausalLM") for config in SHAPES]
    assert names == ["Qwen3", "Qwen3", "Qwen3", "Qwen3Moe", "Llama", "Qwen2", "Llama"]


def test_experts_without_query_norms_have_no_published_architecture() -> None:
    with pytest.raises(CheckpointError, match="num_experts with qk_norm off"):
        json_from_shape(asdict(ModelConfig(num_experts=4, qk_norm=False)), "x")


def test_a_bias_behind_the_output_alone_has_no_published_architecture() -> None:
    with pytest.raises(CheckpointError, match="output_bias with attention_bias off"):
        json_from_shape(asdict(ModelConfig(output_bias=True)), "x")


def test_both_spellings_of_renamed_fields_are_written() -> None:
    values = json_from_shape(asdict(ModelConfig(rope_theta=5e5)), "x")
    assert values["rope_theta"] == values["rope_parameters"]["rope_theta"] == 5e5
    assert values["dtype"] == values["torch_dtype"] == "float32"
