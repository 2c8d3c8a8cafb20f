import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from attack.indexes import edit, forge
from PIL import Image
from stubs import Grid, Thumbnail, paint, refused

from retrieval import images, index, methods
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError
from retrieval.index import describing, finding, layout, store


@pytest.fixture
def folder(tmp_path):
    """Five pictures of different sizes."""
    root = tmp_path / "my pictures"
    for seed, name in enumerate(("a.png", "b b.png", "ç.png", "sub/d.png", "sub/e 日本.png")):
        paint(root / name, seed, (40 + seed, 30))
    return root


@pytest.fixture
def out(tmp_path):
    return tmp_path / "indexes" / "one"


def build(folder, out, method=None, **options):
    return index.build(open_collection(folder), method or Thumbnail(), out, **options)


def snapshot(path):
    return {str(file): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}


def same(a, b):
    """Two indexes hold the same features for the same pictures."""
    assert a.names == b.names
    np.testing.assert_array_equal(a.sizes, b.sizes)
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name])


# Building and loading


def test_what_is_built_is_what_is_loaded(folder, out):
    method, calls = Thumbnail(), []
    built = build(folder, out, method, progress=lambda *call: calls.append(call))
    loaded = index.load(out)
    same(built, loaded)
    names = ("a.png", "b b.png", "sub/d.png", "sub/e 日本.png", "ç.png")
    assert loaded.names == names
    assert len(loaded) == 5
    assert calls == [(done, 5, name) for done, name in enumerate(names, 1)]
    assert loaded.sizes.tolist() == [[40, 30], [41, 30], [43, 30], [44, 30], [42, 30]]
    assert (loaded.method, loaded.checkpoint, loaded.kind) == ("sir", "stub", "global")
    assert loaded.settings == {"size": 4}
    assert loaded.manifest["collection"]["name"] == "my pictures"
    assert loaded.manifest["pictures"] == 5
    assert loaded.manifest["skipped"] == []
    assert isinstance(loaded.arrays["descriptors"], np.memmap)
    for position, name in enumerate(names):
        with Image.open(folder / name) as picture:
            expected = method.describe(picture)
        np.testing.assert_allclose(loaded.features(position), expected, atol=1e-3)
    assert sorted(path.name for path in out.parent.iterdir()) == ["one"], "nothing beside it"


def test_local_features_come_back(folder, out):
    method = Grid()
    loaded = build(folder, out, method)
    for position, name in enumerate(loaded.names):
        with Image.open(folder / name) as picture:
            expected = method.describe(picture)
        found = loaded.features(position)
        assert len(found) == len(expected) > 0
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)
        np.testing.assert_allclose(found.descriptors, expected.descriptors, atol=0.5 / 127 + 1e-6)
        np.testing.assert_array_equal(found.scales, expected.scales)
        assert found.descriptors.dtype == np.float32


def test_pictures_without_features_among_others(folder, out):
    for name in ("0 first.png", "m.png", "z last.png"):
        Image.new("RGB", (50, 40), "grey").save(folder / name)
    loaded = build(folder, out, Grid())
    assert len(loaded) == 8
    lengths = {name: len(loaded.features(i)) for i, name in enumerate(loaded.names)}
    assert [name for name, length in lengths.items() if length == 0] == [
        "0 first.png", "m.png", "z last.png",
    ]  # fmt: skip
    # ... and when nothing has any.
    for path in list(folder.rglob("*.png")):
        if lengths[path.relative_to(folder).as_posix()]:
            path.unlink()
    blank = build(folder, out.with_name("blank"), Grid())
    assert len(blank) == 3
    assert len(blank.features(1)) == 0


def test_unreadable_pictures_are_listed(folder, out):
    (folder / "0.jpg").write_text("<html></html>")
    (folder / "empty.png").write_bytes(b"")
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:900])
    loaded = build(folder, out)
    assert len(loaded) == 5
    skipped = {entry["name"]: entry["reason"] for entry in loaded.manifest["skipped"]}
    assert skipped.keys() == {"0.jpg", "empty.png", "half.png"}
    assert "zero bytes" in skipped["empty.png"]
    # One of them gets better.
    paint(folder / "half.png", 9)
    method = Thumbnail()
    assert len(build(folder, out, method)) == 6
    assert len(method.described) == 1


def test_no_picture_can_be_read(tmp_path, out):
    (tmp_path / "bad").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "bad" / name).write_text("no picture")
    refused("None of the 2 pictures of bad could be read. The first: a.jpg", build,
            tmp_path / "bad", out)  # fmt: skip
    assert not out.exists()
    assert list(out.parent.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text(folder, out):
    os.rename(folder / "a.png", os.fsencode(folder) + b"/\xff\n.png")
    loaded = build(folder, out)
    assert "\udcff\n.png" in loaded.names
    method = Thumbnail()
    same(build(folder, out, method), loaded)
    assert method.described == []


def test_only_what_changed_is_described_again(folder, out):
    build(folder, out)
    paint(folder / "new.png", 10, (61, 30))
    paint(folder / "a.png", 11, (62, 30))  # other content
    (folder / "b b.png").unlink()
    (folder / "sub" / "d.png").rename(folder / "sub" / "moved.png")  # known, by another name
    method = Thumbnail()
    updated = build(folder, out, method)
    assert sorted(method.described) == [(61, 30), (62, 30)]
    same(updated, build(folder, out.with_name("fresh")))
    assert index.load(out).names == tuple(open_collection(folder).names)
    method = Thumbnail()
    build(folder, out, method)
    assert method.described == []


def test_local_index_is_updated(folder, out):
    build(folder, out, Grid())
    (folder / "a.png").unlink()
    paint(folder / "new.png", 10, (61, 30))
    Image.new("RGB", (50, 40), "grey").save(folder / "blank.png")
    method = Grid()
    updated = build(folder, out, method)
    assert sorted(method.described) == [(50, 40), (61, 30)]
    same(updated, build(folder, out.with_name("fresh"), Grid()))


def test_features_are_taken_from_another_collection(folder, out, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "PRECOMPUTED", tmp_path / "precomputed")
    theirs = build(folder, tmp_path / "precomputed" / "whole" / "stub", Grid())
    part = tmp_path / "part"
    (part / "deep").mkdir(parents=True)
    shutil.copy(folder / "ç.png", part / "deep" / "renamed.png")
    paint(part / "new.png", 77)
    method = Grid()
    found = build(part, out, method, donors=finding.find_same(method))
    assert found.names == ("deep/renamed.png", "new.png")
    assert method.described == [(40, 30)], "only the picture that is nowhere else"
    same(found, build(part, out.with_name("alone"), Grid()))
    np.testing.assert_array_equal(
        found.features(0).descriptors, theirs.features(theirs.positions["ç.png"]).descriptors
    )
    # Other settings, other numbers; and a damaged one is no donor.
    assert finding.find_same(Grid(size=9)) == []
    (tmp_path / "precomputed" / "whole" / "stub" / "scores.npy").write_bytes(b"")
    assert finding.find_same(method) == []


def test_what_is_known_does_not_wait(folder, out):
    """Progress goes on picture by picture, and a batch holds no more than it must."""
    known = [(str(n), "digest", None) for n in range(3)]
    picture = Image.new("RGB", (9, 9))
    new = [(str(n), "digest", picture) for n in range(3, 6)]
    batches = sys.modules["retrieval.index.describing"]._batches(
        iter([*known, new[0], known[0], new[1], new[2]]), 2
    )
    assert list(batches) == [
        [known[0]], [known[1]], [known[2]], [new[0], known[0], new[1]], [new[2]],
    ]  # fmt: skip


@pytest.mark.parametrize("size", [2, 3, 100])
def test_batches_change_nothing(folder, out, size):
    (folder / "broken.png").write_bytes(b"no picture")
    method, given, calls = Thumbnail(), [], []
    method.batch = size
    one_by_one = method.describe_batch
    method.describe_batch = lambda pictures: given.append(len(pictures)) or one_by_one(pictures)
    build(folder, out, method, progress=lambda *call: calls.append(call))
    assert (max(given), sum(given)) == (min(size, 5), 5)
    assert [done for done, *_ in calls] == [1, 2, 3, 4, 5, 6]
    same(index.load(out), build(folder, out.with_name("plain")))


# Stops of every kind

SLOW = """
import sys, time
sys.path[:0] = {path!r}
from stubs import Thumbnail
from test_index import build
class Slow(Thumbnail):
    def describe(self, picture, box=None):
        if len(self.described) == 3:
            print("three are done", flush=True)
            time.sleep(60)
        return super().describe(picture, box)
build({folder!r}, {out!r}, Slow())
"""


def test_kill_9_and_go_on(folder, out):
    here = Path(__file__).parent
    path = [str(here), str(here.parent), str(here.parents[1])]
    script = SLOW.format(path=path, folder=str(folder), out=str(out))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"three are done\n"
            # While it runs, nobody else may write there.
            refused("Another build is writing to", build, folder, out)
        finally:
            process.send_signal(signal.SIGKILL)
    assert not out.exists()
    method = Thumbnail()
    resumed = build(folder, out, method)
    assert len(method.described) == 2, "the finished three are not described again"
    same(resumed, build(folder, out.with_name("fresh")))


class Stopped(Exception):
    pass


class Stopping(Thumbnail):
    """Stops before its third picture."""

    def describe(self, picture, box=None):
        if len(self.described) == 2:
            raise Stopped
        return super().describe(picture, box)


@pytest.fixture
def unfinished(folder, out):
    """The working folder of a build that was stopped after two pictures."""
    with pytest.raises(Stopped):
        build(folder, out, Stopping())
    assert not out.exists()
    (work,) = out.parent.iterdir()
    return work


def append(path, data):
    with open(path, "ab") as file:
        file.write(data)


def cut(path, count):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - count)


def line(**changes):
    """A line of a journal that says nothing of what it should, for no bytes at all."""
    return json.dumps({"name": "x.png", "bytes": 0, "crc32": 0} | changes).encode() + b"\n"


def change_last(work, cut=0, **changes):
    """Change what the last line of a journal says, or its features, with a checksum that fits."""
    *before, last = (work / "journal.jsonl").read_bytes().splitlines(keepends=True)
    entry = json.loads(last)
    data = (work / "features.bin").read_bytes()
    data = data[: len(data) - cut]
    size = entry["bytes"] - cut
    entry |= {"bytes": size, "crc32": zlib.crc32(data[len(data) - size :])} | changes
    (work / "journal.jsonl").write_bytes(b"".join(before) + json.dumps(entry).encode() + b"\n")
    (work / "features.bin").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda work: None, 3),
        (lambda work: change_last(work), 3),
        (lambda work: change_last(work, width="wide"), 4),
        (lambda work: change_last(work, height=0), 4),
        (lambda work: change_last(work, rows=None), 4),
        (lambda work: change_last(work, sha256=5), 4),
        (lambda work: change_last(work, reason=5), 4),
        (lambda work: change_last(work, cut=1), 4),
        (lambda work: change_last(work, cut=2), 4),
        (lambda work: append(work / "journal.jsonl", b'{"name": "sub/d.p'), 3),
        (lambda work: append(work / "journal.jsonl", b"\xff\0garbage\n[]\n"), 3),
        (lambda work: append(work / "journal.jsonl", b"[" * 100_000 + b"\n"), 3),
        (lambda work: append(work / "journal.jsonl", line(bytes=10**15)), 3),
        (lambda work: append(work / "journal.jsonl", line(bytes=10**40)), 3),
        (lambda work: append(work / "journal.jsonl", line(name=[])), 3),
        (lambda work: append(work / "journal.jsonl", line()), 3),
        (lambda work: append(work / "features.bin", b"half a feature"), 3),
        (lambda work: cut(work / "journal.jsonl", 5), 4),
        (lambda work: cut(work / "features.bin", 5), 4),
        (lambda work: (work / "features.bin").write_bytes(b"x" * 500), 5),
        (lambda work: (work / "features.bin").unlink(), 5),
        (lambda work: (work / "journal.jsonl").unlink(), 5),
        (lambda work: (work / "identity.json").write_text("{"), 5),
        (lambda work: (work / "identity.json").write_bytes(b"\xff"), 5),
    ],
)
def test_a_damaged_journal_costs_no_more_than_its_end(folder, out, unfinished, damage, again):
    damage(unfinished)
    method = Thumbnail()
    resumed = build(folder, out, method)
    assert len(method.described) == again
    same(resumed, build(folder, out.with_name("fresh")))
    assert sorted(path.name for path in out.parent.iterdir()) == ["fresh", "one"]


@pytest.mark.parametrize("name", ["journal.jsonl", "features.bin"])
def test_stopped_and_damaged_twice(folder, out, unfinished, name):
    """What is written after the damage must be found again."""
    append(unfinished / name, b'{"name": "half a line')
    with pytest.raises(Stopped):
        build(folder, out, Stopping())
    append(unfinished / name, b"more garbage\n")
    method = Thumbnail()
    resumed = build(folder, out, method)
    assert len(method.described) == 1
    same(resumed, build(folder, out.with_name("fresh")))


def test_an_unfinished_build_with_other_settings_is_neither_used_nor_lost(folder, out, unfinished):
    refused("unfinished build with another method or other settings",
            build, folder, out, Thumbnail(size=8))  # fmt: skip
    method = Thumbnail()
    build(folder, out, method)
    assert len(method.described) == 3, "two are kept"


def test_a_build_that_was_stopped_before_its_first_picture_is_in_nobodys_way(folder, out):
    class Stopping(Thumbnail):
        def describe(self, picture, box=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(folder, out, Stopping())
    assert len(build(folder, out, Thumbnail(size=8))) == 5


def test_a_stop_between_the_two_renames(folder, out):
    before = build(folder, out)
    work = out.with_name("one.building")
    work.mkdir()
    (work / "identity.json").write_text("")
    out.rename(work / "index.old")
    method = Thumbnail()
    same(build(folder, out, method), before)
    assert method.described == []


def test_two_builds_at_once(folder, out):
    class Greedy(Thumbnail):
        def describe(self, picture, box=None):
            refused("Another build is writing to .*one", build, folder, out)
            refused("Another build", build, folder, out.parent / ".." / out.parent.name / "one")
            build(folder, out.with_name("another"))
            return super().describe(picture, box)

    assert len(build(folder, out, Greedy())) == 5


def test_two_builds_by_other_users_or_in_containers(folder, out, tmp_path):
    """What they have in common is the place, not a temporary folder or a name."""

    class Meanwhile(Thumbnail):
        def describe(self, picture, box=None):
            code = (
                f"import sys; sys.path[:0] = {sys.path!r}\n"
                "from stubs import Thumbnail\n"
                "from retrieval import index\n"
                "from retrieval.collections import open_collection\n"
                f"index.build(open_collection({str(folder)!r}), Thumbnail(), {str(out)!r})"
            )
            run = subprocess.run(
                [sys.executable, "-c", code],
                env=os.environ | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
            )
            assert "Another build is writing to" in run.stderr
            return super().describe(picture, box)

    (folder / "sub" / "d.png").rename(folder.parent / "d.png")
    assert len(build(folder, out, Meanwhile())) == 4
    assert sorted(path.name for path in out.parent.iterdir()) == ["one"]


def test_a_build_that_is_stopped_while_it_cleans_up(folder, out, monkeypatch):
    """What was left was in the way of the next one."""
    build(folder, out)
    unlink = os.unlink
    for stop in range(10):
        deleted = []

        def stopping(path, *, stop=stop, deleted=deleted, **options):
            if options.get("dir_fd") is not None or "building" in str(path):
                if len(deleted) == stop:
                    raise KeyboardInterrupt
                deleted.append(path)
            unlink(path, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", stopping)
            try:
                build(folder, out)
                break
            except KeyboardInterrupt:
                pass
        build(folder, out)
        assert [path.name for path in out.parent.iterdir()] == ["one"]
    assert len(deleted) == 6  # the new index, in three files, and the journal, in three


def test_a_reader_between_the_two_renames(folder, out):
    before = build(folder, out)
    old = out.with_name("one.building") / "index.old"
    old.parent.mkdir()
    out.rename(old)
    timer = threading.Timer(0.2, old.rename, [out])
    timer.start()
    same(index.load(out), before)
    timer.join()


def test_an_index_that_is_replaced_while_it_is_read(folder, out, monkeypatch):
    """Its checksums were those of the old one, its vectors those of the new."""
    before = build(folder, out)
    paint(folder / "a.png", 77)
    new = build(folder, out.with_name("two"))
    opened = store._open_array

    def replaced(path):
        if new.path.exists():
            shutil.rmtree(out)
            new.path.rename(out)
        return opened(path)

    monkeypatch.setattr(store, "_open_array", replaced)
    found = index.load(out)
    same(found, new)
    assert found.manifest == new.manifest != before.manifest


def test_an_index_that_is_always_replaced(folder, out, monkeypatch):
    """The last try was believed, whatever it had read."""
    build(folder, out)
    monkeypatch.setattr(store, "version_of", lambda path: object())
    refused("is replaced all the time", index.load, out)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits to set")
@pytest.mark.parametrize("what", [index.load, store.read_manifest])
def test_files_that_the_system_does_not_open(folder, out, what):
    """The error is a sentence, and does not advise to delete an index that is whole."""
    import resource

    build(folder, out)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(RetrievalError) as caught:
            what(out)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert str(caught.value) == f"{out / 'manifest.json'} cannot be read: Too many open files."


def test_a_file_that_vanishes_while_an_index_is_read(folder, out, monkeypatch):
    build(folder, out)
    digest = store.files.digest

    def vanished(path):
        path.unlink()
        return digest(path)

    monkeypatch.setattr(store.files, "digest", vanished)
    refused("cannot be read: No such file", index.load, out)


def test_a_reader_while_builds_come_and_go(tmp_path):
    """A folder that goes while it is looked through is no traceback, and no 500 of the service."""
    going = True

    def come_and_go():
        while going:
            for number in range(20):
                (tmp_path / f"one.{number}").mkdir()
            for number in range(20):
                (tmp_path / f"one.{number}").rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(300):
            with pytest.raises(RetrievalError, match="no manifest"):
                index.load(tmp_path / "one")
    finally:
        going = False
        thread.join()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 kB; ``small_disk.grow()`` makes it large."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    grow = ["mount", "-o", "remount,size=50m", str(path)]
    yield SimpleNamespace(path=path, grow=lambda: subprocess.run(grow, check=True))
    # Lazily: loaded indexes may still be mapped.
    subprocess.run(["umount", "-l", str(path)], check=True)


class Long(Thumbnail):
    """6 kB of descriptor a picture; ``width`` says of how many numbers."""

    width = 3000

    def describe(self, picture, box=None):
        vector = np.resize(super().describe(picture, box), self.width)
        return vector / np.linalg.norm(vector)


class Longer(Long):
    """What fits as a journal, but not a second time as an index."""

    width = 1200


@pytest.mark.parametrize("kind", [Long, Longer])
def test_full_disk(folder, small_disk, kind):
    for seed in range(20, 23):
        paint(folder / f"{seed}.png", seed)
    out = small_disk.path / "one"
    first = kind()
    refused("The disk is full. Finished pictures are kept in .*one.building: free some space",
            build, folder, out, first)  # fmt: skip
    assert not out.exists()
    refused("The disk is full", build, folder, out, kind())
    small_disk.grow()
    second = kind()
    resumed = build(folder, out, second)
    assert len(resumed) == 8
    # One more than finished may have been described in vain.
    assert len(first.described) - 1 <= 8 - len(second.described) <= len(first.described)
    assert 8 - len(second.described) >= 3
    same(resumed, build(folder, out.with_name("fresh"), kind()))


def test_a_full_disk_keeps_the_former_index(folder, small_disk):
    out = small_disk.path / "one"
    method = Long()
    for name in ("b b.png", "ç.png", "sub/d.png", "sub/e 日本.png"):
        (folder / name).rename(folder / f"{name}.away")
    build(folder, out, method)
    before = snapshot(out)
    for path in folder.rglob("*.away"):
        path.rename(path.with_suffix(""))
    refused("The disk is full", build, folder, out, Long())
    assert snapshot(out) == before
    small_disk.grow()
    method = Long()
    assert len(build(folder, out, method)) == 5
    assert len(method.described) < 4


@pytest.mark.parametrize("where", ["descriptors", "scores"])
@pytest.mark.parametrize("kind", [Thumbnail, Grid])
def test_features_that_are_no_numbers_are_never_stored(folder, out, kind, where):
    class Broken(kind):
        def describe(self, picture, box=None):
            features = super().describe(picture, box)
            array = features if kind is Thumbnail else getattr(features, where)
            array[:1] = np.nan
            return features

    refused("features of a.png are not numbers", build, folder, out, Broken())
    assert not out.exists()


def test_descriptors_that_no_index_could_hold_are_refused_at_once(folder, out):
    """After hours, when all were there, the build ended without an index."""

    class Wide(Grid):
        def describe(self, picture, box=None):
            found = super().describe(picture, box)
            return replace(found, descriptors=np.eye(len(found), 65, dtype=np.float32))

    method = Wide()
    refused("may have 64 dimensions, not 65", build, folder, out, method)
    assert len(method.described) == 1

    class Unequal(Thumbnail):
        def describe(self, picture, box=None):
            return super().describe(picture, box)[: 48 - len(self.described)]

    refused(
        "have 46 numbers, those of other pictures 47", build, folder, out.with_name("b"), Unequal()
    )


def test_files_that_are_no_pictures_to_read(folder, out, monkeypatch):
    """A pipe would never end, and a huge file fill the memory; both are left out."""
    os.mkfifo(folder / "pipe.png")
    names = ("a.png", "b b.png", "pipe.png")
    collection = replace(open_collection(folder), names=names)
    monkeypatch.setattr(images, "MAX_BYTES", (folder / "a.png").stat().st_size)
    with open(folder / "b b.png", "ab") as file:
        file.truncate(10**9)
    built = index.build(collection, Thumbnail(), out)
    reasons = {entry["name"]: entry["reason"] for entry in built.manifest["skipped"]}
    assert built.names == ("a.png",)
    assert "it is a pipe" in reasons["pipe.png"]
    assert "larger than" in reasons["b b.png"]


# Places that are somebody else's


def test_places_that_are_refused(folder, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious.txt").write_text("x")
    app = tmp_path / "app"
    app.mkdir()
    (app / "manifest.json").write_text('{"name": "a web app"}')
    file = tmp_path / "file"
    file.write_text("x")
    before = snapshot(tmp_path)
    refused("foreign exists and is not an index; choose another place", build, folder, foreign)
    refused("is not an index: its manifest.json is something else's", build, folder, app)
    refused("file exists and is not an index", build, folder, file)
    refused("cannot be written", build, folder, file / "below")
    refused("cannot be written .*too long", build, folder, tmp_path / ("long" * 80))
    refused("my pictures exists and is not an index", build, folder, folder)
    refused("cannot take the place of /; name a folder below it", build, folder, "/")
    assert snapshot(tmp_path) == before


def test_neighbours_are_left_alone(folder, out):
    build(folder, out)
    for name in ("one.old", "one.bak", "one.new", "one.tmp"):
        shutil.copytree(out, out.with_name(name))
    before = {path: data for path, data in snapshot(out.parent).items() if "/one." in path}
    paint(folder / "new.png", 10)
    build(folder, out)
    after = snapshot(out.parent)
    assert {path: after[path] for path in before} == before
    # The one name that a build needs for itself, used by somebody else.
    work = out.with_name("one.building")
    work.mkdir()
    (work / "precious.txt").write_text("x")
    refused("one.building is in the way", build, folder, out)
    assert (work / "precious.txt").read_text() == "x"


def test_an_empty_folder_and_a_link_are_fine(folder, out, tmp_path, monkeypatch):
    out.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(out)
    build(folder, link)
    method = Thumbnail()
    assert len(build(folder, link, method)) == len(build(folder, out, method)) == 5
    assert method.described == []
    assert link.is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert len(build(folder, ".")) == 5


# Damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A global and a local index of the same pictures."""
    root = tmp_path_factory.mktemp("whole")
    for seed in range(4):
        paint(root / "pictures" / f"{seed}.png", seed)
    for method in (Thumbnail(), Grid()):
        build(root / "pictures", root / method.kind, method)
    return root


@pytest.fixture
def damaged(whole, tmp_path):
    """``damaged(kind)``: the folder of a copy to be damaged."""

    def copy(kind):
        shutil.copytree(whole / kind, tmp_path / kind)
        index.load(tmp_path / kind)
        return tmp_path / kind

    return copy


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


LOCAL_FILES = ("images.json", *(f"{name}.npy" for name in layout.ARRAYS["local"]))


@pytest.mark.parametrize("name", LOCAL_FILES)
def test_every_file_is_checked(damaged, name):
    path = damaged("local")
    assert {file.name for file in path.iterdir()} == {"manifest.json", *LOCAL_FILES}
    data = (path / name).read_bytes()
    flip(path / name, -1)
    refused(f"{name} in the index .* does not have the checksum", index.load, path)
    (path / name).write_bytes(data[:-3])
    refused(f"{name} in the index .* bytes instead of {len(data)}", index.load, path)
    (path / name).write_bytes(data + b"\0")
    refused(f"{name} in the index .* bytes instead of", index.load, path)
    (path / name).unlink()
    refused(f"lacks its file {name}; delete it and index the collection again", index.load, path)
    (path / name).mkdir()
    refused(f"lacks its file {name}", index.load, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format=99), "has format version 99, this program reads"),
        (lambda m: m.update(format="1"), "has format version"),
        (lambda m: m.update(format=[[1] * 500]), "has format version"),
        (lambda m: m.pop("format") and None, "something else's"),
        (lambda m: m.update(method="delf"), "edited or damaged"),
        (lambda m: m.update(kind="local"), "edited or damaged"),
        (lambda m: m.update(kind=["global"]), "edited or damaged"),
        (lambda m: m["settings"].update(size=320), "edited or damaged"),
        (lambda m: m.update(settings=[]), "edited or damaged"),
        (lambda m: m["checkpoint"].update(id="other"), "edited or damaged"),
        (lambda m: m["checkpoint"].update(sha256="cd" * 32), "edited or damaged"),
        (lambda m: m["collection"].update(name="other"), "edited or damaged"),
        (lambda m: m.update(pictures=3), "edited or damaged"),
        (lambda m: m.update(pictures="4"), "edited or damaged"),
        (lambda m: m.update(skipped=[{"name": "x", "reason": "y"}]), "edited or damaged"),
        (lambda m: m.pop("made") and None, "edited or damaged"),
        (lambda m: m.pop("sha256") and None, "edited or damaged"),
        (lambda m: m["files"].pop("images.json") and None, "edited or damaged"),
        (lambda m: m["files"].update({"../../etc/passwd": {}}), "edited or damaged"),
        (lambda m: [], "something else's"),
        (lambda m: "text", "something else's"),
        (lambda m: 5, "something else's"),
    ],
)
def test_an_edited_manifest_is_noticed(damaged, change, words):
    path = damaged("global")
    edit(path / "manifest.json", change)
    refused(words, index.load, path)


@pytest.mark.parametrize(
    "text", ["", "{", "not JSON", "[" * 100_000, '{"format": ' * 5000, "\ufeff{}", "NaN", "null"]
)
@pytest.mark.parametrize("name", ["manifest.json", "images.json"])
def test_a_manifest_that_is_none(damaged, name, text):
    path = damaged("global")
    (path / name).write_text(text, "utf-8")
    if name == "images.json":
        forge(path)
    refused("index", index.load, path)
    (path / name).write_bytes(b"\xff\xfe\0\1")
    refused("index", index.load, path)


def replace_array(name, change):
    def damage(path):
        array = np.load(path / f"{name}.npy")
        array = array.copy()
        new = change(array)
        np.save(path / f"{name}.npy", array if new is None else new)

    return damage


def put(place, value):
    return lambda array: array.__setitem__(place, value)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("global", replace_array("descriptors", put((2, 1), np.nan))),
        ("global", replace_array("descriptors", put((0, 0), np.inf))),
        ("global", replace_array("descriptors", lambda a: a[:-1])),
        ("global", replace_array("descriptors", lambda a: a[:, :0])),
        ("global", replace_array("descriptors", lambda a: a.astype(np.float64))),
        ("global", replace_array("descriptors", lambda a: a.ravel())),
        ("global", replace_array("descriptors", lambda a: a[0, 0])),
        ("local", replace_array("offsets", lambda a: a[[0, 2, 1, 3, 4]])),
        ("local", replace_array("offsets", put(-1, 10**6))),
        ("local", replace_array("offsets", put(0, -1))),
        ("local", replace_array("offsets", lambda a: a[:-1])),
        ("local", replace_array("offsets", lambda a: a[:0])),
        ("local", replace_array("keypoints", put((0, 0), np.nan))),
        ("local", replace_array("keypoints", lambda a: a[:, :1])),
        ("local", replace_array("keypoints", lambda a: a[1:])),
        ("local", replace_array("scores", put(0, np.inf))),
        ("local", replace_array("scales", lambda a: a[:-1])),
        ("local", replace_array("descriptors", lambda a: a[:-1])),
        ("local", replace_array("codebook", put((0, 0), np.nan))),
        ("local", replace_array("codebook", lambda a: a[:-1])),
        ("local", replace_array("codebook", lambda a: a[:, :-1])),
        ("local", replace_array("word_starts", lambda a: a[::-1])),
        ("local", replace_array("word_starts", put(-1, 10**6))),
        ("local", replace_array("word_pictures", put(0, 4))),
        ("local", replace_array("word_pictures", put(0, -1))),
        ("local", replace_array("word_signs", lambda a: a[:-1])),
        ("local", replace_array("word_counts", lambda a: a[:-1])),
        ("global", lambda path: edit(path / "images.json", lambda i: i[:-1])),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(name="1.png"))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(name=7))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(width=-1))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(width=10**30))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(height="9"))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].pop("sha256") and None)),
        ("global", lambda path: edit(path / "images.json", lambda i: {"images": i})),
        ("global", lambda path: edit(path / "images.json", lambda i: [])),
    ],
)
def test_contents_that_contradict_one_another(damaged, kind, damage):
    path = damaged(kind)
    damage(path)
    refused("does not have the checksum|instead of", index.load, path)
    forge(path)
    refused("contradict its manifest", index.load, path)


class Mark:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_arrays_that_are_none(damaged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = damaged("global")
    file = path / "descriptors.npy"
    np.save(file, np.array([[Mark()]], dtype=object), allow_pickle=True)
    forge(path)
    refused("descriptors.npy is not a plain numpy array", index.load, path)
    assert not Path("executed").exists()
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (99999999999, 99999999), }"
    huge = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    archive = path / "x.npz"
    np.savez(archive, a=np.zeros(3))
    for data in (b"", b"junk", b"\x93NUMPY\x01\x00", huge, archive.read_bytes()):
        file.write_bytes(data)
        forge(path)
        refused("descriptors.npy is not a plain numpy array", index.load, path)


def test_a_damaged_index_is_not_built_upon(folder, out):
    build(folder, out)
    flip(out / "descriptors.npy", -1)
    before = snapshot(out)
    refused("does not have the checksum .*delete it and index", build, folder, out)
    assert snapshot(out) == before


def test_no_index_at_all(tmp_path):
    refused("There is no index in .*nowhere: it has no manifest.json; .*makes one", index.load,
            tmp_path / "nowhere")  # fmt: skip
    refused("There is no index in", index.load, tmp_path)


# What belongs together


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": SimpleNamespace(id="stub", sha256="cd" * 32)},
         r"checkpoint stub \(abababab\), not stub \(cdcdcdcd\)"),
        ({"checkpoint": SimpleNamespace(id="new", sha256="ab" * 32)}, "checkpoint stub .* not new"),
        ({"settings": {"size": 5}}, "made with size 4, not size 5;"),
        ({"settings": {"size": 4, "long": "x" * 500, "new": 1}},
         "made with long None, new None, not long x+…, new 1;"),
        ({"settings": {}}, "made with size 4, not size None;"),
        ({"name": "cnn-irwnha"}, "method sir, not cnn-irwnha"),
    ],
)  # fmt: skip
def test_another_method_is_refused(folder, out, changes, words):
    loaded = build(folder, out)
    loaded.check_method(Thumbnail())
    other = Thumbnail()
    for name, value in changes.items():
        setattr(other, name, value)
    refused(words, loaded.check_method, other)
    before = snapshot(out)
    refused(words, build, folder, out, other)
    assert snapshot(out) == before
    assert other.described == []


def test_a_setting_that_is_newer_than_the_index_is_at_its_default_in_it(folder, out):
    loaded = build(folder, out)
    newer = Thumbnail()
    newer.defaults = {"size": 8, "power": 1.0}
    newer.settings = {"size": 4, "power": 1.0}
    loaded.check_method(newer)
    newer.settings = {"size": 4, "power": 0.5}
    refused(r"made with power 1.0, not power 0.5;", loaded.check_method, newer)


def test_find(tmp_path, folder):
    root = tmp_path / "precomputed"
    assert index.find("town", root) == {}
    for method, name in ((Grid(), "a"), (Thumbnail(), "b")):
        build(folder, root / "town" / name, method)
    for name, text in {
        "c": "", "d": "[]", "e": "[" * 100_000, "f": '{"method": ["sir"], "checkpoint": {"id": 1}}',
        "g": '{"method": "new", "checkpoint": {"id": "x"}}', "h": '{"method": "sir"}',
    }.items():  # fmt: skip
        (root / "town" / name).mkdir()
        (root / "town" / name / "manifest.json").write_text(text)
    # In the order of the methods, whatever the folders are called.
    found = index.find("town", root)
    assert list(found) == ["sir", "delf"]
    assert found == {"sir": root / "town" / "b", "delf": root / "town" / "a"}
    # The default checkpoint wins.
    default = Thumbnail()
    default.checkpoint = SimpleNamespace(id=methods.METHODS["sir"].default, sha256="ef" * 32)
    build(folder, root / "town" / "a default", default)
    assert index.find("town", root)["sir"] == root / "town" / "a default"
    assert index.find("elsewhere", root) == {}


def test_what_lies_beside_an_index_stays_where_nothing_has_changed(folder, out):
    """An evaluation, or what each step is worth, may be the work of hours."""
    before = build(folder, out)
    (out / "evaluation.json").write_text("{}")
    again = build(folder, out)
    assert again.manifest == before.manifest
    assert (out / "evaluation.json").is_file()
    paint(folder / "new.png", 10)
    assert len(build(folder, out)) == 6
    assert not (out / "evaluation.json").exists()
    assert sorted(path.name for path in out.parent.iterdir()) == ["one"]


@pytest.mark.parametrize("name", ["journal.jsonl", "features.bin", "index", "index.old"])
def test_an_unfinished_build_of_links(folder, out, tmp_path, name):
    """A working folder may come with a stranger's index: nothing is written through its links."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    work = out.with_name("one.building")
    work.mkdir(parents=True)
    (work / "identity.json").write_text(json.dumps(layout.identity(Thumbnail())))
    (work / name).symlink_to(victim)
    refused("holds links or devices", build, folder, out)
    (work / name).unlink()
    os.mkfifo(work / name)
    refused("holds links or devices", build, folder, out)
    assert victim.read_text() == "precious"


def test_nothing_is_kept_of_pictures_that_cannot_be_read():
    """Each file of more than 200 MB stayed, 200 MB of it, until Python looked for circles."""
    kept = []

    def read_bytes(name):
        file = Grid()
        kept.append(weakref.ref(file))
        raise images.PictureError(f"{name} is too large.")

    collection = SimpleNamespace(read_bytes=read_bytes)
    known = describing.Known({}, ())
    gc.disable()
    try:
        (found,) = describing.describe(collection, Thumbnail(), ["a.jpg"], known, 1000)
        assert found.outcome == "a.jpg is too large."
        assert kept[0]() is None
    finally:
        gc.enable()
