"""Twelve drawn landmarks, three overlapping views of each, in a folder a landmark."""

import pytest

from retrieval.collections import open_collection
from retrieval.training import photographs


@pytest.fixture(scope="session")
def landmarks(tmp_path_factory, drawn):
    root = tmp_path_factory.mktemp("landmarks")
    for seed in range(12):
        scene = drawn(seed + 70, (360, 300))
        (root / f"place_{seed:02}").mkdir()
        for n in range(3):
            view = scene.crop((15 * n, 8 * n, 300 + 15 * n, 270 + 8 * n))
            view.save(root / f"place_{seed:02}" / f"{n}.png")
    drawn(1, (300, 270)).save(root / "nothing.png")
    return open_collection(root)


@pytest.fixture
def small(monkeypatch):
    """Landmarks of three pictures are enough to validate on."""
    monkeypatch.setattr(photographs, "HELD_OUT_PICTURES", 3)
