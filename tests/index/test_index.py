"""Indexes that are built, updated, loaded and found; features and places that are refused."""

import gc
import os
import shutil
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from index_folders import build, same, snapshot
from PIL import Image
from stubs import Grid, Thumbnail, paint, refused

from retrieval import images, index, methods
from retrieval.collections import open_collection
from retrieval.index import describing, finding, saving

# Building and loading


def test_what_is_built_is_what_is_loaded(photos, out):
    method, calls = Thumbnail(), []
    built = build(photos, out, method, progress=lambda *call: calls.append(call))
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
        with Image.open(photos / name) as picture:
            expected = method.describe(picture)
        np.testing.assert_allclose(loaded.features(position), expected, atol=1e-3)
    assert sorted(path.name for path in out.parent.iterdir()) == ["one"], "nothing beside it"


def test_local_features_come_back(photos, out):
    method = Grid()
    loaded = build(photos, out, method)
    for position, name in enumerate(loaded.names):
        with Image.open(photos / name) as picture:
            expected = method.describe(picture)
        found = loaded.features(position)
        assert len(found) == len(expected) > 0
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)
        np.testing.assert_allclose(found.descriptors, expected.descriptors, atol=0.5 / 127 + 1e-6)
        np.testing.assert_array_equal(found.scales, expected.scales)
        assert found.descriptors.dtype == np.float32


def test_pictures_without_features_among_others(photos, out):
    for name in ("0 first.png", "m.png", "z last.png"):
        Image.new("RGB", (50, 40), "grey").save(photos / name)
    loaded = build(photos, out, Grid())
    assert len(loaded) == 8
    lengths = {name: len(loaded.features(i)) for i, name in enumerate(loaded.names)}
    assert [name for name, length in lengths.items() if length == 0] == [
        "0 first.png", "m.png", "z last.png",
    ]  # fmt: skip
    # ... and when nothing has any.
    for path in list(photos.rglob("*.png")):
        if lengths[path.relative_to(photos).as_posix()]:
            path.unlink()
    blank = build(photos, out.with_name("blank"), Grid())
    assert len(blank) == 3
    assert len(blank.features(1)) == 0


def test_unreadable_pictures_are_listed(photos, out):
    (photos / "0.jpg").write_text("<html></html>")
    (photos / "empty.png").write_bytes(b"")
    (photos / "half.png").write_bytes((photos / "a.png").read_bytes()[:900])
    loaded = build(photos, out)
    assert len(loaded) == 5
    skipped = {entry["name"]: entry["reason"] for entry in loaded.manifest["skipped"]}
    assert skipped.keys() == {"0.jpg", "empty.png", "half.png"}
    assert "zero bytes" in skipped["empty.png"]
    # One of them gets better.
    paint(photos / "half.png", 9)
    method = Thumbnail()
    assert len(build(photos, out, method)) == 6
    assert len(method.described) == 1


def test_no_picture_can_be_read(tmp_path, out):
    (tmp_path / "bad").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "bad" / name).write_text("no picture")
    refused("No picture of bad could be read, of 2. The first: a.jpg", build,
            tmp_path / "bad", out)  # fmt: skip
    assert not out.exists()
    assert list(out.parent.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text(photos, out):
    os.rename(photos / "a.png", os.fsencode(photos) + b"/\xff\n.png")
    loaded = build(photos, out)
    assert "\udcff\n.png" in loaded.names
    method = Thumbnail()
    same(build(photos, out, method), loaded)
    assert method.described == []


def test_only_what_changed_is_described_again(photos, out):
    build(photos, out)
    paint(photos / "new.png", 10, (61, 30))
    paint(photos / "a.png", 11, (62, 30))  # other content
    (photos / "b b.png").unlink()
    (photos / "sub" / "d.png").rename(photos / "sub" / "moved.png")  # known, by another name
    method = Thumbnail()
    updated = build(photos, out, method)
    assert sorted(method.described) == [(61, 30), (62, 30)]
    same(updated, build(photos, out.with_name("fresh")))
    assert index.load(out).names == tuple(open_collection(photos).names)
    method = Thumbnail()
    build(photos, out, method)
    assert method.described == []


def test_local_index_is_updated(photos, out):
    build(photos, out, Grid())
    (photos / "a.png").unlink()
    paint(photos / "new.png", 10, (61, 30))
    Image.new("RGB", (50, 40), "grey").save(photos / "blank.png")
    method = Grid()
    updated = build(photos, out, method)
    assert sorted(method.described) == [(50, 40), (61, 30)]
    same(updated, build(photos, out.with_name("fresh"), Grid()))


def test_features_are_taken_from_another_collection(photos, out, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "PRECOMPUTED", tmp_path / "precomputed")
    theirs = build(photos, tmp_path / "precomputed" / "whole" / "stub", Grid())
    part = tmp_path / "part"
    (part / "deep").mkdir(parents=True)
    shutil.copy(photos / "ç.png", part / "deep" / "renamed.png")
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


def test_an_update_keeps_its_own_features(photos, out):
    """Those of another collection took their place. They differ in their last bits where that was
    indexed with another number of threads; here they differ altogether."""

    class Opposite(Thumbnail):
        def describe(self, picture, box=None):
            return -super().describe(picture, box)

    before = build(photos, out, Thumbnail())
    donor = build(photos, out.with_name("donor"), Opposite())
    paint(photos / "new.png", 77)
    updated = build(photos, out, Thumbnail(), donors=[donor])
    for name in before.names:
        np.testing.assert_array_equal(
            updated.features(updated.positions[name]), before.features(before.positions[name])
        )


def test_what_is_known_does_not_wait(photos, out):
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
def test_batches_change_nothing(photos, out, size):
    (photos / "broken.png").write_bytes(b"no picture")
    method, given, calls = Thumbnail(), [], []
    method.batch = size
    one_by_one = method.describe_batch
    method.describe_batch = lambda pictures: given.append(len(pictures)) or one_by_one(pictures)
    build(photos, out, method, progress=lambda *call: calls.append(call))
    assert (max(given), sum(given)) == (min(size, 5), 5)
    assert [done for done, *_ in calls] == [1, 2, 3, 4, 5, 6]
    same(index.load(out), build(photos, out.with_name("plain")))


@pytest.mark.parametrize("where", ["descriptors", "scores"])
@pytest.mark.parametrize("kind", [Thumbnail, Grid])
def test_features_that_are_no_numbers_are_never_stored(photos, out, kind, where):
    class Broken(kind):
        def describe(self, picture, box=None):
            features = super().describe(picture, box)
            array = features if kind is Thumbnail else getattr(features, where)
            array[:1] = np.nan
            return features

    refused("features of a.png are infinite or NaN", build, photos, out, Broken())
    assert not out.exists()


def test_descriptors_that_no_index_could_hold_are_refused_at_once(photos, out):
    """After hours, when all were there, the build ended without an index."""

    class Wide(Grid):
        def describe(self, picture, box=None):
            found = super().describe(picture, box)
            return replace(found, descriptors=np.eye(len(found), 65, dtype=np.float32))

    method = Wide()
    refused("may have at most 64 dimensions, and these have 65", build, photos, out, method)
    assert len(method.described) == 1

    class Unequal(Thumbnail):
        def describe(self, picture, box=None):
            return super().describe(picture, box)[: 48 - len(self.described)]

    refused(
        "have 46 numbers, those of other pictures 47", build, photos, out.with_name("b"), Unequal()
    )


def test_files_that_are_no_pictures_to_read(photos, out, monkeypatch):
    """A pipe would never end, and a huge file fill the memory; both are left out."""
    os.mkfifo(photos / "pipe.png")
    (photos / "device.png").symlink_to("/dev/zero")
    names = ("a.png", "b b.png", "device.png", "pipe.png")
    collection = replace(open_collection(photos), names=names)
    monkeypatch.setattr(images, "MAX_BYTES", (photos / "a.png").stat().st_size)
    with open(photos / "b b.png", "ab") as file:
        file.truncate(10**9)
    built = index.build(collection, Thumbnail(), out)
    reasons = {entry["name"]: entry["reason"] for entry in built.manifest["skipped"]}
    assert built.names == ("a.png",)
    assert "it is a pipe or a device" in reasons["pipe.png"]
    assert "it is a pipe or a device" in reasons["device.png"]
    assert "larger than" in reasons["b b.png"]


# Places that are somebody else's


def test_places_that_are_refused(photos, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious.txt").write_text("x")
    app = tmp_path / "app"
    app.mkdir()
    (app / "manifest.json").write_text('{"name": "a web app"}')
    file = tmp_path / "file"
    file.write_text("x")
    before = snapshot(tmp_path)
    refused("foreign exists and is not an index; choose another place", build, photos, foreign)
    refused("is not an index: its manifest.json is not of this program", build, photos, app)
    refused("file exists and is not an index", build, photos, file)
    refused("cannot be written", build, photos, file / "below")
    refused("cannot be written .*too long", build, photos, tmp_path / ("long" * 80))
    refused("my pictures exists and is not an index", build, photos, photos)
    refused("cannot take the place of /; name a folder below it", build, photos, "/")
    assert snapshot(tmp_path) == before


def test_neighbours_are_left_alone(photos, out):
    build(photos, out)
    for name in ("one.old", "one.bak", "one.new", "one.tmp"):
        shutil.copytree(out, out.with_name(name))
    before = {path: data for path, data in snapshot(out.parent).items() if "/one." in path}
    paint(photos / "new.png", 10)
    build(photos, out)
    after = snapshot(out.parent)
    assert {path: after[path] for path in before} == before
    # The one name that a build needs for itself, used by somebody else.
    work = out.with_name("one.building")
    work.mkdir()
    (work / "precious.txt").write_text("x")
    refused("one.building is in the way", build, photos, out)
    assert (work / "precious.txt").read_text() == "x"


def test_an_empty_folder_and_a_link_are_fine(photos, out, tmp_path, monkeypatch):
    out.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(out)
    build(photos, link)
    method = Thumbnail()
    assert len(build(photos, link, method)) == len(build(photos, out, method)) == 5
    assert method.described == []
    assert link.is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert len(build(photos, ".")) == 5
    (tmp_path / "loop").symlink_to("loop")
    refused("cannot be written to", build, photos, tmp_path / "loop")


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
def test_another_method_is_refused(photos, out, changes, words):
    loaded = build(photos, out)
    loaded.check_method(Thumbnail())
    other = Thumbnail()
    for name, value in changes.items():
        setattr(other, name, value)
    refused(words, loaded.check_method, other)
    before = snapshot(out)
    refused(words, build, photos, out, other)
    assert snapshot(out) == before
    assert other.described == []


def test_a_setting_that_is_newer_than_the_index_is_at_its_default_in_it(photos, out):
    loaded = build(photos, out)
    newer = Thumbnail()
    newer.defaults = {"size": 8, "power": 1.0}
    newer.settings = {"size": 4, "power": 1.0}
    loaded.check_method(newer)
    newer.settings = {"size": 4, "power": 0.5}
    refused(r"made with power 1.0, not power 0.5;", loaded.check_method, newer)


def test_a_setting_that_is_newer_than_the_index_costs_no_evaluation(photos, out):
    """An update replaced such an index by an equal one, and its evaluation was gone."""
    build(photos, out)
    (out / "evaluation.json").write_text("{}")
    newer = Thumbnail()
    newer.defaults = {"size": 8, "power": 1.0}
    newer.settings = {**newer.settings, "power": 1.0}
    build(photos, out, newer)
    assert (out / "evaluation.json").is_file()


def test_find_takes_one_index_of_each_method(tmp_path, photos):
    root = tmp_path / "precomputed"
    assert index.find("town", root) == {}
    for method, name in ((Grid(), "a"), (Thumbnail(), "b")):
        build(photos, root / "town" / name, method)
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
    # A registered checkpoint wins over a file, with which the app cannot search.
    other = Thumbnail()
    other.checkpoint = SimpleNamespace(id="resnet152-imagenet", sha256="cd" * 32)
    build(photos, root / "town" / "z other", other)
    assert index.find("town", root)["sir"] == root / "town" / "z other"
    # The default checkpoint wins over all.
    default = Thumbnail()
    default.checkpoint = SimpleNamespace(id=methods.METHODS["sir"].default, sha256="ef" * 32)
    build(photos, root / "town" / "a default", default)
    assert index.find("town", root)["sir"] == root / "town" / "a default"
    assert index.find("elsewhere", root) == {}


def test_what_lies_beside_an_index_stays_where_nothing_has_changed(photos, out, monkeypatch):
    """An evaluation, or what each step is worth, may be the work of hours."""
    before = build(photos, out)
    (out / "evaluation.json").write_text("{}")
    again = build(photos, out)
    assert again.manifest == before.manifest
    assert (out / "evaluation.json").is_file()
    monkeypatch.setattr(saving, "version", lambda name: "0.1")  # of a library
    assert build(photos, out).manifest == before.manifest
    assert (out / "evaluation.json").is_file()
    paint(photos / "new.png", 10)
    assert len(build(photos, out)) == 6
    assert not (out / "evaluation.json").exists()
    assert sorted(path.name for path in out.parent.iterdir()) == ["one"]


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


@pytest.mark.parametrize(
    "inside", ["photos/a.jpg", "delf/manifest.json", "net.pth", "notes.txt", "own.npy"]
)
def test_what_lies_in_the_folder_of_an_index_is_not_deleted(photos, out, inside):
    build(photos, out)
    (out / "evaluation.json").write_text("{}")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (out / name).touch()
    kept = out / inside
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("the work of hours")
    paint(photos / "new.png", 7)
    name = inside.split("/")[0]
    refused(f"{name} is in the folder of an index, which is replaced", build, photos, out)
    assert kept.read_text() == "the work of hours"
    kept.unlink()
    if kept.parent != out:
        kept.parent.rmdir()
    build(photos, out)
    assert not (out / "evaluation.json").exists()


def test_what_comes_into_the_folder_of_an_index_during_an_update_is_not_deleted(photos, out):
    build(photos, out)
    paint(photos / "new.png", 7)
    plot = out / "plot.png"

    def save_a_plot(*_):
        plot.touch()

    refused("plot.png is in the folder of an index", build, photos, out, progress=save_a_plot)
    assert plot.exists()
    plot.unlink()
    assert "new.png" in build(photos, out).names
