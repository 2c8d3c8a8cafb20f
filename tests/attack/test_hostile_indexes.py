"""Indexes from strangers: they may be refused, but nothing that they name is opened or run."""

import hashlib
import shutil

import pytest
from attack.indexes import edited
from stubs import paint

from retrieval import index as indexes
from retrieval import methods
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    root = tmp_path_factory.mktemp("honest")
    for seed in range(3):
        paint(root / "pictures" / f"{seed}.png", seed)
    method = methods.load("cnn-irwnha", size=64, scales=[1.0])
    indexes.build(open_collection(root / "pictures"), method, root / "index")
    return root / "index"


@pytest.fixture
def forged(honest, tmp_path):
    """``forged(change)``: a copy with its manifest changed."""
    return lambda change: edited(shutil.copytree(honest, tmp_path / "forged"), change)


@pytest.fixture
def loaded(monkeypatch):
    """What was loaded since the test began."""
    records = []
    monkeypatch.setattr(methods, "load_record", lambda record, /, **_: records.append(record))
    return records


def test_a_path_in_place_of_a_checkpoint(forged, tmp_path, loaded):
    network = shutil.copy(checkpoints.HEADS / "gem-lite0.pth", tmp_path / "theirs.pth")
    digest = hashlib.sha256(network.read_bytes()).hexdigest()
    index = indexes.load(
        forged(lambda m: m.update(checkpoint={"id": str(network), "sha256": digest}))
    )
    with pytest.raises(RetrievalError, match="no registered checkpoint"):
        methods.for_index(index)
    with pytest.raises(RetrievalError, match="was made with checkpoint"):
        methods.for_index(index, network)  # the user's word for the file, by another id
    assert loaded == []


def test_hashes_are_compared_before_anything_is_loaded(forged, loaded):
    index = indexes.load(forged(lambda m: m["checkpoint"].update(sha256="ab" * 32)))
    with pytest.raises(RetrievalError, match=r"was made with checkpoint gem-lite0 \(abababab\)"):
        methods.for_index(index)
    with pytest.raises(RetrievalError, match="was made with checkpoint"):
        methods.for_index(index, checkpoints.HEADS / "gem-lite0.pth")
    assert loaded == []


@pytest.mark.parametrize("name", ["checkpoint", "record", "method", "self", "network"])
def test_settings_are_not_arguments(forged, name):
    index = indexes.load(forged(lambda m: m["settings"].update({name: "/tmp/x"})))
    with pytest.raises(RetrievalError, match=f"has no setting {name}"):
        methods.for_index(index)
