"""A model -> a GGUF file for llama.cpp and its kin, and a Modelfile with which ollama takes it.

llama.cpp's own converter knows tokenizers by the hash of what they make of a sample text, and so refuses a vocabulary
that was trained yesterday. Here the split pattern is known, and its name is written. What the format cannot say is
refused by name and never left out: the file would answer, and answer something else.
Format: the GGUF specification of the ggml project, version 3. `gguf_weights.py` reads what this writes.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from minimind.errors import CheckpointError, install
from minimind.interop.exported import Exported, require_plain, require_same_model, write_export
from minimind.interop.gguf_foreign import cut_name
from minimind.interop.gguf_tokenizer import ADDED, CONTROL, NORMAL, PATTERN_OF, UNUSED
from minimind.interop.gguf_weights import (
    BLOCK_NAMES,
    FREQUENCY_FACTORS,
    HIGH_TURNS,
    LOW_TURNS,
    OUTER_NAMES,
    load_gguf,
)
from minimind.interop.ollama import modelfile
from minimind.model import ModelConfig, Transformer, rotary_frequencies
from minimind.text.chat_template import chat_template
from minimind.text.tokenizer import Tokenizer

__all__ = ["GgufKind", "export_gguf", "gguf_architecture", "write_gguf"]

GgufKind = Literal["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"]
# The number of a kind as `general.file_type` counts them.
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32}
# Bytes of a number; the kinds in blocks keep 32 numbers with a scale of two bytes, and _1 with their smallest.
NUMBER_BYTES = {
    **{"F32": 4.0, "F16": 2.0, "BF16": 2.0},
    **{"Q8_0": 34 / 32, "Q5_1": 24 / 32, "Q5_0": 22 / 32, "Q4_1": 20 / 32, "Q4_0": 18 / 32},
}
QUANTIZATION_VERSION = 2
# By how much a number moves, as a part of its block's largest: half a step, and what rounds the scale. Q5_0 and Q4_0
# have no place for the largest of the other sign, and so move that by a whole step.
_SCALES = 2**-8
STEPS = {
    **{"F32": 0.0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 1 / 254 + 2**-11},
    **{"Q5_1": 1 / 31 + _SCALES, "Q5_0": 1 / 16 + _SCALES, "Q4_1": 1 / 15 + _SCALES, "Q4_0": 1 / 8 + _SCALES},
}


def export_gguf(out: Path, model: Transformer, tokenizer: Tokenizer, *, kind: GgufKind = "F16") -> Exported:
    """Write the folder `out` with NAME-KIND.gguf and a Modelfile, read it back and compare.

    F32 comes back to the bit, and writes the same text; the others come back as near as they can.
    Errors:  CheckpointError for what the format cannot say, and for a file that came back different.
    """
    file, differences = f"{out.name}-{kind}.gguf", []

    def fill(place: Path) -> None:
        write_gguf(place / file, model, tokenizer, kind=kind, name=out.name)
        (place / "Modelfile").write_text(modelfile(file, model.config, tokenizer), encoding="utf-8")
        found = load_gguf(place / file)
        pair = found.model, found.tokenizer
        differences.append(require_same_model(out / file, (model, tokenizer), pair, step=STEPS[kind]))

    need = sum(parameter.numel() for parameter in model.parameters()) * NUMBER_BYTES[kind]
    files = write_export(out, fill, need_bytes=int(need))
    usage = (
        f"llama.cpp: llama-cli -m {out / file} --jinja",
        f"ollama: ollama create {out.name.lower()} -f {out / 'Modelfile'} && ollama run {out.name.lower()}",
    )
    return Exported(files, differences[0], usage)


def gguf_architecture(config: ModelConfig) -> str:
    """The format's name for a shape. Errors: CheckpointError for a shape that has none"""
    require_plain(config, "a GGUF file")
    scaling = config.rope_scaling or {}
    is_llama3, is_qwen2 = scaling.get("rope_type") == "llama3", config.attention_bias and not config.output_bias
    turns = scaling.get("low_freq_factor"), scaling.get("high_freq_factor")
    refused = {
        # llama.cpp takes factors of the frequencies in a llama alone, and the file does not say what they follow from.
        "rope_scaling 'llama3' in another shape than Llama's": is_llama3 and (config.qk_norm or is_qwen2),
        f"rope_scaling 'llama3' from {turns[0]} to {turns[1]} turns": is_llama3 and turns != (LOW_TURNS, HIGH_TURNS),
        "output_bias together with qk_norm": config.output_bias and config.qk_norm,
        "attention_bias together with qk_norm": config.attention_bias and config.qk_norm,
        "num_experts without qk_norm": bool(config.num_experts) and not config.qk_norm,
        # llama.cpp lets the chosen experts' weights sum to 1 in every file of this architecture.
        "norm_topk_prob off": 0 < config.num_experts_per_tok < config.num_experts and not config.norm_topk_prob,
    }
    for what, is_there in refused.items():
        if is_there:
            raise CheckpointError(f"GGUF cannot hold a model with {what}; export it with --format hf instead")
    if config.qk_norm:
        return "qwen3moe" if config.num_experts else "qwen3"
    return "qwen2" if is_qwen2 else "llama"


def write_gguf(path: Path, model: Transformer, tokenizer: Tokenizer, *, kind: GgufKind, name: str) -> None:
    """Write one file, as `load_gguf` and llama.cpp read it. Errors: CheckpointError, OSError"""
    try:
        from gguf import GGUFWriter
    except ImportError:
        raise CheckpointError(f"writing a GGUF file needs gguf: {install('gguf')}") from None
    writer = GGUFWriter(path, gguf_architecture(model.config))
    _add_values(writer, model.config, kind, name)
    _add_tokenizer(writer, tokenizer, model.config.vocab_size, f"{path.name}: tokenizer")
    for stored, tensor in _tensors(model, writer.arch):
        array, number_kind = _encoded(stored, tensor, kind)
        writer.add_tensor(stored, array, raw_dtype=number_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_values(writer: Any, config: ModelConfig, kind: GgufKind, name: str) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[kind])
    if kind.startswith("Q"):
        writer.add_quantization_version(QUANTIZATION_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_scaling(writer, config)
    if config.num_experts:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _add_scaling(writer: Any, config: ModelConfig) -> None:
    """Scaled positions; those of Llama 3 are a tensor."""
    from gguf.constants import RopeScalingType

    scaling = config.rope_scaling or {}
    kind = scaling.get("rope_type", "default")
    if kind not in ("linear", "yarn"):
        return
    writer.add_rope_scaling_type(RopeScalingType(kind))
    writer.add_rope_scaling_factor(scaling["factor"])
    if kind == "linear":
        return
    context = scaling.get("original_max_position_embeddings") or config.max_position_embeddings
    writer.add_rope_scaling_orig_ctx_len(int(context))
    if beta := scaling.get("beta_fast"):
        writer.add_rope_scaling_yarn_beta_fast(beta)
    if beta := scaling.get("beta_slow"):
        writer.add_rope_scaling_yarn_beta_slow(beta)
    # llama.cpp multiplies with what follows from the factor.
    attention = rotary_frequencies(config)[1] / (1 + 0.1 * math.log(scaling["factor"]))
    if not math.isclose(attention, 1, rel_tol=1e-6):
        writer.add_rope_scaling_attn_factors(attention)


def _add_tokenizer(writer: Any, tokenizer: Tokenizer, num_rows: int, where: str) -> None:
    """num_rows: of the embedding, which may have more than the vocabulary has tokens."""
    if tokenizer.add_prefix_space:
        raise CheckpointError(
            f"{where}: add_prefix_space is on, which llama.cpp never applies to a byte-level BPE: it would give other "
            "ids; export with --format hf instead"
        )
    kinds = [_token_type(tokenizer, index) for index in range(tokenizer.vocab_size)]
    name = _cut_name(tokenizer, kinds)
    if name is None:
        raise CheckpointError(
            f"{where}: the vocabulary does more to a text than llama.cpp's name of a split pattern says; "
            "export with --format hf instead"
        )
    spare = range(tokenizer.vocab_size, num_rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list([*tokenizer.tokens, *(f"[PAD{index}]" for index in spare)])
    writer.add_token_types([*kinds, *(UNUSED for _ in spare)])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    if len(turn_ends := tokenizer.turn_end_ids - {tokenizer.eos_id}) == 1:
        writer.add_eot_token_id(*turn_ends)
    writer.add_add_bos_token(tokenizer.is_foreign and bool(tokenizer.text_start))
    writer.add_add_eos_token(False)
    if tokenizer.template is None:
        writer.add_chat_template(chat_template(tokenizer.control_names))
    else:
        for name, text in tokenizer.template.texts.items():
            key = "tokenizer.chat_template" if name == "default" else f"tokenizer.chat_template.{name}"
            writer.add_string(key, text)


def _cut_name(tokenizer: Tokenizer, kinds: list[int]) -> str | None:
    if tokenizer.foreign is None:
        return {ours: theirs for theirs, ours in PATTERN_OF.items()}[tokenizer.pattern]
    roles = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "padding_token_id": tokenizer.pad_id}
    return cut_name(tokenizer.foreign, kinds, roles)


def _token_type(tokenizer: Tokenizer, index: int) -> int:
    if index not in tokenizer.control_ids:
        return NORMAL
    # A token that is left out when special ones are skipped is special.
    return ADDED if tokenizer.decode_bytes([index], skip_special=True) else CONTROL


def _tensors(model: Transformer, architecture: str) -> Iterator[tuple[str, Tensor]]:
    """By their names in the file, in the model's order; the experts of a block are one tensor of each kind."""
    config, state = model.config, model.state_dict()
    if (config.rope_scaling or {}).get("rope_type") == "llama3":
        plain, _ = rotary_frequencies(replace(config, rope_scaling=None))
        yield FREQUENCY_FACTORS, plain / rotary_frequencies(config)[0]
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    for name, tensor in state.items():
        if name in OUTER_NAMES:
            yield OUTER_NAMES[name], tensor
            continue
        _, index, rest = name.split(".", 2)
        part, _, suffix = rest.rpartition(".")
        if architecture == "llama" and part in heads:
            tensor = _interleaved(tensor, heads[part])
        if ".experts." in part:
            _, _, expert, matrix = part.split(".")
            if expert != "0":
                continue
            experts = (name.replace(".experts.0.", f".experts.{number}.") for number in range(config.num_experts))
            tensor = torch.stack([state[each] for each in experts])
            part = f"mlp.experts.{matrix}"
        yield f"blk.{index}.{BLOCK_NAMES[part]}.{suffix}", tensor


def _interleaved(tensor: Tensor, heads: int) -> Tensor:
    """llama.cpp turns neighbouring rows of a llama's queries and keys where this model turns rows half a head apart."""
    halves = tensor.view(heads, 2, tensor.shape[0] // heads // 2, -1)
    return halves.transpose(1, 2).reshape(tensor.shape)


def _encoded(name: str, tensor: Tensor, kind: GgufKind) -> tuple[np.ndarray, Any]:
    """The array to write and, where numpy has no such type, the format's. Errors: CheckpointError"""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quantize

    numbers = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    # Norms, biases and routers are small and decide much; llama.cpp keeps them exact too.
    if kind == "F32" or numbers.ndim == 1 or "ffn_gate_inp" in name:
        return numbers, None
    # A row that is no whole number of blocks is kept in F16, as llama.cpp does.
    if kind == "F16" or (kind != "BF16" and numbers.shape[-1] % 32):
        with np.errstate(over="ignore"):
            half = numbers.astype(np.float16)
        if not np.isfinite(half).all():
            raise CheckpointError(f"{name} has weights beyond 65504, which F16 cannot hold; export it as F32")
        return half, None
    return quantize(numbers, GGMLQuantizationType[kind]), GGMLQuantizationType[kind]
