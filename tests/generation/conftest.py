"""The tiny model and its tokenizer, as fixtures."""

import pytest
from tests.serve import tiny_server

from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny_server.TOKENIZER


@pytest.fixture
def model() -> Transformer:
    return tiny_server.random_model()
