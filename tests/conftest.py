"""Fixtures that every test file may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def corpora_dir() -> Path:
    """The folder of real corpora; tests that need it are skipped where there is none."""
    root = os.environ.get("ZSEMO_CORPORA")
    if not root or not Path(root).is_dir():
        pytest.skip("ZSEMO_CORPORA is not set to a folder of real corpora")
    return Path(root).resolve()


@pytest.fixture(scope="session")
def project() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[1]
