"""An index in Milvus, against the same one in a folder, over a socket."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent import futures
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from milvus_server import Server, free_port
from stubs import Grid, Thumbnail, paint

from retrieval import images, index, methods
from retrieval.cli import index as cli_index
from retrieval.cli.parser import main
from retrieval.collections import Collection, open_collection
from retrieval.collections.ground_truth import Query
from retrieval.errors import RetrievalError
from retrieval.evaluation import runs
from retrieval.index import export as export_module
from retrieval.index import milvus as milvus_module
from retrieval.index import stored
from retrieval.index.export import export, landmarks
from retrieval.index.milvus import AbsentError, Address, AwayError
from retrieval.ranking.search import rank_picture

ROOT = Path(__file__).parents[2]


def cli(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "retrieval", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def client(server):
    return milvus_module.library().MilvusClient(f"http://127.0.0.1:{server.port}")


@pytest.fixture(scope="session")
def metadata(exported):
    return {
        name: {"landmark": "chapel" if n % 3 == 0 else "mill", "year": 1900 + n}
        for n, name in enumerate(exported.names)
    }


@pytest.fixture(scope="session")
def address(milvus, exported, metadata):
    """Where ``exported`` is, with its metadata."""
    one = milvus.address("pictures")
    assert export(exported, one, metadata) == len(exported)
    return one


@pytest.fixture
def opened(milvus, address):
    return index.load(str(address))


def picture(root, name):
    return images.read(root / name)


def same_ranking(a, b):
    assert a.names == b.names
    np.testing.assert_array_equal(a.positions, b.positions)
    np.testing.assert_array_equal(a.scores, b.scores)


# --- addresses


@pytest.mark.parametrize(
    ("text", "server", "again"),
    [
        ("milvus://a.org/x", "http://a.org:19530", "milvus://a.org:19530/x"),
        ("milvus+tls://10.0.0.1:443/x_1", "https://10.0.0.1:443", "milvus+tls://10.0.0.1:443/x_1"),
        ("milvus://[::1]:1/x", "http://[::1]:1", "milvus://[::1]:1/x"),
    ],
)
def test_addresses(text, server, again):
    address = Address.parse(text)
    assert (address.server, str(address)) == (server, again)
    assert Address.parse(again) == address


@pytest.mark.parametrize(
    "text",
    [
        "milvus://a.org",
        "milvus://a.org/",
        "milvus://a.org/x/y",
        "milvus://a.org/x?token=1",
        "milvus://a.org:99999/x",
        "milvus://a b/x",
        "milvus://a.org/1x",
        "milvus://a.org/x-y",
        "http://a.org/x",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(RetrievalError, match="is no address of a store"):
        Address.parse(text)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    text = "milvus://root:s3cret@a.org/x"
    with pytest.raises(RetrievalError, match="RETRIEVAL_STORE_TOKEN") as caught:
        index.load(text)
    assert "s3cret" not in str(caught.value)
    said = cli("search", text, "a.png")
    assert said.returncode == 1
    assert "s3cret" not in said.stdout + said.stderr


def test_folders_need_no_client_of_milvus():
    """Neither the command line nor the app's loaders import it, or what opens stores."""
    code = (
        "import sys, retrieval.cli.parser, retrieval.server, pages.parts.loaders\n"
        "from retrieval import index\n"
        "index.find_all('town')\n"
        "index.load('precomputed/town/gem-lite0')\n"
        "late = {'pymilvus', 'grpc', 'retrieval.index.stored', 'retrieval.index.export'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != stored.STORES}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=environment)


def test_a_missing_client_says_how_to_install_it(tmp_path):
    (tmp_path / "pymilvus.py").write_text("raise ImportError('not here')")
    said = cli("info", "milvus://localhost/x", PYTHONPATH=str(tmp_path))
    assert said.returncode == 1
    assert said.stderr == (
        'error: A store needs the client of Milvus: pip install "pymilvus>=2.6,<4"\n'
    )


# --- a store ranks as the folder does


def test_the_store_ranks_as_the_folder(exported, opened, pictures):
    assert len(opened) == len(exported)
    assert opened.shape == exported.shape
    for name in exported.names:
        for top in (None, 3):
            a = rank_picture(exported, Thumbnail(), picture(pictures, name), top=top)
            b = rank_picture(opened, Thumbnail(), picture(pictures, name), top=top)
            same_ranking(a, b)
            assert a.confidence == b.confidence
            assert b.provenance == a.provenance | {
                "search": "by the store",
                "store": "pictures",
                "shortlist": len(exported),
            }


def test_a_store_has_a_search_of_its_own(milvus, exported, pictures, tmp_path):
    """An index with an approximate search in its folder is searched by the engine."""
    collection = open_collection(pictures)
    graph = index.build(collection, Thumbnail(), tmp_path / "graph", search="hnsw")
    address = milvus.address("graph")
    export(graph, address, {})
    asked = picture(pictures, "a.png")
    found = rank_picture(index.load(str(address)), Thumbnail(), asked)
    same_ranking(rank_picture(exported, Thumbnail(), asked), found)
    assert found.provenance["search"] == "by the store"


@pytest.mark.parametrize(
    "then",
    [
        ("expansion",),
        ("expansion-average",),
        ("augmentation",),
        ("k-reciprocal",),
        ("superglobal",),
        ("geometry", "diffusion"),
    ],
)
def test_re_rankers_find_the_same_in_both(exported, opened, pictures, then):
    collection = open_collection(pictures)
    for name in exported.names[:2]:
        a, b = (
            rank_picture(
                one,
                Thumbnail(),
                picture(pictures, name),
                then=then,
                collection=collection,
                own=name,
            )
            for one in (exported, opened)
        )
        same_ranking(a, b)
        np.testing.assert_array_equal(a.moved, b.moved)
        same_ranking(a.stages[0], b.stages[0])


def test_the_best_of_a_shortlist_are_those_of_the_folder(exported, opened, pictures, monkeypatch):
    """Where the engine is asked for some pictures only, as for every large collection."""
    monkeypatch.setattr(stored, "MIN_SHORTLIST", 1)
    for name in exported.names[::4]:
        whole = rank_picture(exported, Thumbnail(), picture(pictures, name))
        part = rank_picture(opened, Thumbnail(), picture(pictures, name), depth=12)
        assert len(part) == 12
        same_ranking(whole.best(12), part)
        first = rank_picture(opened, Thumbnail(), picture(pictures, name), top=1)
        same_ranking(whole.best(1), first)
        assert first.provenance["shortlist"] == 1


def test_local_features_come_from_beside_the_exported_index(opened, exported, monkeypatch):
    assert opened.local == exported.path
    monkeypatch.setenv(stored.FOLDER, "/elsewhere/town")
    assert opened.local == Path("/elsewhere/town")


@pytest.mark.parametrize("folder", ["/tmp/" + "a" * 252, "/b" * 3000, "/tmp/\ud800"])
def test_a_folder_that_the_system_cannot_look_for_is_refused(folder):
    extra = stored.Extra("town", [0.5], True, "/tmp/town")
    assert stored.Extra.read(extra.write()) == extra
    with pytest.raises(ValueError, match=r"other values|surrogates not allowed"):
        stored.Extra.read(replace(extra, folder=folder).write())


def test_a_picture_is_found_by_its_content_and_by_its_name(exported, opened, pictures):
    for name in exported.names:
        data = (pictures / name).read_bytes()
        assert opened.name_of(data) == exported.name_of(data)
        part = opened.holding(name)
        place, whole = part.positions[name], exported.positions[name]
        assert part.whole_positions[place] == whole
        assert part.digests[place] == exported.digests[whole]
        assert part.sizes[place].tolist() == exported.sizes[whole].tolist()
        np.testing.assert_array_equal(part.features(place), exported.features(whole))
    assert opened.name_of(b"something else") is None
    assert opened.first(10).names == exported.names[:10]


def test_filters(exported, opened, pictures, metadata):
    asked = picture(pictures, exported.names[1])
    found = rank_picture(opened, Thumbnail(), asked, where='landmark == "chapel" and year < 1910')
    wanted = {n for n, v in metadata.items() if v["landmark"] == "chapel" and v["year"] < 1910}
    assert set(found.names) == wanted
    whole = rank_picture(exported, Thumbnail(), asked)
    assert found.names == tuple(name for name in whole.names if name in wanted)
    assert found.provenance["filter"] == 'landmark == "chapel" and year < 1910'
    with pytest.raises(RetrievalError, match=r"No picture in .* fits the filter"):
        rank_picture(opened, Thumbnail(), asked, where='landmark == "no such"')
    with pytest.raises(RetrievalError, match="The filter landmark = 1 cannot be used: ") as caught:
        rank_picture(opened, Thumbnail(), asked, where="landmark = 1")
    assert "\n" not in str(caught.value)
    with pytest.raises(RetrievalError, match="A filter needs the collection"):
        rank_picture(exported, Thumbnail(), asked, where="year > 1")


def labelled(pictures, exported, count=3):
    queries = tuple(
        Query(name, None, f"landmark {n}", {"ok": np.array([n, n + 9]), "junk": np.array([20])})
        for n, name in enumerate(exported.names[:count])
    )
    return Collection(pictures.name, "Pictures", pictures, exported.names, queries)


def test_an_evaluation_of_the_store_is_that_of_the_folder(exported, opened, pictures):
    collection = labelled(pictures, exported)
    folder = runs.evaluate_index(exported, collection, Thumbnail())
    store = runs.evaluate_index(opened, collection, Thumbnail())
    np.testing.assert_array_equal(folder.ranks, store.ranks)
    assert folder.record["protocols"] == store.record["protocols"]
    assert store.note == ""
    kept = runs.load_run(index.load(str(opened.address)), collection)
    np.testing.assert_array_equal(kept.ranks, store.ranks)


def test_an_evaluation_that_ends_early_says_so(exported, opened, pictures, monkeypatch):
    monkeypatch.setattr(stored, "MIN_SHORTLIST", 1)
    monkeypatch.setattr(runs, "MAX_DEPTH", 5)
    collection = labelled(pictures, exported)
    whole = runs.evaluate_index(exported, collection, Thumbnail())
    run = runs.evaluate_index(opened, collection, Thumbnail())
    np.testing.assert_array_equal(run.ranks[:5], whole.ranks[:5])
    assert (run.ranks[5:] == -1).all()
    assert run.note.startswith(f"Each ranking ends with the best 5 of {len(exported)} pictures.")
    assert run.scores["classic"].map < whole.scores["classic"].map
    assert runs.load_run(opened, collection).note == run.note


def test_the_commands(milvus, pictures, exported, tmp_path, monkeypatch, capsys):
    """As in the README: index into a store, search, evaluate and info at its address."""
    monkeypatch.setattr(cli_index, "load_method", lambda args: Thumbnail())
    monkeypatch.setattr(methods, "for_index", lambda index, checkpoint=None: Thumbnail())
    folder = tmp_path / "labelled"
    shutil.copytree(pictures, folder)
    truth = {
        "imlist": list(exported.names),
        "qimlist": ["a.png"],
        "gnd": [{"easy": [3, 4], "hard": [], "junk": [], "bbx": None}],
        "landmarks": ["mill"],
    }
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    (folder / "metadata.csv").write_text("name,year\n06.png,1901\n07.png,1999\n")
    address, out = str(milvus.address("commands")), tmp_path / "index"

    def said(*arguments):
        assert main([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    text = said("index", folder, "--method", "sir", "--out", out, "--store", address)
    assert f"{len(exported)} pictures in {address}, {len(exported)} of them written now" in text
    assert "year" in text.splitlines()[-1]
    found = json.loads(
        said("search", address, folder / "a.png", "--json", "--where", "year < 1950")
    )
    assert [one["name"] for one in found["results"]] == ["06.png"]
    tables = [said("evaluate", place).splitlines()[1:] for place in (address, out)]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 4
    assert f"pictures     {len(exported)}" in said("info", address)
    with pytest.raises(SystemExit):
        main(["index", str(folder), "--method", "delf", "--out", str(out), "--store", address])


# --- what does not fit is refused, with the words of a folder


@pytest.mark.parametrize("settings", [{"size": 8}, {"other": 1}])
def test_other_settings_are_refused_as_by_the_folder(exported, opened, settings):
    said = []
    for one in (exported, opened):
        with pytest.raises(RetrievalError) as caught:
            one.check_method(Thumbnail(**settings))
        said.append(str(caught.value).replace(str(one), "HERE"))
    assert said[0] == said[1]
    assert said[0].startswith("The index HERE was made with ")


def test_descriptors_of_another_length_are_refused_as_by_the_folder(exported, opened, pictures):
    class Long(Thumbnail):
        def describe(self, picture, box=None):
            return np.full(20, 20**-0.5, np.float32)

    said = []
    for one in (exported, opened):
        with pytest.raises(RetrievalError) as caught:
            rank_picture(one, Long(), picture(pictures, "a.png"))
        said.append(str(caught.value).replace(str(one), "HERE"))
    assert said[0] == said[1]
    assert "holds descriptors of 48 numbers and not of 20" in said[0]


def test_local_features_stay_in_their_folder(milvus, pictures, tmp_path):
    grid = index.build(open_collection(pictures), Grid(), tmp_path / "grid")
    with pytest.raises(RetrievalError, match="stay in its folder"):
        export(grid, milvus.address("grid"))


def test_there_is_no_index_where_nothing_was_exported(milvus):
    with pytest.raises(AbsentError, match="python -m retrieval export INDEX --store milvus://"):
        index.load(str(milvus.address("nothing")))


def test_a_collection_of_somebody_else_is_neither_read_nor_touched(milvus, exported):
    theirs = client(milvus)
    theirs.create_collection("theirs", dimension=16)
    address = milvus.address("theirs")
    with pytest.raises(RetrievalError, match="is not an index of this program"):
        index.load(str(address))
    with pytest.raises(RetrievalError, match="is not an index of this program"):
        export(exported, address)
    assert [name for name in theirs.list_collections() if name.startswith("theirs")] == ["theirs"]


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
    name = stored.describe(address).collection
    text = json.dumps(edit(exported.manifest))
    client(milvus).alter_collection_properties(name, {stored.MANIFEST: text})
    with pytest.raises(RetrievalError, match=words):
        index.load(str(address))
    client(milvus).drop_alias("edited")
    client(milvus).drop_collection(name)


def test_an_index_of_another_version_is_replaced(milvus, exported):
    address = milvus.address("older")
    export(exported, address, {"a.png": {"landmark": "mill"}})
    name = stored.describe(address).collection
    old = json.dumps(exported.manifest | {"format": 0})
    client(milvus).alter_collection_properties(name, {stored.MANIFEST: old})
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

    monkeypatch.setattr(milvus_module, "_client", lambda *args: Lying(real, change))
    asks = (
        lambda: opened.shortlist(exported.arrays["descriptors"][0], 5),
        lambda: opened.first(5),
        lambda: opened.holding(exported.names[0]),
    )
    for ask in asks:
        with pytest.raises(RetrievalError, match=r"A row of .* is damaged; export the index again"):
            ask()


def test_a_picture_that_a_store_has_twice_or_no_more(milvus, address, monkeypatch, exported):
    real, name = client(milvus), exported.names[0]
    monkeypatch.setattr(
        milvus_module,
        "_client",
        lambda *args: Lying(real, lambda rows: [{**row, "name": name} for row in rows]),
    )
    with pytest.raises(RetrievalError, match="has a picture twice; export the index again"):
        index.load(str(address)).first(5)
    monkeypatch.setattr(milvus_module, "_client", lambda *args: Lying(real, lambda rows: []))
    with pytest.raises(RetrievalError, match=r"has no picture .* any more; search again"):
        index.load(str(address)).holding(name)


def test_a_row_that_is_gone_is_noticed(milvus, exported, pictures):
    address = milvus.address("lacking")
    export(exported, address)
    client(milvus).delete(stored.describe(address).collection, ids=[3])
    with pytest.raises(RetrievalError, match="lacks 1 of its pictures; export the index again"):
        index.load(str(address)).first(10)
    assert export(exported, address) > 0
    assert content(address) == wanted(exported)


# --- exports


def content(address):
    """Everything that a reader can see of a store: names, descriptors, digests, sizes."""
    part = index.load(str(address)).first(10**4)
    return (
        part.names,
        part.digests,
        part.sizes.tolist(),
        part.arrays["descriptors"].tobytes(),
    )


def wanted(exported):
    return (
        exported.names,
        exported.digests,
        exported.sizes.tolist(),
        exported.arrays["descriptors"].tobytes(),
    )


def collections_of(milvus, alias):
    return [one for one in client(milvus).list_collections() if one.startswith(f"{alias}_")]


def test_an_export_done_twice_writes_once(milvus, exported, address, metadata):
    seen = []
    assert export(exported, address, metadata, lambda *step: seen.append(step)) == 0
    assert seen[-1] == (len(exported), len(exported), exported.names[-1])
    assert content(address) == wanted(exported)
    assert len(collections_of(milvus, "pictures")) == 1


def test_another_index_takes_the_place_at_once(milvus, exported, pictures, tmp_path):
    address = milvus.address("changing")
    export(exported, address)
    before = index.load(str(address))
    asked = picture(pictures, "a.png")
    assert rank_picture(before, Thumbnail(), asked, top=1).names == ("a.png",)
    folder = tmp_path / "more"
    shutil.copytree(pictures, folder)
    paint(folder / "new.png", 77)
    larger = index.build(open_collection(folder), Thumbnail(), tmp_path / "larger")
    assert export(larger, address) == len(exported) + 1
    assert content(address) == wanted(larger)
    assert len(collections_of(milvus, "changing")) == 1
    with pytest.raises(RetrievalError, match="holds another index now; ask again"):
        rank_picture(before, Thumbnail(), picture(folder, "new.png"), top=1)
    kept = json.loads((before.path.parents[1] / "more/stub/manifest.json").read_text())
    assert kept["pictures"] == len(exported) + 1


class Killed(BaseException):
    """Ends an export at once: nothing catches it."""


def killed_at(monkeypatch, number, after):
    """The export ends at its call with this number, before or after it has reached the server."""
    calls = []

    def call(address, work, patience, real=milvus_module.call):
        calls.append(work)
        if len(calls) == number and not after:
            raise Killed
        try:
            return real(address, work, patience)
        finally:
            if len(calls) == number:
                raise Killed

    monkeypatch.setattr(milvus_module, "call", call)
    return calls


def test_an_export_that_is_killed_anywhere_goes_on(milvus, exported, monkeypatch, tmp_path):
    """Before and after each of its calls: a reader meets nothing or everything, nothing twice."""
    monkeypatch.setattr(export_module, "MOST_ROWS", 10)
    with monkeypatch.context() as patch:
        calls = killed_at(patch, 0, False)
        assert export(exported, milvus.address("k")) == len(exported)
        steps = len(calls)
    assert steps > 10
    for number in range(1, steps + 1):
        for after in (False, True):
            address = milvus.address(f"k{number}{'after' if after else ''}")
            with monkeypatch.context() as patch:
                killed_at(patch, number, after)
                with pytest.raises(Killed):
                    export(exported, address)
            with contextlib.suppress(AbsentError):
                assert content(address) == wanted(exported)
            assert export(exported, address) <= len(exported)
            assert content(address) == wanted(exported)
            assert len(collections_of(milvus, address.collection)) == 1


def test_what_is_there_is_not_sent_again(milvus, exported, monkeypatch):
    monkeypatch.setattr(export_module, "MOST_ROWS", 10)
    address = milvus.address("half")

    def stop(done, total, name):
        if done == 20:
            raise Killed

    with pytest.raises(Killed):
        export(exported, address, progress=stop)
    assert export(exported, address) == len(exported) - 20


def test_a_killed_process_goes_on(milvus, exported):
    """SIGKILL in the middle of the command, between two batches."""
    address = milvus.address("process")
    code = (
        "import os, signal, sys\n"
        "from retrieval import index\n"
        "from retrieval.index import export, milvus\n"
        "export.MOST_ROWS = 10\n"
        "die = lambda done, *rest: done >= 20 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "export.export(index.load(sys.argv[1]), milvus.Address.parse(sys.argv[2]), progress=die)\n"
    )
    command = [sys.executable, "-c", code, str(exported.path), str(address)]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    with pytest.raises(AbsentError):
        index.load(str(address))
    said = cli("export", exported.path, "--store", address)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"{len(exported)} pictures in {address}, ")
    assert content(address) == wanted(exported)


def killed_server_at(monkeypatch, server, numbers, delay=0.0):
    """The server is killed at the calls with these numbers, and started again a little later."""
    calls = []

    def kill():
        server.kill()
        threading.Timer(0.3, server.start).start()

    def call(address, work, patience, real=milvus_module.call):
        calls.append(work)
        if len(calls) in numbers and delay:
            threading.Timer(delay, kill).start()  # while the call is on its way
        elif len(calls) in numbers:
            kill()
        return real(address, work, patience)

    monkeypatch.setattr(milvus_module, "call", call)
    return calls


def test_a_server_that_is_killed_and_comes_back(tmp_path, exported, pictures, monkeypatch, milvus):
    """At several moments of an export, and between two searches."""
    monkeypatch.setattr(export_module, "MOST_ROWS", 10)
    server = Server(tmp_path / "own").start().wait()
    try:
        address = server.address("town")
        with monkeypatch.context() as patch:
            killed_server_at(patch, server, (7, 12))
            assert export(exported, address) >= len(exported)
        assert content(address) == wanted(exported)
        opened = index.load(str(address))
        server.kill()
        with monkeypatch.context() as patch:
            patch.setattr(stored, "PATIENCE", 0.5)
            with pytest.raises(AwayError, match="cannot be reached: see that it runs"):
                rank_picture(opened, Thumbnail(), picture(pictures, "a.png"))
        threading.Timer(0.3, server.start).start()
        found = rank_picture(opened, Thumbnail(), picture(pictures, "a.png"))
        same_ranking(rank_picture(exported, Thumbnail(), picture(pictures, "a.png")), found)
        server.send(signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(stored, "PATIENCE", 0.5)
            with pytest.raises(AwayError, match=r"did not answer within 0\.5 s"):
                index.load(str(address))
        server.send(signal.SIGCONT)
        assert content(address) == wanted(exported)
    finally:
        server.send(signal.SIGCONT)
        server.kill()


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.0, 0.002])
def test_a_server_that_is_killed_at_any_call(tmp_path, exported, monkeypatch, milvus, delay):
    """Just before each call of an export, and in the middle of it."""
    monkeypatch.setattr(export_module, "MOST_ROWS", 10)
    server = Server(tmp_path / "own").start().wait()
    try:
        number, steps = 0, 1
        while number < steps:
            number += 1
            address = server.address(f"town{number}")
            with monkeypatch.context() as patch:
                calls = killed_server_at(patch, server, (number,), delay)
                with contextlib.suppress(RetrievalError):
                    export(exported, address)
                steps = max(steps, len(calls))
            time.sleep(0.5)
            export(exported, server.wait().address(address.collection))
            assert content(address) == wanted(exported)
            assert len(collections_of(server, address.collection)) == 1
        assert steps > 10
    finally:
        server.kill()


# --- metadata


def test_landmarks_come_from_the_labels(pictures, exported):
    collection = labelled(pictures, exported, 2)
    names = exported.names
    assert landmarks(collection) == {
        names[0]: {"landmark": "landmark 0"},
        names[9]: {"landmark": "landmark 0"},
        names[1]: {"landmark": "landmark 1"},
        names[10]: {"landmark": "landmark 1"},
    }


# --- connections


def test_a_server_that_is_away_is_one_sentence(monkeypatch):
    pytest.importorskip("pymilvus")
    monkeypatch.setattr(stored, "PATIENCE", 0.3)
    with pytest.raises(AwayError, match="cannot be reached: see that it runs") as caught:
        index.load(f"milvus://127.0.0.1:{free_port()}/x")
    assert "\n" not in str(caught.value)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(AwayError):
            index.load(f"milvus://127.0.0.1:{port}/x")


def test_an_answer_of_megabytes_is_not_read():
    """Of 60 MB of positions the client made 5.9 GB."""
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("pymilvus")

    class Answers(grpc.GenericRpcHandler):
        def service(self, call):
            body = b"" if call.method.endswith("/Connect") else bytes(11_000_000)
            return grpc.unary_unary_rpc_method_handler(lambda request, context: body)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Answers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(RetrievalError, match="larger than max"):
            index.load(f"milvus://127.0.0.1:{port}/x")
    finally:
        server.stop(0)


def test_the_token_is_sent_and_never_shown(monkeypatch):
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("pymilvus")
    heard = []

    class Listener(grpc.GenericRpcHandler):
        def service(self, call):
            heard.append(dict(call.invocation_metadata))

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Listener()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        said = cli("info", f"milvus://127.0.0.1:{port}/x", RETRIEVAL_STORE_TOKEN="root:s3cret")
    finally:
        server.stop(0)
    assert base64.b64decode(heard[0]["authorization"]) == b"root:s3cret"
    assert said.returncode == 1
    assert len(said.stderr.splitlines()) == 1
    assert said.stderr.startswith("error: The store milvus://127.0.0.1:")
    assert "s3cret" not in said.stdout + said.stderr


@pytest.fixture
def tls(milvus, tmp_path):
    """The server once more, behind TLS: port, and the certificate that signs for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        target.close()

    def serve():
        while True:
            try:
                plain, _ = listener.accept()
                theirs = context.wrap_socket(plain, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            ours = socket.create_connection(("127.0.0.1", milvus.port))
            for pair in ((theirs, ours), (ours, theirs)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], certificate
    listener.close()


def test_tls(tls, address, exported, monkeypatch):
    port, certificate = tls
    secure = replace(address, host="localhost", port=port, tls=True)
    said = cli("info", secure, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(certificate))
    assert said.returncode == 0, said.stderr
    assert f"pictures     {len(exported)}" in said.stdout
    monkeypatch.setattr(stored, "PATIENCE", 0.3)
    with pytest.raises(AwayError, match="cannot be reached with TLS: see that it runs"):
        index.load(str(secure))  # nobody whom this process knows has signed that
