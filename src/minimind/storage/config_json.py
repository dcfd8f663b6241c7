"""The fields of `ModelConfig` as a Hugging Face folder's config.json has them.

Four published architectures are this model with switches set: Qwen3, Qwen3-MoE, Llama and Qwen2; `families.py` has the
others. `config_check.py` reads such a file, from here or from anywhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minimind.errors import CheckpointError
from minimind.storage.families import FAMILIES, FAMILY_FIELDS

__all__ = ["ARCHITECTURES", "EXPERT_FIELDS", "json_from_shape"]

ARCHITECTURES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    **{kind: family.architecture for kind, family in FAMILIES.items()},
}
EXPERT_FIELDS = ("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob")


def json_from_shape(shape: Mapping[str, Any], where: str | Path) -> dict[str, Any]:
    """config.json for readers of transformers 4 and 5: both spellings of each field that changed its name.

    shape:   the fields of `ModelConfig`
    Errors:  CheckpointError when no published architecture has this shape.
    """
    has_experts, has_norm = shape["num_experts"] > 0, shape["qk_norm"]
    if has_experts and not has_norm:
        raise CheckpointError(f"{where}: num_experts with qk_norm off; expected qk_norm on, as Qwen3-MoE has it")
    if shape["output_bias"] and not shape["attention_bias"]:
        raise CheckpointError(f"{where}: output_bias with attention_bias off; expected both on, as Llama has them")
    plain_kind = "qwen2" if shape["attention_bias"] and not shape["output_bias"] else "llama"
    kind = shape.get("model_type") or (("qwen3_moe" if has_experts else "qwen3") if has_norm else plain_kind)
    left_out = {"qk_norm", "rope_scaling", *(() if has_experts else EXPERT_FIELDS), *FAMILY_FIELDS}
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
        **(FAMILIES[kind].write(shape) if kind in FAMILIES else {}),
    }
