"""What the tests of training share."""

from pathlib import Path

import pytest
from tests.training.tiny_jobs import make_job

from minimind.training.fit import fit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    fit(make_job(folder))
    return folder
