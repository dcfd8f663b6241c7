"""Fixtures for every test: one thread, a fixed hypothesis profile, and real data where there is some."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests run in several processes; more threads in each would only fight for the cores. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with development data and reference files: $MINIMIND_SHARED, or `shared` in or beside the checkout."""
    root = Path(__file__).resolve().parents[1]
    named = os.environ.get("MINIMIND_SHARED")
    for folder in [Path(named)] if named else [root / "shared", root.parent / "shared"]:
        if (folder / "data").is_dir():
            return folder
    pytest.skip("no folder with development data; set MINIMIND_SHARED to one")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]
