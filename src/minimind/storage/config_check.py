"""config.json and adapter_config.json as others write them: every field is understood, or refused by its name.

A file may say more than a shape: sliding windows, quantisation, another kind of adapter. To ignore one of those would
compute something else without a word, so a field that is neither a shape, nor switched off, nor known to change nothing
is an error. What changes nothing is read past: notes of the program that wrote the file, settings of generation,
training, truncation and padding. Next: `verify.py`, which compares the weights.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from minimind.lora import MAX_ALPHA, MAX_RANK, TARGETS, LoraConfig
from minimind.storage.config_json import ARCHITECTURES, EXPERT_FIELDS
from minimind.storage.config_reader import LARGEST_COUNT, Reader
from minimind.storage.families import FAMILIES

__all__ = ["lora_from_json", "shape_from_json", "text_of"]

# Features this model lacks, and the values that leave them off.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "attention_dropout": (0,),
    "decoder_sparse_step": (1,),
    "hidden_act": ("silu",),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "mlp_bias": (False,),
    "mlp_only_layers": ([],),
    "partial_rotary_factor": (1,),
    "pruned_heads": ({},),
    "rope_interleaved": (False,),
    "tie_encoder_decoder": (False,),
    "use_mrope": (False,),
    "use_sliding_window": (False,),
}
# Fields that do not change what the model computes: names, ids, training; how text is cut; generation.
# `sliding_window` counts only with `use_sliding_window`.
SILENT = (
    "architectures bos_token_id chunk_size_feed_forward dtype eos_token_id finetuning_task gradient_checkpointing "
    "id2label initializer_range is_llama_config keys_to_ignore_at_inference label2id max_window_layers model_type "
    "output_attentions output_hidden_states output_router_logits pad_token_id pretraining_tp problem_type return_dict "
    "router_aux_loss_coef sep_token_id sliding_window task_specific_params tokenizer_class torch_dtype torchscript "
    "transformers.js_config use_bfloat16 use_cache "
    "model_max_length padding padding_side prefix truncation truncation_side "
    "bad_words_ids begin_suppress_tokens decoder_start_token_id diversity_penalty do_sample early_stopping "
    "encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id "
    "length_penalty max_length max_new_tokens min_length no_repeat_ngram_size num_beam_groups num_beams "
    "num_return_sequences output_scores remove_invalid_values repetition_penalty return_dict_in_generate "
    "suppress_tokens temperature top_k top_p typical_p"
)
# Notes that transformers and trainers leave for themselves.
SILENT_STARTS, SILENT_END = ("_", "unsloth_"), "_version"
SHAPE_FIELDS = (
    "attention_bias head_dim hidden_size intermediate_size layer_types max_position_embeddings num_attention_heads "
    "num_hidden_layers num_key_value_heads output_bias rms_norm_eps rope_parameters rope_scaling rope_theta "
    "tie_word_embeddings vocab_size"
)
# What is needed for scaled positions, and what may be added; what transformers never reads is read past.
SCALING_FIELDS = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), ()),
    "yarn": (
        ("factor",),
        ("original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim"),
    ),
}
NEUTRAL_SCALING = {"partial_rotary_factor": 1, "truncate": True}
SILENT_SCALING = {"rope_type", "type", "rope_theta", "attn_factor", "finetuned"}

# Fields of an adapter that do not change what is computed: names, versions, how A and B were drawn, what is off.
SILENT_LORA = (
    "auto_mapping base_model_name_or_path revision peft_version inference_mode megatron_core qalora_group_size "
    "runtime_config ensure_weight_tying"
)
UNDERSTOOD_LORA = "peft_type task_type r lora_alpha lora_dropout target_modules bias init_lora_weights"
# Ways to draw A and B that leave the base's weights alone; the others (pissa, olora, loftq, ...) change them.
PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")


def shape_from_json(values: Mapping[str, Any], where: str | Path) -> dict[str, Any]:
    """The fields of `ModelConfig` that a config.json describes; CheckpointError names the field it refuses."""
    read = Reader(values, where)
    kind = read.choice("model_type", ARCHITECTURES)
    family = FAMILIES.get(kind)
    if family is not None:
        read = Reader({**family.defaults, **family.flatten(values)}, where)
    _refuse_other_parts(read, kind)
    heads, width = read.size("num_attention_heads"), read.size("hidden_size")
    has_bias = kind == "qwen2" or read.switch("attention_bias")
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
        "attention_bias": has_bias,
        # The field is ours; to transformers a bias is one behind o_proj, too, but for Qwen2's.
        "output_bias": has_bias and kind != "qwen2" and read.switch("output_bias", default=True),
        "qk_norm": kind in ("qwen3", "qwen3_moe"),
        **_rotary(read, 1e4 if family is None else family.rope_theta),
    }
    if kind == "qwen3_moe":
        alias = "num_experts" if "num_experts" in values else "num_local_experts"
        shape |= {
            "num_experts": read.size(alias, largest=LARGEST_COUNT),
            "num_experts_per_tok": read.size("num_experts_per_tok", 8),
            "moe_intermediate_size": read.size("moe_intermediate_size"),
            "norm_topk_prob": read.switch("norm_topk_prob"),
        }
    return shape if family is None else shape | family.read(read)


def lora_from_json(values: Mapping[str, Any], where: Path, layers: Collection[str]) -> LoraConfig:
    """What an adapter_config.json describes; CheckpointError names the field it refuses.

    layers:  those that the weights are named after, by the last part of their names; a pattern is never run
    """
    read = Reader(values, where)
    known = {*SILENT_LORA.split(), *UNDERSTOOD_LORA.split()}
    for name, value in values.items():
        if name not in known and value not in (None, False, [], {}):
            raise read.error(name, "it off: only plain LoRA is supported")
    for name, allowed in {
        "peft_type": ("LORA",),
        "task_type": (None, "CAUSAL_LM"),
        "bias": (None, "none"),
        "init_lora_weights": PLAIN_STARTS,
    }.items():
        if not any(values.get(name) is item or values.get(name) == item for item in allowed):
            raise read.error(name, f"one of {', '.join(map(repr, allowed))}")
    dropout = values.get("lora_dropout", 0)
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise read.error("lora_dropout", "a number at least 0, below 1")
    named = values.get("target_modules")
    if isinstance(named, str):
        named = [*layers]
    # That all such layers are there is the weights' to show.
    last = [str(name).rpartition(".")[2] for name in named] if isinstance(named, list) else []
    if not last or not set(last) <= set(TARGETS):
        raise read.error("target_modules", f"a list of some of {', '.join(TARGETS)}")
    rank, alpha = read.size("r", largest=MAX_RANK), read.number("lora_alpha", largest=MAX_ALPHA)
    return LoraConfig(rank, alpha, float(dropout), tuple(name for name in TARGETS if name in last))


def text_of(values: Mapping[str, Any], name: str, where: Path) -> str | None:
    """A field that is text or not there. Errors: CheckpointError"""
    if not isinstance(values.get(name), str | None):
        raise Reader(values, where).error(name, "text")
    return values.get(name)


def _refuse_other_parts(read: Reader, kind: str) -> None:
    """Refuse a file that describes a part this model does not have."""
    if read.values.get("architectures") not in (None, [], [ARCHITECTURES[kind]]):
        raise read.error("architectures", f"[{ARCHITECTURES[kind]!r}]")
    layer_types = read.values.get("layer_types") or []
    is_read = kind in FAMILIES and "layer_types" in FAMILIES[kind].fields
    is_plain = isinstance(layer_types, list) and all(layer == "full_attention" for layer in layer_types)
    if not is_plain and not is_read:
        raise read.error("layer_types", "'full_attention' for each layer")
    for name, allowed in NEUTRAL.items():
        if read.values.get(name) is not None and read.values[name] not in allowed:
            raise read.error(name, repr(allowed[0]))
    known = {*SHAPE_FIELDS.split(), *NEUTRAL, *SILENT.split(), *(EXPERT_FIELDS if kind == "qwen3_moe" else ())}
    known |= {*FAMILIES[kind].fields} if kind in FAMILIES else set()
    for name in sorted(name for name, value in read.values.items() if value is not None and name not in known):
        if not name.startswith(SILENT_STARTS) and not name.endswith(SILENT_END):
            raise read.error(name, "no such field, because this model has no part that it could describe")


def _rotary(read: Reader, default: float) -> dict[str, Any]:
    """rope_theta and rope_scaling, which version 4 writes side by side and version 5 inside `rope_parameters`."""
    parameters, scaling = read.table("rope_parameters"), read.table("rope_scaling")
    tables = [table for table in (parameters, scaling) if table]
    thetas = {table.number("rope_theta", default) for table in (parameters, read) if "rope_theta" in table.values}
    if len(thetas) > 1:
        raise read.error("rope_theta", f"{parameters.values['rope_theta']}, as in rope_parameters")
    found = [_scaling(table) for table in tables]
    if len(found) == 2 and found[0] != found[1]:
        raise read.error("rope_scaling", f"{found[0]}, as in rope_parameters")
    return {"rope_theta": thetas.pop() if thetas else default, "rope_scaling": found[0] if found else None}


def _scaling(table: Reader) -> dict[str, Any] | None:
    """None for plain positions, or the settings of a scaling, as transformers understands them."""
    alias = "rope_type" if "rope_type" in table.values else "type"
    kind = table.choice(alias, SCALING_FIELDS) if alias in table.values else "default"
    needed, allowed = SCALING_FIELDS[kind]
    for name, value in table.values.items():
        if value is not None and name not in (*SILENT_SCALING, *NEUTRAL_SCALING, *needed, *allowed):
            raise table.error(name, f"no such field for rope_type {kind!r}")
        if name in NEUTRAL_SCALING and value not in (None, NEUTRAL_SCALING[name]):
            raise table.error(name, repr(NEUTRAL_SCALING[name]))
    if kind == "default":
        return None
    given = (*needed, *(name for name in allowed if table.values.get(name) is not None))
    for name in given:
        table.number(name)
    scaling: dict[str, Any] = {"rope_type": kind, **{name: table.values[name] for name in given}}
    if kind == "llama3" and not scaling["low_freq_factor"] < scaling["high_freq_factor"]:
        raise table.error("high_freq_factor", "more than low_freq_factor")
    # DeepSeek's two factors, of which only the ratio counts, and neither without the other.
    parts = [scaling.pop(name) for name in ("mscale", "mscale_all_dim") if name in scaling]
    if len(parts) == 2:
        over, under = (0.1 * part * math.log(max(scaling["factor"], 1)) + 1 for part in parts)
        scaling.setdefault("attention_factor", over / under)
    return scaling
