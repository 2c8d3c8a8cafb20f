"""Names of files are bytes: old archives leave some that are not UTF-8."""

import json
import os
import shutil

import pytest
from stubs import Thumbnail, paint

from retrieval import index as indexes
from retrieval.cli.output import write_json
from retrieval.collections import open_collection
from retrieval.collections.ground_truth_files import parse_ground_truth
from retrieval.collections.judgements import as_json
from retrieval.collections.names import check_name
from retrieval.errors import RetrievalError
from retrieval.evaluation import runs
from retrieval.networks import checkpoints, weights
from retrieval.text import table
from retrieval.training import photographs
from retrieval.training.journal import Journal


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    root = tmp_path_factory.mktemp("names") / os.fsdecode(b"Ch\xe2teau")
    landmark = os.fsdecode(b"l\xe9")
    names = [f"{landmark}{one}/{seed}.png" for one in range(4) for seed in range(8)]
    for seed, name in enumerate(names):
        paint(root / name, seed)
    truth = {"imlist": names, "qimlist": names[:2], "gnd": [{"easy": [2]}, {"hard": [3]}]}
    (root / "ground_truth.json").write_text(json.dumps(truth))
    return open_collection(root)


def test_they_are_trained_on(collection, tmp_path):
    assert len(photographs.labelled(collection).split()[1]) >= 16
    content = {"meta": {"trained": {"collection": collection.name}}}
    Journal(tmp_path / "network.pth", {}).write_network(content)
    assert json.loads((tmp_path / "network.json").read_bytes()) == content["meta"]["trained"]


def test_networks_are_called_so(tmp_path):
    """An index that was made with one could not be kept in the end."""
    path = tmp_path / os.fsdecode(b"\xe9.pth")
    shutil.copy(checkpoints.REGISTRY["sir-lite0"].path, path)
    assert checkpoints.find("sir", path).id == "?"


def test_they_are_evaluated_and_exported(collection, tmp_path):
    index = indexes.build(collection, Thumbnail(), tmp_path / "index")
    runs.evaluate_index(index, collection, Thumbnail())
    record = json.loads((tmp_path / "index" / "evaluation.json").read_bytes())
    assert record["queries"][0]["name"] == collection.names[0]
    assert runs.load_run(index, collection).record["queries"] == record["queries"]
    assert parse_ground_truth(as_json(collection), "x").names == collection.names
    write_json(tmp_path / "scores.json", {"name": collection.name})
    assert json.loads((tmp_path / "scores.json").read_bytes())["name"] == collection.name
    assert b"l\\udce90/0.png" in table(["picture"], [[collection.names[0]]])
    assert len(weights.digest(collection.root)) == 64


@pytest.mark.parametrize("name", ["\ud800.png", "a\udfff.png", "\udc7f", 5000 * "x"])
def test_half_a_character_is_in_no_file_name(tmp_path, name):
    """JSON can spell it; where the list of pictures got its checksum it was a traceback."""
    (tmp_path / "ground_truth.json").write_text(json.dumps({"database": [name], "queries": []}))
    with pytest.raises(RetrievalError, match="is no picture name"):
        open_collection(tmp_path)
    assert check_name("\udc80\udcff.png"), "bytes of a file name that are no text"
