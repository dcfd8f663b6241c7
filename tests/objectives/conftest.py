"""Tiny models with weights large enough to matter, and the same weights as transformers' Qwen3, the oracle's model."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import TOKENIZER, random_model

from minimind.model import Transformer
from minimind.storage.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Transformer]:
    return random_model


@pytest.fixture(scope="module")
def save_for_transformers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Transformer], Path]:
    """Write a model to a folder that transformers loads, with a tokenizer that it needs and nobody uses."""

    def save(model: Transformer) -> Path:
        folder = tmp_path_factory.mktemp("oracle") / "model"
        save_checkpoint(folder, model, TOKENIZER)
        return folder

    return save
