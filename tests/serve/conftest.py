"""The tiny model and its server, and a browser to look at its page, as fixtures."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.serve import browser, strangers, tiny_server
from tests.tiny import TOKENIZER, random_model

from minimind.model import Transformer
from minimind.storage.checkpoint import save_checkpoint
from minimind.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return TOKENIZER


@pytest.fixture
def model() -> Transformer:
    return random_model()


@pytest.fixture(scope="module")
def running() -> Iterator[tiny_server.Running]:
    with tiny_server.listen(tiny_server.make_service()) as server:
        yield server


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, as it lies on a disk."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    model = random_model(vocab_size=TOKENIZER.vocab_size, max_position_embeddings=1024)
    save_checkpoint(folder, model, TOKENIZER)
    return folder


@pytest.fixture(scope="session")
def process(folder: Path) -> Iterator[strangers.Process]:
    """It is served by a process of its own."""
    with strangers.serve(folder, folder.parent / "log", "--sampling.max_tokens", "24") as process:
        yield process


# A module's own, for Playwright keeps a loop running in the thread of the tests, and others want to run theirs.
@pytest.fixture(scope="module")
def chrome() -> Iterator["Browser"]:
    with browser.launch() as chrome:
        yield chrome


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Site]:
    """A server with a scripted model, and a folder of two runs."""
    runs = tmp_path_factory.mktemp("runs")
    with browser.serve(runs) as site:
        yield site


@pytest.fixture
def visit(chrome: "Browser", site: browser.Site) -> Iterator[browser.Visit]:
    """Someone who opens the page for the first time; nothing may have gone wrong when they leave."""
    with browser.visit(chrome, site.url) as visit:
        yield visit
