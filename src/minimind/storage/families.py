"""Published families beyond Qwen's and Llama's, a row each: what their config.json says, and what is written into it.

A row names what `VariantConfig` has for the family. `config_check.py` reads the fields that all share.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from minimind.model import ModelConfig
from minimind.storage.config_reader import LARGEST_COUNT, Reader
from minimind.variants import VariantConfig

__all__ = ["FAMILIES", "FAMILY_FIELDS", "Family", "model_config"]

FAMILY_FIELDS = tuple(
    field.name for field in fields(VariantConfig) if field.name not in {field.name for field in fields(ModelConfig)}
)


class Family(NamedTuple):
    """What one family's config.json has beside the fields that all share.

    architecture:  transformers' class
    fields:        those that are read here
    rope_theta:    transformers' value where a file leaves it out
    defaults:      the same for other fields, when they are not the common ones
    read:          those fields -> fields of the configuration; nothing when the model is a plain one
    write:         the configuration's fields -> those fields
    flatten:       what brings a file's fields to the places where others have them
    """

    architecture: str
    fields: tuple[str, ...]
    rope_theta: float
    defaults: Mapping[str, Any]
    read: Callable[[Reader], dict[str, Any]]
    write: Callable[[Mapping[str, Any]], dict[str, Any]]
    flatten: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict


def model_config(shape: Mapping[str, Any]) -> ModelConfig:
    """Errors: ValueError"""
    return VariantConfig(**shape) if "model_type" in shape else ModelConfig(**shape)


def _read_window(read: Reader) -> dict[str, Any]:
    """A window as wide as the context leaves out nothing, and the rest of a Mistral is a Llama."""
    if read.switch("attention_bias"):
        raise read.error("attention_bias", "false in a mistral")
    window = None if read.values.get("sliding_window") is None else read.size("sliding_window")
    if window is None or window >= read.size("max_position_embeddings"):
        return {}
    return {"model_type": "mistral", "sliding_window": window}


def _read_unturned(read: Reader) -> dict[str, Any]:
    """no_rope_layers, or each so many'th layer."""
    count = read.size("num_hidden_layers", largest=LARGEST_COUNT)
    turned = read.values.get("no_rope_layers")
    if turned is None:
        interval = read.size("no_rope_layer_interval")
        turned = [int((index + 1) % interval != 0) for index in range(count)]
    if not isinstance(turned, list) or len(turned) < count or any(type(one) is not int for one in turned):
        raise read.error("no_rope_layers", f"a list with a 0 or 1 for each of {count} layers")
    if not {*turned} <= {0, 1}:
        raise read.error("no_rope_layers", "0 and 1 alone")
    return {"model_type": "smollm3", "no_rope_layers": tuple(turned[:count])}


MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")


def _read_multipliers(read: Reader) -> dict[str, Any]:
    return {"model_type": "granite", **{name: read.number(name, 1.0) for name in MULTIPLIERS}}


FULL, SLIDING = "full_attention", "sliding_attention"


def _flatten_gemma(values: Mapping[str, Any]) -> dict[str, Any]:
    """Version 5 has positions for each kind of layer inside `rope_parameters`."""
    flat, tables = dict(values), values.get("rope_parameters")
    if isinstance(tables, dict) and isinstance(tables.get(FULL), dict) and isinstance(tables.get(SLIDING), dict):
        local = tables[SLIDING]
        if {*tables} == {FULL, SLIDING} and {*local} <= {"rope_theta", "rope_type"} and _is_plain(local):
            flat["rope_parameters"] = tables[FULL]
            flat["rope_local_base_freq"] = local.get("rope_theta", values.get("rope_local_base_freq", 1e4))
    return flat


def _is_plain(table: Mapping[str, Any]) -> bool:
    return table.get("rope_type", "default") == "default"


def _read_gemma(read: Reader) -> dict[str, Any]:
    if read.switch("use_bidirectional_attention"):
        raise read.error("use_bidirectional_attention", "false")
    if read.switch("attention_bias"):
        raise read.error("attention_bias", "false in a gemma3_text")
    scaling = read.values.get("rope_parameters") or read.values.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type", "default")) not in ("default", "linear"):
        raise read.error("rope_scaling", "rope_type linear or none in a gemma3_text")
    count = read.size("num_hidden_layers", largest=LARGEST_COUNT)
    kinds = read.values.get("layer_types")
    if kinds is None:
        pattern = "sliding_window_pattern" if "sliding_window_pattern" in read.values else "_sliding_window_pattern"
        every = read.size(pattern, 6)
        kinds = [SLIDING if (index + 1) % every else FULL for index in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count or any(kind not in (FULL, SLIDING) for kind in kinds):
        raise read.error("layer_types", f"{FULL!r} or {SLIDING!r} for each of {count} layers")
    return {
        "model_type": "gemma3_text",
        "qk_norm": True,
        "norms": "around",
        "norm_offset": True,
        "hidden_act": read.choice("hidden_activation", ("gelu_pytorch_tanh", "silu")),
        "embedding_multiplier": read.size("hidden_size") ** 0.5,
        "attention_multiplier": read.size("query_pre_attn_scalar") ** -0.5,
        "sliding_window": read.size("sliding_window"),
        "layer_types": tuple(kinds),
        "rope_local_base_freq": read.number("rope_local_base_freq"),
    }


def _write_gemma(shape: Mapping[str, Any]) -> dict[str, Any]:
    full = (shape["rope_scaling"] or {"rope_type": "default"}) | {"rope_theta": shape["rope_theta"]}
    local = {"rope_type": "default", "rope_theta": shape["rope_local_base_freq"]}
    return {
        "hidden_act": None,
        "hidden_activation": shape["hidden_act"],
        "query_pre_attn_scalar": round(shape["attention_multiplier"] ** -2),
        "sliding_window": shape["sliding_window"],
        "layer_types": [*shape["layer_types"]],
        "rope_local_base_freq": shape["rope_local_base_freq"],
        "rope_parameters": {FULL: full, SLIDING: local},
    }


FAMILIES = {
    "mistral": Family(
        "MistralForCausalLM",
        ("sliding_window",),
        1e4,
        {"sliding_window": 4096, "num_key_value_heads": 8},
        _read_window,
        lambda shape: {"sliding_window": shape["sliding_window"]},
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        ("no_rope_layers", "no_rope_layer_interval"),
        2e6,
        {"no_rope_layer_interval": 4, "num_key_value_heads": 4, "tie_word_embeddings": True},
        _read_unturned,
        lambda shape: {"no_rope_layers": [*shape["no_rope_layers"]]},
    ),
    "granite": Family(
        "GraniteForCausalLM",
        MULTIPLIERS,
        1e4,
        {},
        _read_multipliers,
        lambda shape: {name: shape[name] for name in MULTIPLIERS},
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        (),
        1e4,
        {"rms_norm_eps": 1e-5},
        lambda read: {"model_type": "olmo2", "norms": "after", "qk_norm": True, "qk_norm_across_heads": True},
        lambda shape: {},
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        (
            *("hidden_activation", "query_pre_attn_scalar", "sliding_window", "layer_types", "rope_local_base_freq"),
            *("sliding_window_pattern", "use_bidirectional_attention", "cache_implementation"),
        ),
        1e6,
        {
            **{"head_dim": 256, "num_key_value_heads": 4, "tie_word_embeddings": True, "rope_local_base_freq": 1e4},
            **{"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "sliding_window": 4096},
        },
        _read_gemma,
        _write_gemma,
        _flatten_gemma,
    ),
}
