"""Builds that are killed, stopped, run twice at once or meet a full disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from index_folders import Stopped, build, same, snapshot
from stubs import Thumbnail, paint, refused

from retrieval import images
from retrieval.collections import Collection
from retrieval.index import builder
from retrieval.index.layout import Part

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


def test_an_unfinished_build_with_other_settings_is_neither_used_nor_lost(photos, out, unfinished):
    refused("unfinished build with another method or other settings",
            build, photos, out, Thumbnail(size=8))  # fmt: skip
    method = Thumbnail()
    build(photos, out, method)
    assert len(method.described) == 3, "two are kept"


def test_an_unfinished_build_of_other_pictures_or_another_part_is_not_lost(photos, out, unfinished):
    """The other build used none of it, or a fifth, and deleted all at its end."""
    paint(photos.with_name("others") / "other.png", 9)
    refused("unfinished build of other pictures", build, photos.with_name("others"), out)
    refused("or of another part", build, photos, out, part=Part(1, 5))
    method = Thumbnail()
    build(photos, out, method)
    assert len(method.described) == 3, "two are kept"


def test_new_pictures_that_are_deleted_again_before_the_update_is_done(photos, out):
    before = build(photos, out)
    paint(photos / "0.png", 9)

    def stop(done, total, name):
        raise Stopped

    with pytest.raises(Stopped):
        build(photos, out, progress=stop)
    (photos / "0.png").unlink()
    same(build(photos, out), before)


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
    refused("The disk is full. Free some space and do the same again", build, photos, out, first)
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
