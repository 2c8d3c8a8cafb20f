"""An index in Milvus, against the same one in a folder, over a socket."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from store_helpers import ROOT, cli, client, labelled, picture, same_ranking
from stubs import Grid, Thumbnail

from retrieval import index, methods
from retrieval.cli import index as cli_index
from retrieval.cli.parser import main
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import queries, runs
from retrieval.index import milvus as milvus_module
from retrieval.index import milvus_client, store_description, store_folders, stored
from retrieval.index.export import export
from retrieval.index.milvus import AbsentError, Address
from retrieval.ranking.search import rank_picture

# --- addresses


@pytest.mark.parametrize(
    ("text", "server", "again"),
    [
        ("milvus://a.org/x", "http://a.org:19530", "milvus://a.org:19530/x"),
        ("milvus+tls://10.0.0.1:443/x_1", "https://10.0.0.1:443", "milvus+tls://10.0.0.1:443/x_1"),
        ("milvus://[::1]:1/x", "http://[::1]:1", "milvus://[::1]:1/x"),
    ],
)
def test_addresses_are_read_and_written(text, server, again):
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
        "late = {'pymilvus', 'grpc'} | {f'retrieval.index.{name}' for name in "
        "('stored', 'store_description', 'store_folders', 'export')}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != milvus_module.STORES}
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
        first = rank_picture(opened, Thumbnail(), picture(pictures, name), top=1, depth=1)
        same_ranking(whole.best(1), first)
        assert first.provenance["shortlist"] == 1


def test_local_features_come_from_beside_the_exported_index(opened, exported, monkeypatch):
    assert opened.local == exported.path
    monkeypatch.setenv(stored.FOLDER, "/elsewhere/town")
    assert opened.local == Path("/elsewhere/town")


@pytest.mark.parametrize("folder", ["/tmp/" + "a" * 252, "/b" * 3000, "/tmp/\ud800"])
def test_a_folder_that_the_system_cannot_look_for_is_refused(folder):
    extra = store_description.Extra("town", [0.5], True, "/tmp/town")
    assert store_description.Extra.read(extra.write()) == extra
    with pytest.raises(ValueError, match=r"other values|surrogates not allowed"):
        store_description.Extra.read(replace(extra, folder=folder).write())


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


def test_a_filter_is_applied_before_the_ranking(exported, opened, pictures, metadata):
    asked = picture(pictures, exported.names[1])
    found = rank_picture(opened, Thumbnail(), asked, where='landmark == "chapel" and year < 1910')
    wanted = {n for n, v in metadata.items() if v["landmark"] == "chapel" and v["year"] < 1910}
    assert set(found.names) == wanted
    whole = rank_picture(exported, Thumbnail(), asked)
    assert found.names == tuple(name for name in whole.names if name in wanted)
    assert found.provenance["filter"] == 'landmark == "chapel" and year < 1910'
    with pytest.raises(RetrievalError, match=r"No picture in .* fits the filter"):
        rank_picture(opened, Thumbnail(), asked, where='landmark == "no such"')
    with pytest.raises(RetrievalError, match="The filter name == 1 cannot be used: ") as caught:
        rank_picture(opened, Thumbnail(), asked, where="name == 1")
    assert "\n" not in str(caught.value)
    with pytest.raises(RetrievalError, match="A filter needs the collection"):
        rank_picture(exported, Thumbnail(), asked, where="year > 1")


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ('not landmark == "chapel"', 2),
        ('landmark not in ["chapel"]', 2),
        ('not landmark in ("chapel", "park")', 1),
        ("year > 0x1 and not year != 1_900", 1),
        ('landmark == "\\x63ha" "pel"  # as Python has it', 1),
        ('landmark == "chapel" or year != "1"', 1),
        ('landmark in ["chapel"] or year not in ["1"]', 1),
        ('landmark == "\u3000chapel"', 1),
    ],
)
def test_a_filter_means_the_same_to_a_store_as_to_a_folder(
    milvus, exported, pictures, where, found
):
    """``not in`` found 377 pictures of town in milvus-lite, and 221 in the folder."""
    known = [
        {"landmark": one, "year": 1900 + n} for n, one in enumerate(("chapel", "park", "hall"))
    ]
    metadata = dict(zip(exported.names, known, strict=False))
    address = milvus.address("same")
    export(exported, address, metadata)
    collection = replace(open_collection(pictures), metadata=metadata)
    asked = picture(pictures, exported.names[1])
    names = [
        set(rank_picture(one, Thumbnail(), asked, where=where, collection=collection).names)
        for one in (exported, index.load(str(address)))
    ]
    assert names[0] == names[1]
    assert len(names[0]) == found


@pytest.mark.parametrize(
    "where",
    [
        "landmark = 1",
        # With many signs of per cent, milvus-lite compares for ever and answers nobody else.
        'landmark like "c%"',
        # With a number of ten digits, it takes all memory of the machine.
        'landmark * 3 == "chapelchapelchapel"',
        'array_length(x) == 1 or landmark == "chapel"',
        '$meta["landmark"] == "chapel"',
    ],
)
def test_a_store_is_sent_no_filter_but_plain_comparisons(opened, exported, pictures, where):
    asked = picture(pictures, exported.names[1])
    with pytest.raises(RetrievalError, match=f"The filter {re.escape(where)} is not understood: "):
        rank_picture(opened, Thumbnail(), asked, where=where)


def test_an_evaluation_of_the_store_is_that_of_the_folder(exported, opened, pictures):
    collection = labelled(pictures, exported)
    folder = runs.evaluate_index(exported, collection, Thumbnail())
    store = runs.evaluate_index(opened, collection, Thumbnail())
    np.testing.assert_array_equal(folder.ranks, store.ranks)
    assert folder.record["protocols"] == store.record["protocols"]
    assert store.note == ""
    kept = runs.load_run(index.load(str(opened.address)), collection)
    np.testing.assert_array_equal(kept.ranks, store.ranks)


def test_a_query_of_a_store_that_was_replaced(exported, opened, pictures, tmp_path):
    """It was scored as it is now, and the run was still taken for one of the store when the picture
    was back."""
    photos = shutil.copytree(pictures, tmp_path / "photos")
    shutil.copy(photos / exported.names[12], photos / exported.names[1])
    words = rf"{re.escape(exported.names[1])} was replaced since the index milvus://.* was made"
    with pytest.raises(RetrievalError, match=words):
        queries.rank_queries(opened, Thumbnail(), labelled(photos, exported))


def test_a_run_of_a_store_rests_on_the_delf_index_beside_the_folder(opened, exported, monkeypatch):
    """With ``geometry-delf``. It was looked for elsewhere, and a new one was not noticed."""
    delf = SimpleNamespace(digest_on_disk=lambda: "ab")
    monkeypatch.setattr(
        runs.verifiers, "delf_beside", lambda path: delf if path == exported.path else None
    )
    assert runs._delf_index(opened, ["geometry-delf"]) == {"delf_index_sha256": "ab"}


def test_an_answer_to_a_search_holds_no_vectors(opened, exported, pictures, monkeypatch):
    """milvus-lite sent them too: 5000 results of 512 numbers were over the limit of an answer, so
    that no larger index in it could be evaluated."""
    sizes = []
    hits = milvus_client._hits
    monkeypatch.setattr(milvus_client, "_hits", lambda a: sizes.append(a.ByteSize()) or hits(a))
    rank_picture(opened, Thumbnail(), picture(pictures, "a.png"), top=5)
    assert sizes
    assert sizes[0] < 50 * len(exported)


def test_an_evaluation_that_ends_early_says_so(exported, opened, pictures, monkeypatch):
    monkeypatch.setattr(stored, "MIN_SHORTLIST", 1)
    monkeypatch.setattr(queries, "MAX_HITS", 5)
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
    own = exported.names.index("a.png")  # a query that is in none of its lists would be noted
    truth = {
        "imlist": list(exported.names),
        "qimlist": ["a.png"],
        "gnd": [{"easy": [3, 4], "hard": [5], "junk": [own], "bbx": None}],
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
    monkeypatch.setenv(milvus_module.STORES, address)
    for place in (address, index.load(address).path):
        text = said("info", place)
        assert f"pictures     {len(exported)}" in text
        assert "checksums    those of the exported index" in text
        assert said("groups", place) == said("groups", out)
        assert said("plot", "evaluation", place, "--out", tmp_path / "a.svg")
    assert "checksums    all match" in said("info", out)
    with pytest.raises(SystemExit):
        main(["index", str(folder), "--method", "delf", "--out", str(out), "--store", address])


@pytest.mark.parametrize(
    "command",
    [
        "ablate STORE",
        "export STORE --store milvus://host/y",
        "bench rerank STORE",
        "bench delf STORE",
        "merge STORE --out x",
        "merge x --out STORE",
        "index town --method delf --codebook STORE",
        "index town --method sir --out STORE",
    ],
)
def test_commands_that_need_a_folder(command, tmp_path, monkeypatch, capsys):
    """They said that there is no index, ended with tracebacks where the folder of a store was
    named, and ``index`` made a folder called milvus:."""
    store = Address("host", 1, "x")
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path))
    monkeypatch.setenv(milvus_module.STORES, str(store))
    for place in (str(store), str(store_folders._root(store) / "town" / "sir-lite0")):
        with pytest.raises(SystemExit):
            main(command.replace("STORE", place).split())
        assert (
            f"{place} is a store, and this needs the folder of an index" in capsys.readouterr().err
        )


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


def test_searches_that_meet_a_new_index_at_once(tmp_path, monkeypatch):
    """One deleted the folder that another was making: a client was told where folders are here."""
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path))
    address = Address("localhost", 1, "town")
    manifests = [{"collection": {"name": "town"}, "checkpoint": {"id": id_}} for id_ in "ab"]
    described = [SimpleNamespace(manifest=one, collection="town_1") for one in manifests]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda one: store_folders.folder_of(address, one), described * 200))


def test_a_folder_of_a_store_that_is_made_anew_while_pages_list_it(tmp_path, monkeypatch):
    """They were given a FileNotFoundError where it was deleted between two steps of the list."""
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path))
    monkeypatch.setenv(milvus_module.STORES, "milvus://localhost:1/town")
    monkeypatch.setattr(store_folders, "_asked", {})
    manifest = {"collection": {"name": "town"}, "checkpoint": {"id": "a"}}
    described = SimpleNamespace(manifest=manifest, collection="town_1")
    monkeypatch.setattr(store_folders, "describe", lambda address: described)
    kept = store_folders.folder_of(Address("localhost", 1, "town"), described)
    glob = Path.glob

    def found(folder, pattern):
        if pattern != "*/*/manifest.json":
            return glob(folder, pattern)
        shutil.rmtree(folder)
        return os.scandir(folder)

    monkeypatch.setattr(Path, "glob", found)
    assert store_folders.all_folders(None, 60) == [kept]
    assert (kept / "manifest.json").is_file()


def test_stores_that_do_not_answer_are_waited_for_together(tmp_path, monkeypatch):
    """Six of them held up each page of everybody for 12 s, once a minute."""
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path))
    monkeypatch.setattr(store_folders, "_asked", {})
    monkeypatch.setenv(milvus_module.STORES, " ".join(f"milvus://host:{n}/x" for n in (1, 2, 3)))
    together = threading.Barrier(3)

    def describe(address):
        together.wait(60)
        raise RetrievalError("asked")

    monkeypatch.setattr(store_folders, "describe", describe)
    errors = []
    assert store_folders.all_folders(errors, 60) == []
    assert [str(error) for error in errors] == ["asked"] * 3
