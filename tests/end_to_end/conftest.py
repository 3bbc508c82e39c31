"""One folder of prepared data for all whole runs."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def prepared_data(monkeypatch):
    """One folder for all tests and all starts: preparing the docstrings takes half a minute."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(Path(tempfile.gettempdir()) / "kd_jax-tests-data"))
