"""Exports to Milvus: run twice, replaced, killed at each of their calls, or their server killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from milvus_server import Server, only_pauses_take_time
from store_helpers import (
    ROOT,
    cli,
    collections_of,
    content,
    labelled,
    picture,
    same_ranking,
    wanted,
)
from stubs import Thumbnail, paint

from retrieval import index
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError
from retrieval.index import export as export_module
from retrieval.index import finding, loading, milvus_client, store_folders
from retrieval.index import milvus as milvus_module
from retrieval.index.export import export, landmarks
from retrieval.index.milvus import AbsentError, Address, AwayError
from retrieval.ranking.search import rank_picture


def test_an_export_done_twice_writes_once(milvus, exported, address, metadata):
    seen = []
    assert export(exported, address, metadata, lambda *step: seen.append(step)) == 0
    assert seen[-1] == (len(exported), len(exported), exported.names[-1])
    assert content(address) == wanted(exported)
    assert len(collections_of(milvus, "pictures")) == 1


def test_a_store_that_does_not_say_how_many_rows_it_has(monkeypatch):
    """A table without rows, or one that does not decode, ended in a traceback."""
    pytest.importorskip("pymilvus")
    wrong = milvus_client.library().exceptions.ParamError(message="no rows")

    class Undecoded:
        def __getitem__(self, row):
            raise wrong

    for answer in ([], [{}], [{"count(*)": "x"}], Undecoded()):
        asked = SimpleNamespace(query=lambda *args, answer=answer, **options: answer)
        monkeypatch.setattr(milvus_client, "connected", lambda *args, asked=asked: asked)
        with pytest.raises(RetrievalError, match="does not say how many rows it has"):
            export_module._count(Address("host", 1, "x"), "x")


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
    with pytest.raises(RetrievalError, match="was replaced; search again"):
        rank_picture(before, Thumbnail(), picture(folder, "new.png"), top=1)
    kept = json.loads((before.path.parents[1] / "more/stub/manifest.json").read_text())
    assert kept["pictures"] == len(exported) + 1


def test_an_index_of_others_is_not_replaced(milvus, exported, pictures, tmp_path, monkeypatch):
    """It was dropped without a word, and its folder may be gone."""
    address = milvus.address("taken")
    folder = tmp_path / "others"
    for seed, name in enumerate(("x.png", "y.png")):
        paint(folder / name, 100 + seed)
    others = index.build(open_collection(folder), Thumbnail(), tmp_path / "index")
    export(exported, address)
    before = collections_of(milvus, "taken")
    with pytest.raises(RetrievalError, match="is an index of other pictures: it has none of these"):
        export(others, address)
    monkeypatch.setitem(others.manifest, "method", "cnn-irwnha")
    with pytest.raises(RetrievalError, match="is an index of sir, not of cnn-irwnha"):
        export(others, address)
    assert collections_of(milvus, "taken") == before
    assert content(address) == wanted(exported)
    # Under other names they are the same pictures.
    shutil.copytree(pictures, tmp_path / "sorted" / "2025")
    moved = index.build(open_collection(tmp_path / "sorted"), Thumbnail(), tmp_path / "moved")
    assert export(moved, address) == len(moved)


def test_what_the_server_has_not_loaded_is_exported_again(milvus, exported):
    """Its sentence said "try again", which did not help."""
    address = milvus.address("released")
    export(exported, address)
    (name,) = collections_of(milvus, "released")
    milvus_module.call(address, lambda c, t: c.release_collection(name, timeout=t), 10)
    assert export(exported, address) == 0


def test_nothing_is_replaced_where_the_store_does_not_say_what_it_has(
    milvus, exported, monkeypatch
):
    address = milvus.address("silent")
    export(exported, address)
    before = collections_of(milvus, "silent")
    away = AwayError(f"The store {address} does not answer.")
    monkeypatch.setattr(
        export_module.store_description, "describe", lambda *_: (_ for _ in ()).throw(away)
    )
    with pytest.raises(AwayError):
        export(exported, address)
    assert collections_of(milvus, "silent") == before


def test_the_same_index_with_other_metadata_is_opened_anew(milvus, exported, pictures, tmp_path):
    """The app and the service said "was replaced; search again" until they were started anew."""
    address = milvus.address("metadata")
    export(exported, address)
    before = index.load(str(address))
    version, kept = loading.version_of(before.path), before.path / "evaluation.json"
    kept.write_text("{}")
    index.load(str(address))
    assert loading.version_of(before.path) == version
    export(exported, address, {"a.png": {"colour": "red"}})
    with pytest.raises(RetrievalError, match="was replaced; search again"):
        rank_picture(before, Thumbnail(), picture(pictures, "a.png"), top=1)
    assert loading.version_of(before.path) != version
    assert kept.is_file()
    red = rank_picture(
        index.load(str(address)), Thumbnail(), picture(pictures, "06.png"), where='colour == "red"'
    )
    assert red.names == ("a.png",)


def test_a_new_index_is_learned_of_without_a_search(milvus, exported, monkeypatch, tmp_path):
    """Whoever saw an evaluation or a search that was kept saw those of the former one for ever."""
    address = milvus.address("learned")
    export(exported, address)
    monkeypatch.setenv(milvus_module.STORES, str(address))
    (folder,) = finding.in_stores(patience=60)
    version = loading.version_of(folder)
    export(exported, address, {"a.png": {"colour": "red"}})
    finding.in_stores()
    assert loading.version_of(folder) == version
    monkeypatch.setattr(store_folders, "PAUSE", 0)
    for _ in range(600):
        assert finding.in_stores() == [folder]
        if loading.version_of(folder) != version:
            break
        time.sleep(0.05)
    assert loading.version_of(folder) != version


def test_two_exports_at_once_lose_nothing(milvus, exported, pictures, tmp_path, monkeypatch):
    """Each dropped what the other had put there, and said that all was well; nothing was left."""
    address = milvus.address("both")
    folder = tmp_path / "more"
    shutil.copytree(pictures, folder)
    paint(folder / "new.png", 77)
    other = index.build(open_collection(folder), Thumbnail(), tmp_path / "other")
    drop_others = export_module._drop_others

    def after_the_other(*args):
        monkeypatch.setattr(export_module, "_drop_others", drop_others)
        export(other, address)
        drop_others(*args)

    monkeypatch.setattr(export_module, "_drop_others", after_the_other)
    with pytest.raises(RetrievalError, match=r"Another export .* came in between"):
        export(exported, address)
    assert content(address) == wanted(other)
    assert len(collections_of(milvus, "both")) == 1


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
    monkeypatch.setattr(export_module, "MAX_ROWS", 10)
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
    monkeypatch.setattr(export_module, "MAX_ROWS", 10)
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
        "export.MAX_ROWS = 10\n"
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
    monkeypatch.setattr(export_module, "MAX_ROWS", 10)
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
            patch.setattr(milvus_module, "PATIENCE", 0.5)
            only_pauses_take_time(patch)
            with pytest.raises(AwayError, match="cannot be reached: check that it runs"):
                rank_picture(opened, Thumbnail(), picture(pictures, "a.png"))
        threading.Timer(0.3, server.start).start()
        with monkeypatch.context() as patch:
            patch.setattr(milvus_module, "PATIENCE", 60)  # a busy machine is slow to start it
            found = rank_picture(opened, Thumbnail(), picture(pictures, "a.png"))
        same_ranking(rank_picture(exported, Thumbnail(), picture(pictures, "a.png")), found)
        server.send(signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(milvus_module, "PATIENCE", 0.5)
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
    monkeypatch.setattr(export_module, "MAX_ROWS", 10)
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


def test_a_store_whose_disk_is_full(milvus, exported, monkeypatch):
    """milvus-lite kept a part of a collection under each name, so no later export was taken."""
    real, tried = milvus_client.connected, []

    def create(name, **_):
        tried.append(name)
        raise milvus_client.library().MilvusException(1, "[Errno 28] No space left on device")

    def full(*args):
        client = SimpleNamespace(create_collection=create)
        for name in ("has_collection", "create_schema", "describe_collection"):
            setattr(client, name, getattr(real(*args), name))
        return client

    monkeypatch.setattr(milvus_client, "connected", full)
    with pytest.raises(RetrievalError, match=r"refuses: .*No space left on device"):
        export(exported, milvus.address("full"))
    assert len(tried) == 1


def test_a_skipped_file_whose_name_is_no_text(milvus, pictures, tmp_path):
    """The export was refused with a sentence about a codec."""
    shutil.copytree(pictures, tmp_path / "named")
    (tmp_path / "named" / os.fsdecode(b"\xff.png")).write_bytes(b"no picture")
    built = index.build(open_collection(tmp_path / "named"), Thumbnail(), tmp_path / "index")
    address = milvus.address("no_text")
    export(built, address)
    assert index.load(str(address)).manifest == built.manifest


def test_landmarks_come_from_the_labels(pictures, exported):
    collection = labelled(pictures, exported, 2)
    names = exported.names
    assert landmarks(collection) == {
        names[0]: {"landmark": "landmark 0"},
        names[9]: {"landmark": "landmark 0"},
        names[1]: {"landmark": "landmark 1"},
        names[10]: {"landmark": "landmark 1"},
    }
