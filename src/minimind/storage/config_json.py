"""config.json of a Hugging Face folder <-> the fields of `ModelConfig`, with every field understood or refused.

Four published architectures are this model with switches set: Qwen3, Qwen3-MoE, Llama and Qwen2. A file may say more
than a shape: sliding windows, quantisation, scaled positions. To ignore one of those would compute something else
without a word, so a field that is neither a shape, nor known to be harmless, nor switched off is an error.
Next: `checkpoint.py`, which reads and writes the folder.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from minimind.errors import CheckpointError

__all__ = ["ARCHITECTURES", "json_from_shape", "shape_from_json"]

ARCHITECTURES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
# Features this model lacks, and the values that leave them off.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_dropout": (0,),
    "decoder_sparse_step": (1,),
    "hidden_act": ("silu",),
    "is_encoder_decoder": (False,),
    "mlp_bias": (False,),
    "mlp_only_layers": ([],),
    "partial_rotary_factor": (1,),
    "pretraining_tp": (1,),
    "rope_interleaved": (False,),
    "use_sliding_window": (False,),
}
# Fields that do not change what the model computes. `sliding_window` counts only with `use_sliding_window`.
SILENT = (
    "_name_or_path architectures bos_token_id chunk_size_feed_forward dtype eos_token_id id2label initializer_range "
    "is_llama_config label2id max_window_layers model_type output_attentions output_hidden_states "
    "output_router_logits pad_token_id problem_type return_dict router_aux_loss_coef sliding_window torch_dtype "
    "transformers.js_config transformers_version use_cache"
)
SHAPE_FIELDS = (
    "attention_bias head_dim hidden_size intermediate_size layer_types max_position_embeddings num_attention_heads "
    "num_hidden_layers num_key_value_heads rms_norm_eps rope_parameters rope_scaling rope_theta tie_word_embeddings "
    "vocab_size"
)
EXPERT_FIELDS = ("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob")
YARN_FIELDS = ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor")
# No real model comes near these; a hostile file must be refused before it costs memory or time.
LARGEST_SIZE = 2**24
LARGEST_COUNT = 4096


def json_from_shape(shape: Mapping[str, Any], where: str | Path) -> dict[str, Any]:
    """config.json for readers of transformers 4 and 5: both spellings of each field that changed its name.

    shape:   the fields of `ModelConfig`
    Errors:  CheckpointError when no published architecture has this shape.
    """
    has_experts, has_norm = shape["num_experts"] > 0, shape["qk_norm"]
    if has_experts and not has_norm:
        raise CheckpointError(f"{where}: num_experts with qk_norm off; expected qk_norm on, as Qwen3-MoE has it")
    plain_kind = "qwen2" if shape["attention_bias"] else "llama"
    kind = ("qwen3_moe" if has_experts else "qwen3") if has_norm else plain_kind
    left_out = {"qk_norm", "rope_scaling", *(() if has_experts else EXPERT_FIELDS)}
    experts = {"decoder_sparse_step": 1, "mlp_only_layers": []} if has_experts else {}
    scaling = shape["rope_scaling"] or {"rope_type": "default"}
    return {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        **{name: value for name, value in shape.items() if name not in left_out},
        **experts,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        # Readers of version 4 take 10000 from a file that has `rope_parameters` only, and say nothing.
        "rope_scaling": shape["rope_scaling"],
        "rope_parameters": {**scaling, "rope_theta": shape["rope_theta"]},
        "dtype": "float32",
        "torch_dtype": "float32",
        "use_cache": True,
    }


def shape_from_json(values: Mapping[str, Any], where: str | Path) -> dict[str, Any]:
    """The fields of `ModelConfig` that a config.json describes; CheckpointError names the field it refuses."""
    read = _Reader(values, where)
    kind = read.choice("model_type", ARCHITECTURES)
    _refuse_other_parts(read, kind)
    heads, width = read.size("num_attention_heads"), read.size("hidden_size")
    # The defaults are transformers' own: its files leave out what has its default value.
    shape = {
        "vocab_size": read.size("vocab_size"),
        "hidden_size": width,
        "num_hidden_layers": read.size("num_hidden_layers", largest=LARGEST_COUNT),
        "num_attention_heads": heads,
        "num_key_value_heads": read.size("num_key_value_heads", heads),
        "head_dim": read.size("head_dim", 128 if kind == "qwen3" else max(width // heads, 1)),
        "intermediate_size": read.size("intermediate_size"),
        "max_position_embeddings": read.size("max_position_embeddings"),
        "rms_norm_eps": read.number("rms_norm_eps", 1e-6),
        "tie_word_embeddings": read.switch("tie_word_embeddings"),
        "attention_bias": kind == "qwen2" or read.switch("attention_bias"),
        "qk_norm": kind in ("qwen3", "qwen3_moe"),
        **_rotary(read),
    }
    if kind == "qwen3_moe":
        alias = "num_experts" if "num_experts" in values else "num_local_experts"
        shape |= {
            "num_experts": read.size(alias, largest=LARGEST_COUNT),
            "num_experts_per_tok": read.size("num_experts_per_tok", 8),
            "moe_intermediate_size": read.size("moe_intermediate_size"),
            "norm_topk_prob": read.switch("norm_topk_prob"),
        }
    return shape


def _refuse_other_parts(read: "_Reader", kind: str) -> None:
    """Refuse a file that describes a part this model does not have."""
    if read.values.get("architectures") not in (None, [], [ARCHITECTURES[kind]]):
        raise read.error("architectures", f"[{ARCHITECTURES[kind]!r}]")
    layer_types = read.values.get("layer_types") or []
    if not isinstance(layer_types, list) or any(layer != "full_attention" for layer in layer_types):
        raise read.error("layer_types", "'full_attention' for each layer")
    for name, allowed in NEUTRAL.items():
        if read.values.get(name) is not None and read.values[name] not in allowed:
            raise read.error(name, repr(allowed[0]))
    known = {*SHAPE_FIELDS.split(), *NEUTRAL, *SILENT.split(), *(EXPERT_FIELDS if kind == "qwen3_moe" else ())}
    for name in sorted(name for name, value in read.values.items() if value is not None and name not in known):
        raise read.error(name, "no such field, because this model has no part that it could describe")


def _rotary(read: "_Reader") -> dict[str, Any]:
    """rope_theta and rope_scaling, which version 4 writes side by side and version 5 inside `rope_parameters`."""
    parameters, scaling = read.table("rope_parameters"), read.table("rope_scaling")
    tables = [table for table in (parameters, scaling) if table]
    thetas = {table.number("rope_theta", 1e4) for table in (parameters, read) if "rope_theta" in table.values}
    if len(thetas) > 1:
        raise read.error("rope_theta", f"{parameters.values['rope_theta']}, as in rope_parameters")
    found = [_scaling(table) for table in tables]
    if len(found) == 2 and found[0] != found[1]:
        raise read.error("rope_scaling", f"{found[0]}, as in rope_parameters")
    return {"rope_theta": thetas.pop() if thetas else 1e4, "rope_scaling": found[0] if found else None}


def _scaling(table: "_Reader") -> dict[str, Any] | None:
    """None for plain positions, or YaRN's settings."""
    alias = "rope_type" if "rope_type" in table.values else "type"
    kind = table.choice(alias, ("default", "yarn")) if alias in table.values else "default"
    fields = YARN_FIELDS if kind == "yarn" else ()
    for name, value in table.values.items():
        if value is not None and name not in ("rope_type", "type", "rope_theta", *fields):
            raise table.error(name, f"no such field for rope_type {kind!r}")
    if kind == "default":
        return None
    given = [name for name in YARN_FIELDS if table.values.get(name) is not None]
    for name in ("factor", *given):
        table.number(name)
    return {"rope_type": "yarn", **{name: table.values[name] for name in given}}


class _Reader:
    """Reads fields of the right type and size, and words the error for the others."""

    def __init__(self, values: Mapping[str, Any], where: str | Path) -> None:
        self.values = values
        self.where = where

    def __bool__(self) -> bool:
        return bool(self.values)

    def error(self, name: str, expected: str) -> CheckpointError:
        value = "missing" if self.values.get(name) is None else f"{self.values[name]!r:.80}"
        return CheckpointError(f"{self.where}: {name} is {value}; expected {expected}")

    def choice(self, name: str, allowed: Collection[str]) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or value not in allowed:
            raise self.error(name, f"one of {', '.join(allowed)}")
        return value

    def size(self, name: str, default: int | None = None, *, largest: int = LARGEST_SIZE) -> int:
        value = self.values.get(name)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value <= largest:
            raise self.error(name, f"a whole number from 1 to {largest:,}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.values.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise self.error(name, "a number above 0")
        return float(value)

    def switch(self, name: str) -> bool:
        """False when the field is absent."""
        value = self.values.get(name)
        if not isinstance(value, bool | None):
            raise self.error(name, "true or false")
        return bool(value)

    def table(self, name: str) -> "_Reader":
        """The fields of an object inside; none when it is absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.error(name, "an object")
        return _Reader(value or {}, f"{self.where}: {name}")
