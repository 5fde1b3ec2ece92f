"""One small results folder for the tests of retrieval and of submissions."""

import pytest

from tests.retrieval import worlds


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Configuration and results, under the working directory."""
    monkeypatch.chdir(tmp_path)
    options = worlds.settings()
    return options, worlds.make(options)
