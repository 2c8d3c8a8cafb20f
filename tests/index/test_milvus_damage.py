"""Manifests, rows and answers of a store that do not fit are refused with a sentence."""

import json

import pytest
from store_helpers import client, collections_of, content, wanted

from retrieval import index
from retrieval.errors import RetrievalError
from retrieval.index import milvus as milvus_module
from retrieval.index import milvus_client, store_description
from retrieval.index import stored as stored_module
from retrieval.index.export import export


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda manifest: manifest | {"format": 99}, "format version 99"),
        (lambda manifest: manifest | {"pictures": 7}, "was edited or damaged"),
        (lambda manifest: [], "is not an index"),
    ],
)
def test_an_edited_manifest_is_refused(milvus, exported, edit, words):
    address = milvus.address("edited")
    export(exported, address)
    name = store_description.describe(address).collection
    text = json.dumps(edit(exported.manifest))
    client(milvus).alter_collection_properties(name, {store_description.MANIFEST: text})
    with pytest.raises(RetrievalError, match=words):
        index.load(str(address))
    client(milvus).drop_alias("edited")
    client(milvus).drop_collection(name)


def test_a_store_that_does_not_say_what_is_usual_is_refused(address, monkeypatch):
    """Each search ended in a traceback of numpy, which has no quantile of nothing."""
    raw = store_description.raw_description(address)
    extra = json.loads(raw["properties"][store_description.EXTRA])
    raw["properties"][store_description.EXTRA] = json.dumps(extra | {"nearest": []})
    monkeypatch.setattr(store_description, "raw_description", lambda address: raw)
    with pytest.raises(RetrievalError, match="is not an index of this program"):
        index.load(str(address))


@pytest.mark.parametrize("width", [-1250, 0])
def test_vectors_of_no_numbers_are_refused(address, monkeypatch, width):
    """How many rows to ask for at once is divided by it: a page ended in a traceback."""
    raw = store_description.raw_description(address)
    [vector] = [field for field in raw["fields"] if field["name"] == "vector"]
    vector["params"]["dim"] = width
    monkeypatch.setattr(store_description, "raw_description", lambda address: raw)
    with pytest.raises(RetrievalError, match="is not an index of this program"):
        index.load(str(address))


def test_an_index_of_another_version_is_replaced(milvus, exported):
    address = milvus.address("older")
    export(exported, address, {"a.png": {"landmark": "mill"}})
    name = store_description.describe(address).collection
    old = json.dumps(exported.manifest | {"format": 0})
    client(milvus).alter_collection_properties(name, {store_description.MANIFEST: old})
    with pytest.raises(RetrievalError, match="format version 0"):
        index.load(str(address))
    assert export(exported, address) == len(exported)
    assert content(address) == wanted(exported)
    assert collections_of(milvus, "older") != [name]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../etc/passwd"},
        {"name": 7},
        {"width": -1},
        {"height": "tall"},
        {"sha256": None},
        {"sha256": "0" * 10_000},  # the cache of rows counts 64 letters
        {"vector": [0.5] * 47},
        {"vector": [float("nan")] * 48},
        {"vector": ["a"] * 48},
        {"vector": None},
    ],
)
def test_a_damaged_row_is_refused(opened, change):
    name = opened.described.collection
    row = milvus_module.call(
        opened.address, lambda client, time: client.query(name, ids=[3], output_fields=["*"])[0], 9
    )
    assert opened._checked(row)[0]["name"] == row["name"]
    with pytest.raises(RetrievalError, match=r"A row of .* is damaged"):
        opened._checked({**row, **change})
    with pytest.raises(RetrievalError, match=r"A row of .* is damaged"):
        opened._checked({key: value for key, value in row.items() if key not in change})


class Lying:
    """A client that hands on what ``change`` makes of the rows or hits that a server sends."""

    def __init__(self, real, change):
        self.real, self.change = real, change

    def __getattr__(self, name):
        return getattr(self.real, name)

    def query(self, *args, **options):
        return self.change(list(self.real.query(*args, **options)))

    def search(self, *args, **options):
        return [self.change(hits) for hits in self.real.search(*args, **options)][:1]


@pytest.mark.parametrize("position", [-1, 10**12, "a", None, True])
@pytest.mark.parametrize("missing", [False, True])
def test_rows_and_hits_that_are_none_of_the_index(
    milvus, address, monkeypatch, exported, position, missing
):
    opened, real = index.load(str(address)), client(milvus)

    def change(rows):
        return [{} if missing else {**row, "position": position} for row in rows]

    monkeypatch.setattr(milvus_client, "connected", lambda *args: Lying(real, change))
    asks = (
        lambda: opened.shortlist(exported.arrays["descriptors"][0], 5),
        lambda: opened.first(5),
        lambda: opened.holding(exported.names[0]),
    )
    for ask in asks:
        with pytest.raises(RetrievalError, match=r"A row of .* is damaged; export the index again"):
            ask()


@pytest.mark.parametrize("in_metadata", [False, True])
def test_rows_that_the_client_cannot_decode(milvus, address, monkeypatch, in_metadata):
    """It does so when they are looked at. A field of another type ended in a traceback, and so did
    metadata that are a number."""
    opened, real = index.load(str(address)), client(milvus)

    def change(rows):
        yield rows[0]
        if in_metadata:
            raise AttributeError("'float' object has no attribute 'items'")
        raise milvus_client.library().exceptions.ParamError(message="a vector of no numbers")

    monkeypatch.setattr(milvus_client, "connected", lambda *args: Lying(real, change))
    with pytest.raises(RetrievalError, match=r"A row of .* is damaged; export the index again"):
        opened.first(5)


def test_a_description_that_the_client_cannot_use(address, monkeypatch):
    """It asks for it before a query. One without a primary key ended in a traceback."""
    opened = index.load(str(address))
    refuse = milvus_client.library().MilvusClient._pack_pks_expr
    monkeypatch.setattr(
        milvus_client.library().MilvusClient,
        "_pack_pks_expr",
        lambda self, description, keys: refuse(self, {"fields": []}, keys),
    )
    with pytest.raises(RetrievalError, match=r"An answer of the store .* is damaged"):
        opened.first(5)


def test_a_picture_that_a_store_has_twice_or_no_more(milvus, address, monkeypatch, exported):
    real, name = client(milvus), exported.names[0]
    monkeypatch.setattr(
        milvus_client,
        "connected",
        lambda *args: Lying(real, lambda rows: [{**row, "name": name} for row in rows]),
    )
    with pytest.raises(RetrievalError, match="has a picture twice; export the index again"):
        index.load(str(address)).first(5)
    monkeypatch.setattr(milvus_client, "connected", lambda *args: Lying(real, lambda rows: []))
    with pytest.raises(RetrievalError, match=r"has no picture .* any more; search again"):
        index.load(str(address)).holding(name)


def test_vectors_and_names_that_are_large_together(milvus, address, monkeypatch):
    """100,000 rows with names of 4000 letters took 2.3 GB."""
    stored = index.load(str(address))
    monkeypatch.setattr(stored_module, "CHUNK", 2)
    monkeypatch.setattr(stored_module, "MAX_READ", 2 * (2 * stored.width + 400))
    assert len(stored.first(2)) == 2
    with pytest.raises(RetrievalError, match="too many to read them all"):
        stored.first(len(stored))


def test_a_row_that_is_gone_is_noticed(milvus, exported, pictures):
    address = milvus.address("lacking")
    export(exported, address)
    client(milvus).delete(store_description.describe(address).collection, ids=[3])
    with pytest.raises(RetrievalError, match="lacks 1 of its pictures; export the index again"):
        index.load(str(address)).first(10)
    assert export(exported, address) > 0
    assert content(address) == wanted(exported)
