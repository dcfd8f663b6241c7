"""The tiny model and its server, as fixtures."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serve import strangers, tiny_server

from minimind.checkpoint import save_checkpoint
from minimind.model import Transformer
from minimind.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny_server.TOKENIZER


@pytest.fixture
def model() -> Transformer:
    return tiny_server.random_model()


@pytest.fixture(scope="module")
def running() -> Iterator[tiny_server.Running]:
    with tiny_server.listen(tiny_server.make_service()) as server:
        yield server


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, as it lies on a disk."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    model = tiny_server.random_model(vocab_size=tiny_server.TOKENIZER.vocab_size, max_position_embeddings=1024)
    save_checkpoint(folder, model, tiny_server.TOKENIZER)
    return folder


@pytest.fixture(scope="session")
def process(folder: Path) -> Iterator[strangers.Process]:
    """It is served by a process of its own."""
    with strangers.serve(folder, folder.parent / "log", "--sampling.max_tokens", "24") as process:
        yield process
