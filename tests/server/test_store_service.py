"""The service on an index in a store, in place of the folder of the same collection."""

import pytest
from milvus_server import Server, needed, only_pauses_take_time

from retrieval import index, server
from retrieval.benchmarks.served import free_port
from retrieval.errors import RetrievalError
from retrieval.index import milvus as milvus_module
from retrieval.index import milvus_client
from retrieval.index.export import export

PATH = "/indexes/town/gem-lite0/search"


@pytest.fixture
def address(milvus, precomputed):
    one = milvus.address("service")
    export(index.load(precomputed / "town" / "gem-lite0"), one, {"b.png": {"landmark": "mill"}})
    return one


def test_the_store_answers_as_the_folder_does(start, address, monkeypatch):
    asked = {"name": "c.png", "box": "5,5,200,150", "then": "geometry,diffusion"}
    client = start()
    answer = client.get(PATH, params=asked).json()
    assert "store" not in answer["provenance"]
    monkeypatch.setenv(milvus_module.STORES, str(address))
    again = client.get(PATH, params=asked).json()
    assert again["provenance"]["store"] == "service"
    assert again["results"] == answer["results"]
    assert again["confidence"] == answer["confidence"]
    ids = [one["id"] for one in client.get("/indexes").json()]
    assert sorted(ids) == ["town/delf-lite0", "town/gem-lite0"]


def test_a_filter_goes_to_the_store(start, address, monkeypatch, folder):
    asked = {"name": "c.png", "where": 'landmark == "mill"'}
    monkeypatch.setenv(milvus_module.STORES, str(address))
    client = start()
    assert [one["name"] for one in client.get(PATH, params=asked).json()["results"]] == ["b.png"]
    data = (folder / "c.png").read_bytes()
    answer = client.upload("town/gem-lite0", data, where=asked["where"]).json()
    assert [one["name"] for one in answer["results"]] == ["b.png"]
    refused = client.get(PATH, params=asked | {"where": "landmark ="})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("The filter landmark = is not understood: ")


def test_other_metadata_in_the_store(start, address, precomputed, monkeypatch):
    """Every search was answered with "was replaced; search again", for ever."""
    monkeypatch.setenv(milvus_module.STORES, str(address))
    client = start()
    assert client.get(PATH, params={"name": "c.png"}).status_code == 200
    export(index.load(precomputed / "town" / "gem-lite0"), address, {"b.png": {"colour": "red"}})
    refused = client.get(PATH, params={"name": "c.png"})
    assert refused.json() == {"detail": "service was replaced; search again."}
    answer = client.get(PATH, params={"name": "c.png", "where": 'colour == "red"'}).json()
    assert [one["name"] for one in answer["results"]] == ["b.png"]


def test_a_store_that_is_away(start, precomputed, tmp_path, monkeypatch):
    """A client is not told where the store is; at the start its owner is."""
    needed()
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "cache"))
    store = Server(tmp_path / "own").start().wait()
    try:
        export(index.load(precomputed / "town" / "gem-lite0"), store.address("town"))
        monkeypatch.setenv(milvus_module.STORES, str(store.address("town")))
        client = start()
        assert client.get(PATH, params={"name": "a.png"}).status_code == 200
    finally:
        store.kill()
    with monkeypatch.context() as soon:
        soon.setattr(milvus_module, "PATIENCE", 0.2)
        answer = client.get(PATH, params={"name": "b.png"})
    assert answer.status_code == 503
    assert answer.json() == {"detail": "The store of this index is away; try again later."}
    monkeypatch.setenv(milvus_module.STORES, f"milvus://127.0.0.1:{free_port()}/town")
    only_pauses_take_time(monkeypatch)
    with pytest.raises(RetrievalError, match="cannot be reached: check that it runs"):
        server.run("127.0.0.1", 0, server.Options())


def test_a_store_whose_index_was_deleted(start, address, monkeypatch, capsys):
    """A client got 422, and the owner's command to put an index there."""
    monkeypatch.setenv(milvus_module.STORES, str(address))
    client = start()
    assert client.get(PATH, params={"name": "a.png"}).status_code == 200
    stored = index.load(str(address)).described.collection
    owner = milvus_client.connected(address.server, "", 10)
    owner.drop_alias(address.collection)
    owner.drop_collection(stored)
    answer = client.get(PATH, params={"name": "b.png"})
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("The store of this index has a fault; its owner")
    assert f"There is no index in {address}; put one there" in capsys.readouterr().err


def test_a_store_that_goes_away_before_anybody_asks(start, precomputed, tmp_path, monkeypatch):
    """Each call then tried to open it for 10 s, one after another, and all others waited."""
    needed()
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr("uvicorn.run", lambda *args, **options: None)
    store = Server(tmp_path / "own").start().wait()
    try:
        export(index.load(precomputed / "town" / "gem-lite0"), store.address("town"))
        monkeypatch.setenv(milvus_module.STORES, str(store.address("town")))
        server.run("127.0.0.1", 0, server.Options())
    finally:
        store.kill()
    monkeypatch.setattr(milvus_module, "PATIENCE", 0.2)
    ids = [one["id"] for one in start().get("/indexes").json()]
    assert sorted(ids) == ["town/delf-lite0", "town/gem-lite0"]
