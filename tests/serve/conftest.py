"""The tiny model and its server, as fixtures."""

from collections.abc import Iterator

import pytest
from tests.serve import tiny_server

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
