"""Builds that are killed, stopped, run twice at once or meet a full disk, and their readers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zlib
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from index_folders import build, same, snapshot
from stubs import Thumbnail, paint, refused

from retrieval import images, index
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.index import builder, checks, journal, layout, loading

SLOW = """
import sys, time
sys.path[:0] = {path!r}
from stubs import Thumbnail
from index_folders import build
class Slow(Thumbnail):
    def describe(self, picture, box=None):
        if len(self.described) == 3:
            print("three are done", flush=True)
            time.sleep(60)
        return super().describe(picture, box)
build({folder!r}, {out!r}, Slow())
"""


def test_kill_9_and_go_on(photos, out):
    here = Path(__file__).parent
    path = [str(here), str(here.parent), str(here.parents[1])]
    script = SLOW.format(path=path, folder=str(photos), out=str(out))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"three are done\n"
            # While it runs, nobody else may write there.
            refused("Another build is writing to", build, photos, out)
        finally:
            process.send_signal(signal.SIGKILL)
    assert not out.exists()
    method = Thumbnail()
    resumed = build(photos, out, method)
    assert len(method.described) == 2, "the finished three are not described again"
    same(resumed, build(photos, out.with_name("fresh")))


class Vanishing(Thumbnail):
    """Another place takes the folder of the pictures before the second one is described."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def describe(self, picture, box=None):
        if len(self.described) == 1 and self.folder.exists():
            self.folder.rename(self.folder.with_name("elsewhere"))
        return super().describe(picture, box)


def test_pictures_that_go_away_during_an_update(photos, out):
    before = snapshot(build(photos, out).path)
    for number in range(6):
        paint(photos / f"0{number}.png", 20 + number)  # the first ones of the list
    method = Vanishing(photos)
    refused("The pictures of my pictures cannot be read any more.", build, photos, out, method)
    assert snapshot(out) == before
    photos.with_name("elsewhere").rename(photos)
    again = Thumbnail()
    assert len(build(photos, out, again)) == 11
    assert len(again.described) == 6 - len(method.described)


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_that_cannot_be_read_for_a_while(photos, out, monkeypatch, finished):
    """Its pictures were dropped without a word, as if they had been deleted."""

    def stop(done, total, name):
        if done == total and not finished:
            raise Stopped

    with nullcontext() if finished else pytest.raises(Stopped):
        build(photos, out, progress=stop)
    scan = os.scandir

    def scandir(path="."):
        if str(path).endswith("/sub"):
            raise OSError(5, "Input/output error", path)
        return scan(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        refused("sub cannot be read: Input/output error. What is known of its", build, photos, out)
    method = Thumbnail()
    assert len(build(photos, out, method)) == 5
    assert not method.described
    shutil.rmtree(photos / "sub")
    assert len(build(photos, out)) == 3


def test_pictures_that_cannot_be_read_for_a_while(photos, out, monkeypatch):
    """A disk that does not answer for a moment: the pictures are there, but cannot be read."""
    build(photos, out)
    real, requests = Collection.read_bytes, count()

    def read_bytes(self, name):
        if next(requests) in (1, 2):
            raise images.PictureError(f"{name} cannot be read: Input/output error.")
        return real(self, name)

    monkeypatch.setattr(Collection, "read_bytes", read_bytes)
    method = Thumbnail()
    assert len(build(photos, out, method)) == 5
    assert not method.described


def test_an_unfinished_build_outlives_pictures_that_are_empty(photos, unfinished, out):
    """As a copy leaves them that has only begun, or a disk on which nothing is written any more."""
    whole = {path: path.read_bytes() for path in photos.rglob("*.png")}
    for path in whole:
        path.write_bytes(b"")
    refused("cannot be read any more. .* is empty", build, photos, out)
    for path, data in whole.items():
        path.write_bytes(data)
    method = Thumbnail()
    build(photos, out, method)
    assert len(method.described) == 3, "the finished two are not described again"


def test_an_unfinished_build_outlives_a_disk_that_is_not_there(photos, unfinished, out):
    truth = {"imlist": [path.relative_to(photos).as_posix() for path in photos.rglob("*.png")]}
    (photos / "ground_truth.json").write_text(json.dumps(truth | {"qimlist": [], "gnd": []}))
    hidden = photos.with_name("hidden")
    photos.rename(hidden)
    photos.mkdir()
    shutil.copy(hidden / "ground_truth.json", photos)
    refused("cannot be read any more", build, photos, out)
    shutil.rmtree(photos)
    hidden.rename(photos)
    method = Thumbnail()
    build(photos, out, method)
    assert len(method.described) == 3, "the finished two are not described again"


class Stopped(Exception):
    pass


class Stopping(Thumbnail):
    """Stops before its third picture."""

    def describe(self, picture, box=None):
        if len(self.described) == 2:
            raise Stopped
        return super().describe(picture, box)


@pytest.fixture
def unfinished(photos, out):
    """The working folder of a build that was stopped after two pictures."""
    with pytest.raises(Stopped):
        build(photos, out, Stopping())
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


def endless(work, size):
    append(work / "journal.jsonl", line(bytes=size))
    os.truncate(work / "features.bin", 2**40)


def much(work):
    """Some kilobytes, packed, that say rightly what 100 GB of nothing are: six minutes."""
    entry = json.loads((work / "journal.jsonl").read_bytes().splitlines()[0])
    nothing = bytes(1_000_000)
    entry |= {"bytes": len(nothing), "crc32": zlib.crc32(nothing), "name": "x.png"}
    (work / "journal.jsonl").write_bytes((json.dumps(entry) + "\n").encode() * 100_000)
    os.truncate(work / "features.bin", 0)
    os.truncate(work / "features.bin", 10**11)


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
        # A tar of a kilobyte brings a terabyte of nothing.
        (lambda work: os.truncate(work / "identity.json", 2**40), 5),
        (lambda work: os.truncate(work / "journal.jsonl", 2**40), 3),
        (lambda work: endless(work, -1), 3),
        (lambda work: endless(work, 2**39), 3),
        (much, 5),
        (lambda work: append(work / "journal.jsonl", line(name="a\0/b", sha256="", reason="")), 3),
        (
            lambda work: append(
                work / "journal.jsonl", line(name="\ud800/b", sha256="", reason="")
            ),
            3,
        ),
    ],
)
def test_a_damaged_journal_costs_no_more_than_its_end(photos, out, unfinished, damage, again):
    damage(unfinished)
    method = Thumbnail()
    resumed = build(photos, out, method)
    assert len(method.described) == again
    same(resumed, build(photos, out.with_name("fresh")))
    assert sorted(path.name for path in out.parent.iterdir()) == ["fresh", "one"]


def test_more_pictures_than_an_index_can_hold(photos, out, unfinished, monkeypatch):
    monkeypatch.setattr(checks, "MAX_IMAGES", 700)
    method = Thumbnail()
    refused("5 pictures are too many for one index", build, photos, out, method)
    assert not method.described
    monkeypatch.setattr(checks, "OWN_ENTRY", 0)
    refused("images.json .* is too large", build, photos, out, method)
    assert not out.exists()
    monkeypatch.undo()
    again = Thumbnail()
    assert len(build(photos, out, again)) == 5
    assert not again.described


@pytest.mark.parametrize("name", ["journal.jsonl", "features.bin"])
def test_stopped_and_damaged_twice(photos, out, unfinished, name):
    """What is written after the damage must be found again."""
    append(unfinished / name, b'{"name": "half a line')
    with pytest.raises(Stopped):
        build(photos, out, Stopping())
    append(unfinished / name, b"more garbage\n")
    method = Thumbnail()
    resumed = build(photos, out, method)
    assert len(method.described) == 1
    same(resumed, build(photos, out.with_name("fresh")))


def test_an_unfinished_build_with_other_settings_is_neither_used_nor_lost(photos, out, unfinished):
    refused("unfinished build with another method or other settings",
            build, photos, out, Thumbnail(size=8))  # fmt: skip
    method = Thumbnail()
    build(photos, out, method)
    assert len(method.described) == 3, "two are kept"


def test_a_build_that_was_stopped_before_its_first_picture_is_in_nobodys_way(photos, out):
    class Stopping(Thumbnail):
        def describe(self, picture, box=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(photos, out, Stopping())
    assert len(build(photos, out, Thumbnail(size=8))) == 5


def test_a_stop_between_the_two_renames(photos, out):
    before = build(photos, out)
    work = out.with_name("one.building")
    work.mkdir()
    (work / "identity.json").write_text("")
    out.rename(work / "index.old")
    method = Thumbnail()
    same(build(photos, out, method), before)
    assert method.described == []


def test_two_builds_at_once(photos, out):
    class Greedy(Thumbnail):
        def describe(self, picture, box=None):
            refused("Another build is writing to .*one", build, photos, out)
            refused("Another build", build, photos, out.parent / ".." / out.parent.name / "one")
            build(photos, out.with_name("another"))
            return super().describe(picture, box)

    assert len(build(photos, out, Greedy())) == 5


def test_two_builds_by_other_users_or_in_containers(photos, out, tmp_path):
    """What they have in common is the place, not a temporary folder or a name."""

    class Meanwhile(Thumbnail):
        def describe(self, picture, box=None):
            code = (
                f"import sys; sys.path[:0] = {sys.path!r}\n"
                "from stubs import Thumbnail\n"
                "from retrieval import index\n"
                "from retrieval.collections import open_collection\n"
                f"index.build(open_collection({str(photos)!r}), Thumbnail(), {str(out)!r})"
            )
            run = subprocess.run(
                [sys.executable, "-c", code],
                env=os.environ | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
            )
            assert "Another build is writing to" in run.stderr
            return super().describe(picture, box)

    (photos / "sub" / "d.png").rename(photos.parent / "d.png")
    assert len(build(photos, out, Meanwhile())) == 4
    assert sorted(path.name for path in out.parent.iterdir()) == ["one"]


def test_a_build_that_is_stopped_while_it_cleans_up(photos, out, monkeypatch):
    """What was left was in the way of the next one."""
    build(photos, out)
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
                build(photos, out)
                break
            except KeyboardInterrupt:
                pass
        build(photos, out)
        assert [path.name for path in out.parent.iterdir()] == ["one"]
    assert len(deleted) == 6  # the new index, in three files, and the journal, in three


def test_a_reader_between_the_two_renames(photos, out):
    before = build(photos, out)
    old = out.with_name("one.building") / "index.old"
    old.parent.mkdir()
    out.rename(old)
    timer = threading.Timer(0.2, old.rename, [out])
    timer.start()
    same(index.load(out), before)
    timer.join()


def test_an_index_that_is_replaced_while_it_is_read(photos, out, monkeypatch):
    """Its checksums were those of the old one, its vectors those of the new."""
    before = build(photos, out)
    paint(photos / "a.png", 77)
    new = build(photos, out.with_name("two"))
    opened = loading._open_array

    def replaced(path):
        if new.path.exists():
            shutil.rmtree(out)
            new.path.rename(out)
        return opened(path)

    monkeypatch.setattr(loading, "_open_array", replaced)
    found = index.load(out)
    same(found, new)
    assert found.manifest == new.manifest != before.manifest


def test_an_index_that_is_always_replaced(photos, out, monkeypatch):
    """The last try was believed, whatever it had read."""
    build(photos, out)
    monkeypatch.setattr(loading, "version_of", lambda path: object())
    refused("is replaced all the time", index.load, out)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits to set")
@pytest.mark.parametrize("what", [index.load, loading.read_manifest])
def test_files_that_the_system_does_not_open(photos, out, what):
    """The error is a sentence, and does not advise to delete an index that is whole."""
    import resource

    build(photos, out)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(RetrievalError) as caught:
            what(out)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert str(caught.value) == f"{out / 'manifest.json'} cannot be read: Too many open files."


def test_a_file_that_vanishes_while_an_index_is_read(photos, out, monkeypatch):
    build(photos, out)
    digest = loading.files.digest

    def vanished(path):
        path.unlink()
        return digest(path)

    monkeypatch.setattr(loading.files, "digest", vanished)
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
def test_full_disk(photos, small_disk, kind):
    for seed in range(20, 23):
        paint(photos / f"{seed}.png", seed)
    out = small_disk.path / "one"
    first = kind()
    refused("The disk is full. Finished pictures are kept in .*one.building: free some space",
            build, photos, out, first)  # fmt: skip
    assert not out.exists()
    refused("The disk is full", build, photos, out, kind())
    small_disk.grow()
    second = kind()
    resumed = build(photos, out, second)
    assert len(resumed) == 8
    # One more than finished may have been described in vain.
    assert len(first.described) - 1 <= 8 - len(second.described) <= len(first.described)
    assert 8 - len(second.described) >= 3
    same(resumed, build(photos, out.with_name("fresh"), kind()))


def test_a_full_disk_keeps_the_former_index(photos, small_disk):
    out = small_disk.path / "one"
    method = Long()
    for name in ("b b.png", "ç.png", "sub/d.png", "sub/e 日本.png"):
        (photos / name).rename(photos / f"{name}.away")
    build(photos, out, method)
    before = snapshot(out)
    for path in photos.rglob("*.away"):
        path.rename(path.with_suffix(""))
    refused("The disk is full", build, photos, out, Long())
    assert snapshot(out) == before
    small_disk.grow()
    method = Long()
    assert len(build(photos, out, method)) == 5
    assert len(method.described) < 4


@pytest.mark.parametrize("name", ["journal.jsonl", "features.bin", "index", "index.old"])
def test_an_unfinished_build_of_links(photos, out, tmp_path, name):
    """A working folder may come with a stranger's index: nothing is written through its links."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    work = out.with_name("one.building")
    work.mkdir(parents=True)
    (work / "identity.json").write_text(json.dumps(layout.identity(Thumbnail())))
    (work / name).symlink_to(victim)
    refused("holds links or devices", build, photos, out)
    (work / name).unlink()
    os.mkfifo(work / name)
    refused("holds links or devices", build, photos, out)
    assert victim.read_text() == "precious"


def test_a_journal_of_millions_of_lines(photos, out, unfinished, monkeypatch):
    """3 MB, packed, computed for two minutes, 28 MB took 8.7 GB; what is there is kept."""
    monkeypatch.setattr(journal, "BESIDE", 20_000)
    path = unfinished / "journal.jsonl"
    skipped = [line(name=f"{number}.png", sha256="", reason="") for number in range(1000)]
    append(path, b"".join(skipped))
    before = path.read_bytes()
    refused("journal.jsonl is too long for so few pictures", build, photos, out)
    assert path.read_bytes() == before
    method = Thumbnail()
    path.write_bytes(before[: before.index(skipped[100])])
    assert len(build(photos, out, method)) == 5
    assert len(method.described) == 3


def test_a_journal_of_pictures_in_thousands_of_folders(photos, out, unfinished, monkeypatch):
    """A kilobyte, packed, of 100 names computed for 149 s, 400 filled more than 6 GB."""
    *_, last = (unfinished / "journal.jsonl").read_bytes().splitlines()
    entry = json.loads(last)
    features = (unfinished / "features.bin").read_bytes()[-entry["bytes"] :]
    for number in range(20):
        entry["name"] = f"{number}/{'a/' * 190}b.png"
        append(unfinished / "journal.jsonl", json.dumps(entry).encode() + b"\n")
        append(unfinished / "features.bin", features)
    asked = []
    check = Collection.check_folder
    monkeypatch.setattr(
        Collection, "check_folder", lambda *args: asked.append(args) or check(*args)
    )
    build(photos, out)
    assert len(asked) == 21  # the folder, and the first in it of each name: it is not there


def test_ground_truth_of_pictures_that_are_not_there(photos, out, monkeypatch):
    """A list of 1.5 million of them, 0.6 MB when packed, took 78 s and 3 GB, for no index."""
    monkeypatch.setattr(builder, "MAX_FAILED", 5)
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    truth = {"imlist": names, "qimlist": [], "gnd": []}

    def missing(count):
        truth["imlist"] = [*names, *(f"{number}.png" for number in range(count))]
        (photos / "ground_truth.json").write_text(json.dumps(truth))

    missing(6)
    refused("More than 5 pictures of .* cannot be read. The first: 0.png", build, photos, out)
    missing(5)
    method = Thumbnail()
    assert len(build(photos, out, method)) == 5
    assert not method.described, "what was finished is kept"


def test_an_unfinished_build_that_is_a_link(photos, out, tmp_path):
    """All files of the folder that it led to were deleted, if there was an identity.json."""
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    for name in ("identity.json", "work.txt", "deep/more.txt"):
        (victim / name).write_text("precious")
    before = snapshot(victim)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name("one.building").symlink_to(victim)
    refused("one.building is a link", build, photos, out)
    assert snapshot(victim) == before


def test_lines_that_say_very_much(tmp_path):
    """They were kept as they are: of 20 MB, which pack into 50 kB, 0.7 GB."""
    line = {"name": "x.png", "sha256": "", "reason": "broken", "bytes": 0, "crc32": 0}
    (tmp_path / "identity.json").write_text("{}")
    content = json.dumps(line | {"width": [[]] * 1000, "more": [[]] * 1000}) + "\n"
    (tmp_path / "journal.jsonl").write_text(content)
    with journal.Journal(tmp_path, {}, 1) as found:
        assert found.entries.keys() == {"x.png"}
        assert found.entries["x.png"].keys() == {"name", "sha256", "bytes", "reason", "offset"}
