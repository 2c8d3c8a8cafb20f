"""Twelve drawn landmarks, three overlapping views of each, in a folder a landmark."""

import pytest
import torch

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
    monkeypatch.setattr(photographs, "MIN_HELD_OUT_PICTURES", 3)


@pytest.fixture
def half_precision():
    """``half_precision(stage)``: what a GPU computes in bfloat16 is nearly what a CPU computes."""

    def compare(stage):
        trained = [one for group in stage.parameter_groups() for one in group["params"]]
        found = []
        for half in (False, True):
            stage.begin(1)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = stage.loss(0)
            assert loss.dtype == torch.float32
            slopes = torch.autograd.grad(loss, trained, materialize_grads=True, allow_unused=True)
            found.append((loss.item(), torch.cat([one.flatten() for one in slopes])))
        (loss, slope), (rough, rough_slope) = found
        assert rough == pytest.approx(loss, rel=0.05)
        assert torch.cosine_similarity(slope, rough_slope, dim=0) > 0.9

    return compare
