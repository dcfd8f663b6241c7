"""Tiny models with weights large enough to matter, and the same weights as transformers' Qwen3, the oracle's model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.model import ModelConfig, Transformer
from minimind.storage.checkpoint import save_checkpoint
from minimind.text.tokenizer import Tokenizer

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
}


def random_model(seed: int = 0, **changes: Any) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(ModelConfig(**{**SHAPE, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2).add_(1.0 if parameter.ndim == 1 else 0.0)
    return model


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Transformer]:
    return random_model


@pytest.fixture(scope="module")
def save_for_transformers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Transformer], Path]:
    """Write a model to a folder that transformers loads, with a tokenizer that it needs and nobody uses."""
    tokenizer = Tokenizer.train(["hello world", "你好，世界"], 295)

    def save(model: Transformer) -> Path:
        folder = tmp_path_factory.mktemp("oracle") / "model"
        save_checkpoint(folder, model, tokenizer)
        return folder

    return save
