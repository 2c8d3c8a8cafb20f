"""What all tests of pages need."""

import pytest

from pages.parts import loaders


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch):
    """No network is loaded in the background, where it would meet the stand-ins of other tests."""
    monkeypatch.setattr(loaders, "preload", lambda paths: None)
