"""What networks see in a picture is computed among searches of others."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from pages.parts import extraction, loaders
from retrieval.errors import RetrievalError

PICTURE = SimpleNamespace(source=b"", key="k")
CALLS = {
    "places": lambda: extraction.places(b"", "k", None, "sir", "c", {}),
    "steps": lambda: extraction.steps(Path(), Mock(), PICTURE, None),
    "delf": lambda: extraction.delf(b"", "k", None, "c", {}),
    "attention": lambda: extraction.attention(b"", "k", 1.0, "c", {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_large_network_keeps_no_search_waiting(name, monkeypatch):
    """Beside four tabs that looked at steps of the report's ResNet-152, a search waited 28 s."""
    method = Mock(pixels=3_700_000, seconds=0, **{"checkpoint.id": "c", "checkpoint.trunk": ""})
    for other in ("file_key", "index_of", "decoded", "as_local", "ablation"):
        monkeypatch.setattr(extraction, other, Mock())
    extraction.index_of.return_value.settings = {}
    monkeypatch.setattr(extraction, "load_method", lambda *_, **__: method)
    monkeypatch.setattr(extraction, "cached", lambda source, key, work, message: work())
    apart = []
    monkeypatch.setattr(
        extraction.search.workers,
        "move_to_slow_workers",
        lambda: apart.append(method.checkpoint.trunk),
    )
    for trunk in ("efficientnet-lite0", "resnet152"):
        method.checkpoint.trunk = trunk
        CALLS[name]()
    assert apart == ["resnet152"]


@pytest.mark.parametrize(
    "work",
    [
        lambda: extraction.steps(Path(), Mock(), PICTURE, None),
        lambda: extraction.xfeat_matches(Path(), Mock(), PICTURE, None, "a.jpg", "geometry"),
        lambda: loaders.confirmed_pairs(Path(), Mock(), Mock()),
        lambda: loaders.local_ranking(Path(), Mock(), Mock(), "k", None),
    ],
)
def test_results_of_an_index_are_not_kept_for_the_next(work, monkeypatch):
    """Where an update came between, results of the former index stayed in the cache for the new."""
    calls = []

    def index_of(path, collection):
        calls.append("index")
        raise RetrievalError("enough")

    for module in (extraction, loaders):
        monkeypatch.setattr(module, "file_key", lambda path: calls.append("key"))
        monkeypatch.setattr(module, "index_of", index_of)
    with pytest.raises(RetrievalError):
        work()
    assert calls == ["key", "index"]
