"""The small model, tokenizer, batch and rows of all tests. A test says only what it needs otherwise."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minimind.interfaces import Batch
from minimind.model import ModelConfig, Transformer
from minimind.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["hello world, hello there", "你好，世界。你好吗？" * 3], 310)
OTHER_TOKENIZER = Tokenizer.train(["quite other words"], 300)
SHAPE = ModelConfig(
    # Some rows more than there are ids, as in models whose embedding was padded.
    vocab_size=TOKENIZER.vocab_size + 7,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    moe_intermediate_size=24,
    max_position_embeddings=256,
)
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2}
# The shapes that are read and written, by what they are called elsewhere.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3 moe": EXPERTS,
    "llama, untied": {"qk_norm": False, "tie_word_embeddings": False},
    "qwen2": {"qk_norm": False, "attention_bias": True},
}


def fresh_model(seed: int = 0, **changes: Any) -> Transformer:
    """As training begins with it. changes: fields of SHAPE"""
    torch.manual_seed(seed)
    return Transformer(replace(SHAPE, **changes))


def random_model(seed: int = 0, spread: float = 0.2, **changes: Any) -> Transformer:
    """Every weight random, for zeros and ones hide what is not used; so wide that every token has a say."""
    model = Transformer(replace(SHAPE, **changes)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, spread, generator=generator)
    return model


def random_tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, SHAPE.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def random_batch(lengths: tuple[int, ...] | None = (5, 7, 3, 9)) -> Batch:
    """Two rows of twelve tokens, a third of them without weight; lengths: of the documents in both"""
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(0, SHAPE.vocab_size, (2, 2, 12), generator=generator)
    weights = torch.rand(2, 12, generator=generator) * (torch.rand(2, 12, generator=generator) > 0.3)
    return Batch(tokens=tokens, targets=targets, weights=weights, lengths=lengths, num_tokens=24)


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """One JSON value a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
