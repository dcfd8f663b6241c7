"""A GGUF file -> a model and its tokenizer.

Four architectures are this model with switches set: llama, qwen2 (biases), qwen3 (normalised queries and keys) and
qwen3moe (a mixture of experts). Whatever a file says of them is understood or refused, as `storage/config_json.py`
does: to ignore a sliding window or scaled positions would compute something else without a word. Quantised weights come
back as float32, as exact as they are.
"""

import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minimind.errors import CheckpointError
from minimind.interop.gguf_file import GgufFile
from minimind.interop.gguf_tokenizer import read_tokenizer
from minimind.model import ModelConfig, Transformer, rotary_frequencies
from minimind.storage.verify import first_of
from minimind.text.tokenizer import Tokenizer

__all__ = ["ARCHITECTURES", "ImportedModel", "load_gguf"]

ARCHITECTURES = ("llama", "qwen2", "qwen3", "qwen3moe")

OUTER_NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    # The experts of a block are one tensor, [E, rows, columns].
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}
# Values that are read here, and those that change nothing.
SHAPE_VALUES = (
    "block_count context_length embedding_length feed_forward_length vocab_size attention.head_count "
    "attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon "
    "rope.freq_base rope.dimension_count rope.scaling.type rope.scaling.factor rope.scaling.original_context_length "
    "rope.scaling.attn_factor rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow "
    "expert_count"
)
SILENT_VALUES = "tensor_data_layout expert_used_count rope.scaling.finetuned"
# Read in a mixture, and unknown in a dense model.
EXPERT_VALUE = "expert_feed_forward_length"
# What a llama's frequencies are divided by, one number a pair: Llama 3's scaling, whose settings are not in the file.
FREQUENCY_FACTORS = "rope_freqs.weight"
# In every Llama 3: pairs that turn less than once in the old context are slowed, those from four times on are not.
LOW_TURNS, HIGH_TURNS = 1.0, 4.0
# Into how many files a model was cut.
SPLIT = "split.count"

# No real model comes near these; a hostile file must be refused before it costs memory or time.
LARGEST_SIZE = 2**24
MOST_BLOCKS = 512
MOST_HEADS = 4096
WIDEST_HEAD = 4096
MOST_EXPERTS = 512
MOST_SLOWED = 10_000


@dataclass(frozen=True)
class ImportedModel:
    """What a file held.

    numbers:  how many weights were stored in each kind, such as {"Q4_1": 106_168_320, "F32": 35_136}
    """

    model: Transformer
    tokenizer: Tokenizer
    architecture: str
    numbers: Mapping[str, int]


def load_gguf(path: Path | str) -> ImportedModel:
    """The model, in evaluation mode and float32, and its tokenizer.

    Errors:  CheckpointError or TokenizerError naming the file and the field or tensor
    """
    file = GgufFile.open(path)
    config = _config(file)
    names = _require_tensors(file, config)
    tokenizer = read_tokenizer(file)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{file.path}: tokenizer.ggml.tokens has {tokenizer.vocab_size:,} items and token_embd.weight "
            f"{config.vocab_size:,} rows; expected at most as many tokens as rows"
        )
    _require_memory(file)
    # The meta device costs no memory and no initialisation that the weights would overwrite.
    with torch.device("meta"):
        model = Transformer(config)
    architecture = file.values["general.architecture"]
    state: dict[str, Tensor] = {}
    numbers: Counter[str] = Counter()
    for stored, ours in names.items():
        tensor = _read(file, stored, config, architecture)
        numbers[file.tensors[stored].kind.name] += tensor.numel()
        # Each expert has memory of its own, as any model's.
        parts = [part.clone() for part in tensor] if ".experts." in ours[0] else [tensor]
        state |= zip(ours, parts, strict=True)
    model.load_state_dict(state, assign=True)
    return ImportedModel(model.eval(), tokenizer, architecture, dict(numbers.most_common()))


def _config(file: GgufFile) -> ModelConfig:
    read = _Values(file)
    kind = read.architecture
    read.refuse_unknown()
    heads, width = read.size("attention.head_count", largest=MOST_HEADS), read.size("embedding_length")
    head_dim = read.size("attention.key_length", max(width // heads, 1), largest=WIDEST_HEAD)
    # Without a key_length the heads share the width; the turned part and the values are as wide as the keys.
    if "attention.key_length" not in read and width % heads:
        raise read.error("attention.head_count", f"a divisor of embedding_length, {width}")
    read.require("attention.value_length", head_dim, default=head_dim)
    read.require("rope.dimension_count", head_dim, default=head_dim)
    experts = _experts(read)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{file.path}: token_embd.weight is missing or no matrix; expected the embedding")
    read.require("vocab_size", embedding.shape[0], default=embedding.shape[0])
    try:
        config = ModelConfig(
            vocab_size=embedding.shape[0],
            hidden_size=width,
            num_hidden_layers=read.size("block_count", largest=MOST_BLOCKS),
            num_attention_heads=heads,
            num_key_value_heads=read.size("attention.head_count_kv", heads, largest=MOST_HEADS),
            head_dim=head_dim,
            intermediate_size=read.size("feed_forward_length"),
            max_position_embeddings=read.size("context_length"),
            rope_theta=read.number("rope.freq_base", 1e4),
            rms_norm_eps=read.number("attention.layer_norm_rms_epsilon"),
            tie_word_embeddings="output.weight" not in file.tensors,
            qk_norm=kind in ("qwen3", "qwen3moe"),
            attention_bias=kind == "qwen2" or (kind == "llama" and "blk.0.attn_q.bias" in file.tensors),
            output_bias=kind == "llama" and "blk.0.attn_output.bias" in file.tensors,
            rope_scaling=_scaling(read),
            **experts,
        )
        return _with_frequency_factors(file, config) if FREQUENCY_FACTORS in file.tensors else config
    except ValueError as error:
        raise CheckpointError(f"{file.path}: {error}") from None


def _scaling(read: "_Values") -> dict[str, Any] | None:
    """Scaled positions by transformers' names. llama.cpp multiplies YaRN's attention factor with one of the file."""
    kind = read.choice("rope.scaling.type", ("none", "linear", "yarn"), default="none")
    attention = read.number("rope.scaling.attn_factor", 1.0) * read.number("rope.scaling.yarn_attn_factor", 1.0)
    if kind != "yarn" and attention != 1:
        raise read.error("rope.scaling.attn_factor", "1, the only value without YaRN")
    if kind == "none":
        return None
    factor = read.number("rope.scaling.factor")
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if kind == "linear":
        return scaling
    scaling["original_max_position_embeddings"] = read.size("rope.scaling.original_context_length")
    for name in ("beta_fast", "beta_slow"):
        if f"rope.scaling.yarn_{name}" in read:
            scaling[name] = read.number(f"rope.scaling.yarn_{name}")
    attention *= 1 + 0.1 * math.log(factor)
    if not math.isclose(attention, 1 + 0.1 * math.log(max(factor, 1)), rel_tol=1e-6):
        scaling["attention_factor"] = float(f"{attention:.6g}")
    return scaling


def _with_frequency_factors(file: GgufFile, config: ModelConfig) -> ModelConfig:
    """Llama 3's settings from what it divides by. Errors: CheckpointError for other factors than such settings give"""
    plain, _ = rotary_frequencies(config)
    shape = file.tensors[FREQUENCY_FACTORS].shape
    if file.values["general.architecture"] != "llama" or config.rope_scaling or shape != plain.shape:
        raise CheckpointError(f"{file.path}: {FREQUENCY_FACTORS} is {[*shape]}; expected none but in a Llama 3")
    factors = file.read(FREQUENCY_FACTORS)
    largest = float(factors.max())
    if not 1 < largest <= MOST_SLOWED or factors.min() < 1:
        raise CheckpointError(f"{file.path}: {FREQUENCY_FACTORS} has {largest:g}; expected 1 to {MOST_SLOWED:,}")
    # The share that is kept of a pair's speed tells how often it turns in the old context, and so how long that was.
    kept = (largest / factors - 1) / (largest - 1)
    turns = LOW_TURNS + (HIGH_TURNS - LOW_TURNS) * kept
    between = (kept > 1e-3) & (kept < 1 - 1e-3)
    if not between.any():
        # The ramp lies between two pairs; where it begins decides nothing.
        between = kept >= 1 - 1e-3
    contexts = (2 * math.pi * turns / plain)[between]
    scaling = {
        "rope_type": "llama3",
        "factor": float(f"{largest:.6g}"),
        "low_freq_factor": LOW_TURNS,
        "high_freq_factor": HIGH_TURNS,
        "original_max_position_embeddings": round(float(contexts.max())) if between.any() else 0,
    }
    found = dataclasses.replace(config, rope_scaling=scaling)
    if not torch.allclose(plain / rotary_frequencies(found)[0], factors, rtol=1e-4):
        raise CheckpointError(f"{file.path}: {FREQUENCY_FACTORS} are not a Llama 3's; expected factors of its formula")
    return found


def _experts(read: "_Values") -> dict[str, Any]:
    """The fields of a mixture, none for a dense model; llama.cpp lets the chosen experts' weights sum to 1."""
    if read.architecture != "qwen3moe":
        read.require("expert_count", 0, default=0)
        return {}
    return {
        "num_experts": read.size("expert_count", largest=MOST_EXPERTS),
        "num_experts_per_tok": read.size("expert_used_count", largest=MOST_EXPERTS),
        "moe_intermediate_size": read.size(EXPERT_VALUE),
        "norm_topk_prob": True,
    }


def _require_tensors(file: GgufFile, config: ModelConfig) -> dict[str, list[str]]:
    """The file's name -> ours, when names and shapes are those of the configuration; several for stacked experts."""
    # One block stands for all, so that a file cannot have thousands built before its shapes were compared.
    with torch.device("meta"):
        one = Transformer(dataclasses.replace(config, num_hidden_layers=1))
    names: dict[str, list[str]] = {}
    expected: dict[str, tuple[int, ...]] = {}
    for name, tensor in one.state_dict().items():
        for index in range(config.num_hidden_layers) if name.startswith("layers.") else (0,):
            ours, stored = name.replace("layers.0.", f"layers.{index}."), _stored_name(name, index)
            names.setdefault(stored, []).append(ours)
            stacked = (config.num_experts,) if ".experts." in name else ()
            expected[stored] = (*stacked, *tensor.shape)
    found = {name: tensor.shape for name, tensor in file.tensors.items() if name != FREQUENCY_FACTORS}
    if missing := sorted(expected.keys() - found.keys()):
        raise CheckpointError(f"{file.path}: tensors are missing: {first_of(missing)}")
    if unexpected := sorted(found.keys() - expected.keys()):
        raise CheckpointError(f"{file.path}: tensors this model has no place for: {first_of(unexpected)}")
    wrong = [f"{name} is {[*found[name]]} and not {[*rows]}" for name, rows in expected.items() if found[name] != rows]
    if wrong:
        raise CheckpointError(f"{file.path}: tensors do not fit the values: {first_of(wrong)}")
    return names


def _require_memory(file: GgufFile) -> None:
    """A quantised file is small on the disk and up to eight times as large in float32."""
    need = 4 * sum(math.prod(tensor.shape) for tensor in file.tensors.values())
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need > have:
        raise CheckpointError(
            f"{file.path}: its weights take {need / 1e9:,.1f} GB in float32 and this machine has {have / 1e9:,.1f} GB "
            "of memory; take a smaller model or a larger machine"
        )


def _stored_name(name: str, index: int) -> str:
    """layers.0.self_attn.q_proj.weight -> blk.3.attn_q.weight"""
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    part, _, suffix = re.sub(r"\.experts\.\d+", ".experts", name.removeprefix("layers.0.")).rpartition(".")
    return f"blk.{index}.{BLOCK_NAMES[part]}.{suffix}"


def _read(file: GgufFile, stored: str, config: ModelConfig, architecture: str) -> Tensor:
    """llama.cpp turns neighbouring rows of a llama's queries and keys where this model turns rows half a head apart."""
    tensor = file.read(stored)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(stored.split(".")[-2])
    if architecture != "llama" or heads is None:
        return tensor
    pairs = tensor.view(heads, config.head_dim // 2, 2, -1)
    return pairs.transpose(1, 2).reshape(tensor.shape)


class _Values:
    """Reads values of the architecture, of the right type and size, and words the error for the others."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.architecture = file.values.get("general.architecture")
        if self.architecture not in ARCHITECTURES:
            found = f"{self.architecture!r:.80}" if self.architecture else "missing"
            raise CheckpointError(
                f"{file.path}: general.architecture is {found}; expected one of {', '.join(ARCHITECTURES)}"
            )

    def __contains__(self, name: str) -> bool:
        return self._get(name) is not None

    def _get(self, name: str) -> Any:
        return self.file.values.get(f"{self.architecture}.{name}")

    def error(self, name: str, expected: str) -> CheckpointError:
        value = "missing" if name not in self else f"{self._get(name)!r:.80}"
        return CheckpointError(f"{self.file.path}: {self.architecture}.{name} is {value}; expected {expected}")

    def refuse_unknown(self) -> None:
        known = {*SHAPE_VALUES.split(), *SILENT_VALUES.split()}
        known |= {EXPERT_VALUE} if self.architecture == "qwen3moe" else set()
        for name in self.file.values:
            architecture, _, rest = name.partition(".")
            if architecture == self.architecture and rest not in known:
                raise self.error(rest, "no such value, because this model has no part that it could describe")
        parts = self.file.values.get(SPLIT, 1)
        if parts not in (0, 1):
            raise CheckpointError(f"{self.file.path}: {SPLIT} is {parts!r:.40}; expected a whole model in one file")

    def size(self, name: str, default: int | None = None, *, largest: int = LARGEST_SIZE) -> int:
        value = default if name not in self else self._get(name)
        if type(value) is not int or not 1 <= value <= largest:
            raise self.error(name, f"a whole number from 1 to {largest:,}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = default if name not in self else self._get(name)
        if type(value) is not float or not 0 < value < 1e30:
            raise self.error(name, "a number above 0")
        # The file holds float32; its shortest spelling is what was meant, 1e-05 and not 9.999999747378752e-06.
        return float(str(np.float32(value)))

    def choice(self, name: str, allowed: Collection[str], *, default: str) -> str:
        value = default if name not in self else self._get(name)
        if value not in allowed:
            raise self.error(name, f"one of {', '.join(allowed)}")
        return value

    def require(self, name: str, allowed: int | str, *, default: int | str) -> None:
        value = default if name not in self else self._get(name)
        if type(value) is not type(allowed) or value != allowed:
            raise self.error(name, f"{allowed!r}, the only value that this model has")
