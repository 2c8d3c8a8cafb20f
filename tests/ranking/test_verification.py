"""Geometry as a re-ranker, with the features of small drawn pictures."""

import shutil
import threading
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from attack.indexes import edited, forge
from PIL import Image

from retrieval import images, index, methods, workers
from retrieval.collections import PRECOMPUTED, Collection
from retrieval.errors import RetrievalError
from retrieval.index import layout
from retrieval.networks import checkpoints
from retrieval.ranking import chain, geometry, search, verification, verifiers
from retrieval.ranking.geometry import Verification
from retrieval.ranking.ranking import Query
from retrieval.workers import Workers


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, drawn):
    """Five pictures; ``d`` shows the same as ``b``, from another side and darker."""
    root = tmp_path_factory.mktemp("scenes")
    for seed, name in enumerate("abc"):
        drawn(seed, (320, 256)).save(root / f"{name}.png")
    turned = drawn(1, (320, 256)).transform(
        (320, 256), Image.Transform.PERSPECTIVE, (1, 0.1, 12, 0.03, 1.08, -6, 0.0002, 0.0003)
    )
    turned.point(lambda value: value * 0.8).save(root / "d.png")
    Image.new("RGB", (320, 256), "grey").save(root / "e.png")
    names = tuple(f"{name}.png" for name in "abcde")
    return Collection("scenes", "Scenes", root, names)


@pytest.fixture(scope="module")
def opened(scenes, load, tmp_path_factory):
    return index.build(scenes, load("sir"), tmp_path_factory.mktemp("index") / "sir")


def asked(opened, scenes, load, name="b.png", box=None, **options):
    picture = images.read(scenes.path(name))
    options = {"own": name, "collection": scenes} | options
    return search.rank_picture(opened, load("sir"), picture, box, **options)


def test_the_same_thing_from_another_side_comes_first(opened, scenes, load):
    found = asked(opened, scenes, load, then=["geometry"])
    assert found.names[:2] == ("b.png", "d.png")
    assert found.inliers[1] >= verification.MIN_INLIERS
    assert (found.inliers[2:] == 0).all()
    assert found.moved[1] == found.before.names.index("d.png") - 1
    assert found.confidence.level == "sure"
    assert found.notes == []
    assert set(found.timings) == {"extraction", "search", "geometry"}


@pytest.mark.parametrize("name", ["geometry", "geometry-lighterglue"])
def test_order_and_inliers_against_a_loop(opened, scenes, load, name):
    found = asked(opened, scenes, load, then=[name])
    pair = verification.lighterglue_pair if "glue" in name else verification.xfeat_pair
    query = verifiers.xfeat().describe(images.read(scenes.path("b.png")))
    for place, other in enumerate(found.names):
        picture = images.read(scenes.path(other))
        most = checkpoints.REGISTRY["xfeat"].settings["keypoints"]
        theirs = verifiers.xfeat().describe(picture)[:most]
        rounded = layout.dequantise(layout.quantise(theirs.descriptors))
        theirs = replace(theirs, descriptors=rounded)
        count = pair(query, theirs, (320, 256), picture.size)[1].count
        if other == "b.png":
            continue  # the query itself is left out
        assert found.inliers[place] == (count if count >= verification.MIN_INLIERS else 0)


def test_a_box_is_checked(opened, scenes, load):
    found = asked(opened, scenes, load, box=(40, 30, 280, 220), then=["geometry"])
    assert found.names[:2] == ("b.png", "d.png")
    assert found.inliers[1] >= verification.MIN_INLIERS


def test_features_beside_the_index_are_used_and_give_the_same(opened, scenes, load, tmp_path):
    shutil.copytree(opened.path, tmp_path / "index" / "sir")
    copy = index.load(tmp_path / "index" / "sir")
    expected = asked(copy, scenes, load, then=["geometry"])
    xfeat = methods.load_record(checkpoints.REGISTRY["xfeat"])
    index.build(scenes, xfeat, verifiers.candidates(copy.path)[1])
    found = asked(copy, scenes, load, then=["geometry"], collection=None)
    assert found.names == expected.names
    np.testing.assert_array_equal(found.inliers, expected.inliers)
    assert found.inliers[1] >= verification.MIN_INLIERS


def test_features_described_on_demand_are_those_of_an_index(drawn, load, tmp_path):
    """They were not rounded to float16: `groups` found other inliers with --verifier xfeat."""
    drawn(1, (333, 250)).save(tmp_path / "a.png")  # keypoints are found at another size
    collection = Collection("own", "Own", tmp_path, ("a.png",))
    own = index.build(collection, load("sir"), tmp_path / "index")
    described = verifiers.DatabaseFeatures(own, collection).features(0)
    xfeat = methods.load_record(checkpoints.REGISTRY["xfeat"])
    index.build(collection, xfeat, verifiers.candidates(own.path)[1])
    stored = verifiers.DatabaseFeatures(own, None).features(0)
    for field in fields(stored):
        ours, theirs = getattr(described, field.name), getattr(stored, field.name)
        np.testing.assert_array_equal(ours, theirs)


class Counting(Workers):
    turns = 0

    def _do(self, work):
        self.turns += 1
        super()._do(work)


def test_pictures_without_features_are_described_apart(opened, scenes, load, monkeypatch):
    """Each in a turn of its own: a shortlist of a hundred takes a worker a minute."""
    verifiers._described.cache_clear()
    monkeypatch.setattr(workers, "TURN", 0)
    four_and_the_ranking = len(scenes.names) - 1 + 1
    for turns in four_and_the_ranking, 0:
        slow = Counting(1, 10)
        slow._seconds = 0  # turns last as long as pieces of work do
        found = Workers(1, 10, slow).run(
            "me", lambda: asked(opened, scenes, load, then=["geometry"]), lambda place: None
        )
        assert found.inliers[1] >= verification.MIN_INLIERS
        assert slow.turns == turns


def test_pictures_that_cannot_be_read_are_said(opened, scenes, load, tmp_path):
    nowhere = replace(scenes, root=tmp_path / "nothing")
    found = asked(opened, scenes, load, then=["geometry"], collection=nowhere, own=None)
    assert found.names == found.before.names
    assert found.notes == [
        "5 of 5 pictures could not be checked: their features are not beside the index, and the "
        "pictures cannot be read or were changed; index them again with --verifier xfeat."
    ]
    # It said that geometry confirms no picture.
    assert (found.inliers, found.confidence.level) == (None, "unchecked")


def test_a_picture_that_was_changed_after_it_was_indexed(opened, scenes, load, tmp_path):
    """The order was by the old picture, the inliers were of the new one."""
    changed = replace(scenes, root=tmp_path / "scenes")
    shutil.copytree(scenes.root, changed.root)
    shutil.copy(changed.path("a.png"), changed.path("d.png"))
    found = asked(opened, scenes, load, then=["geometry"], collection=changed)
    assert found.notes[0].startswith("1 of 4 pictures could not be checked")
    assert "cannot be read or were changed" in found.notes[0]


@pytest.mark.parametrize("then", [["geometry", "geometry-lighterglue"], ["geometry", "diffusion"]])
def test_a_query_without_keypoints(opened, scenes, load, then):
    found = asked(opened, scenes, load, "e.png", then=then)
    assert found.stages[1].names == found.stages[0].names
    (note,) = found.notes  # once, not once for each re-ranker
    assert note.startswith("The picture shows nothing that could be recognised")
    assert found.confidence.level == "nothing"
    assert found.confidence.reason == "The picture is blank: there is nothing to search for."


def test_without_the_picture_the_ranking_stays_as_it_was(opened, load, scenes):
    features = load("sir").describe(images.read(scenes.path("a.png")))
    first = search.rank_features(opened, features)
    for name in ("geometry", "geometry-lighterglue"):
        found = chain.rerank(first, Query(opened, features), [name])
        assert found.names == first.names
        assert found.inliers is None
        assert found.notes == [f"{name} needs the picture that is searched with."]


def test_delf_features_for_another_index(scenes, load, tmp_path):
    built = index.build(scenes, load("sir"), tmp_path / "scenes" / "sir")
    with pytest.raises(RetrievalError, match="index them with DELF too") as caught:
        asked(built, scenes, load, then=["geometry-delf"])
    assert str(tmp_path) not in str(caught.value)  # visitors and clients are shown it
    delf = index.build(scenes, load("delf"), tmp_path / "scenes" / "delf")
    found = asked(built, scenes, load, then=["geometry-delf"])
    query = load("delf").describe(images.read(scenes.path("b.png")))
    for place, name in enumerate(found.names):
        if name == "b.png":
            continue
        _, map_ = geometry.verify_features(
            query, delf.features(delf.positions[name]), (320, 256),
            geometry.MIN_SIMILARITY, geometry.TOLERANCE,
        )  # fmt: skip
        assert found.inliers[place] == (map_.count if map_.count >= geometry.NOISE_FLOOR else 0)
    assert found.names[1] == "d.png"


def test_a_delf_index_with_the_settings_of_an_earlier_version(scenes, load, tmp_path):
    """The query was enlarged and the pictures of the index were not: fewer inliers, not a word."""
    built = index.build(scenes, load("sir"), tmp_path / "sir")
    delf = load("delf")
    earlier = methods.load("delf", **{**delf.settings, "enlarge": False})
    path = index.build(scenes, earlier, tmp_path / "delf").path
    edited(path, lambda manifest: manifest["settings"].__delitem__("enlarge"))
    with pytest.raises(verifiers.FeaturesError, match="was made with enlarge False"):
        asked(built, scenes, load, then=["geometry-delf"])


def test_geometry_after_the_search_of_delf(scenes, load, tmp_path):
    delf = index.build(scenes, load("delf"), tmp_path / "delf")
    picture = images.read(scenes.path("b.png"))
    found = search.rank_picture(
        delf, load("delf"), picture, then=chain.BEST, collection=scenes, own="b.png"
    )
    assert found.names[:2] == ("b.png", "d.png")
    assert [one.stage for one in found.stages] == ["search", "geometry", "diffusion"]
    assert set(found.names) == set(scenes.names)


def test_an_index_of_keypoints_is_not_searched(scenes, tmp_path):
    xfeat = methods.load_record(checkpoints.REGISTRY["xfeat"], keypoints=50)
    built = index.build(scenes, xfeat, tmp_path / "xfeat")
    with pytest.raises(RetrievalError, match="features to check other indexes with"):
        search.rank_picture(built, xfeat, images.read(scenes.path("a.png")))


@pytest.mark.parametrize("what", ["damaged", "another kind"])
def test_a_folder_beside_the_index_that_is_no_index_of_keypoints(
    opened, scenes, load, tmp_path, what
):
    shutil.copytree(opened.path, tmp_path / "index" / "sir")
    beside = tmp_path / "index" / "xfeat"
    shutil.copytree(opened.path, beside)
    if what == "damaged":
        (beside / "descriptors.npy").write_bytes(b"")
    copy = index.load(tmp_path / "index" / "sir")
    expected = "cut off or edited" if what == "damaged" else "not an index of keypoints"
    with pytest.raises(RetrievalError, match=expected):
        asked(copy, scenes, load, then=["geometry"])


def test_an_index_with_more_keypoints_than_a_picture_may_have(opened, scenes, load, tmp_path):
    """Their number is limited: LighterGlue takes minutes for 50,000, a small archive of zeros."""
    shutil.copytree(opened.path, tmp_path / "index" / "sir")
    beside = tmp_path / "index" / "xfeat"
    xfeat = methods.load_record(checkpoints.REGISTRY["xfeat"], keypoints=50)
    index.build(scenes, xfeat, beside)
    copy = index.load(tmp_path / "index" / "sir")
    assert asked(copy, scenes, load, then=["geometry"])
    for name in ("descriptors", "keypoints", "scales", "scores"):
        array = np.load(beside / f"{name}.npy")
        np.save(beside / f"{name}.npy", np.concatenate([array, array[:1].repeat(1025, axis=0)]))
    offsets = np.load(beside / "offsets.npy")
    np.save(beside / "offsets.npy", offsets + 1025 * (np.arange(len(offsets)) == len(offsets) - 1))
    forge(beside)
    with pytest.raises(RetrievalError, match="not an index of keypoints"):
        asked(copy, scenes, load, then=["geometry"])


def test_keypoints_of_blank_pictures_alone(tmp_path, load):
    """There is no descriptor, and so none of 64 numbers: the index was refused as another kind."""
    (tmp_path / "blank").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (320, 256), "grey").save(tmp_path / "blank" / name)
    blank = Collection("blank", "Blank", tmp_path / "blank", ("a.png", "b.png"))
    opened = index.build(blank, load("sir"), tmp_path / "sir")
    xfeat = methods.load_record(checkpoints.REGISTRY["xfeat"])
    index.build(blank, xfeat, verifiers.candidates(opened.path)[1])
    assert asked(opened, blank, load, "a.png", then=["geometry"]).inliers.tolist() == [0, 0]


def test_keypoints_of_before_small_pictures_were_enlarged_are_refused(
    opened, scenes, load, tmp_path
):
    """Few of them match those of an enlarged query."""
    shutil.copytree(opened.path, tmp_path / "index" / "sir")
    xfeat = methods.load_record(checkpoints.REGISTRY["xfeat"], enlarge=False)
    index.build(scenes, xfeat, tmp_path / "index" / "xfeat")
    copy = index.load(tmp_path / "index" / "sir")
    with pytest.raises(RetrievalError, match="before XFeat enlarged small pictures; delete it and"):
        asked(copy, scenes, load, then=["geometry"])


def test_geometry_confirms_small_copies(drawn):
    """Between a thumbnail and the large picture it was made of there were no inliers."""
    picture = drawn(1, (640, 512))
    small = picture.resize((160, 128), Image.Resampling.LANCZOS)
    as_small = methods.load_record(checkpoints.REGISTRY["xfeat"], enlarge=False)
    counts = []
    for xfeat in (as_small, verifiers.xfeat()):
        features = [xfeat.describe(one) for one in (small, picture)]
        counts.append(verification.xfeat_pair(*features, small.size, picture.size)[1].count)
    assert counts[0] < verification.MIN_INLIERS
    assert counts[1] > 100


def test_one_inlier_a_place():
    a = np.array([[0, 0], [9, 9], [11, 0], [300, 200], [301, 201], [100, 100]], float)
    b = np.array([[0, 0], [50, 50], [90, 0], [200, 100], [90, 90], [91, 1]], float)
    inliers = np.array([True, True, True, True, True, False])
    found = geometry.one_inlier_per_cell(Verification(None, inliers), a, b, 320, 320)
    # 0 and 1 share a place of 10 pixels in a; 3 and 4 another; 5 is no inlier anyway.
    assert found.inliers.tolist() == [True, False, True, True, False, False]
    crowded = geometry.one_inlier_per_cell(Verification(None, inliers), a, b * 0, 320, 320)
    assert crowded.count == 1
    none = geometry.one_inlier_per_cell(Verification(None, ~inliers[:0]), a[:0], b[:0], 320, 320)
    assert none.count == 0


def test_features_of_a_box_as_a_picture_of_its_own(drawn):
    picture = drawn(1, (320, 256))
    features = verifiers.xfeat().describe(picture, (64, 32, 256, 224))
    moved, size = verification.of_box(features, picture.size, (64, 32, 256, 224))
    assert size == (192, 192)
    assert (moved.keypoints >= 0).all()
    assert (moved.keypoints <= 192).all()
    assert verification.of_box(features, picture.size, None) == (features, picture.size)


def test_the_map_of_a_box_is_made_one_of_the_whole_picture(drawn):
    """The same picture twice: a point must stay where it is, whatever box asked."""
    picture, box = drawn(1, (320, 256)), (64, 32, 256, 224)
    whole = verifiers.xfeat().describe(picture)
    alone, size = verification.of_box(verifiers.xfeat().describe(picture, box), picture.size, box)
    _, found = verification.xfeat_pair(alone, whole, size, picture.size)
    assert found.matrix is not None
    centre = np.array([[160.0, 128.0]])
    of_box = geometry.project(found.matrix, centre - [64, 32])
    assert of_box == pytest.approx(centre, abs=3)
    moved = verification.of_picture(found, picture.size, box)
    assert geometry.project(moved.matrix, centre) == pytest.approx(of_box, abs=1e-6)
    assert verification.of_picture(found, picture.size, None) is found


def test_confidence_needs_geometry(opened, scenes, load, drawn):
    plain = asked(opened, scenes, load)
    assert plain.confidence.level == "unchecked"
    assert plain.confidence.text == "Not checked by geometry"
    assert "The re-ranker Geometry" in plain.confidence.reason
    assert chain.RERANKERS["geometry"].title == "Geometry"
    blank = search.rank_picture(opened, load("sir"), Image.new("RGB", (90, 90), "white"), top=2)
    assert blank.confidence.level == "nothing"
    assert blank.confidence.text == "Nothing to search for"
    corner = drawn(3, (320, 256))
    corner.paste("white", (0, 0, 100, 100))
    boxed = search.rank_picture(opened, load("sir"), corner, (5, 5, 95, 95))
    assert boxed.confidence.reason.startswith("The picture is blank")


def test_every_picture_of_town_has_its_keypoints():
    for _, path in index.find_all("town"):
        opened = index.load(path)
        kept = index.load(verifiers.candidates(path)[0])
        kept.check_checkpoint(checkpoints.REGISTRY["xfeat"])
        assert set(opened.digests) <= set(kept.digests)
    assert verifiers.target(path) == kept.path


def test_an_index_named_from_where_a_command_runs(monkeypatch):
    town = PRECOMPUTED / "town"
    for here, path in ((town, "gem-lite0"), (town / "gem-lite0", ".")):
        monkeypatch.chdir(here)
        assert verifiers.candidates(Path(path))[0] == town / "xfeat"
        beside = verifiers.delf_beside(Path(path))
        assert beside is not None
        assert beside.method == "delf"


def test_others_do_not_wait_for_lighterglue(monkeypatch):
    """Six connections of one client that asked for it kept all other searches waiting for 20 s."""
    begun, end = threading.Event(), threading.Event()
    monkeypatch.setattr(verification, "_with_xfeat", lambda *_: begun.set() or end.wait(60))
    some = Workers(1, 5, slow=Workers(1, 5))
    slow = some.submit("a", partial(verification.geometry_lighterglue, None, None))
    assert begun.wait(60)
    assert some.submit("b", lambda: "found").result(60) == "found"
    assert not slow.done()
    end.set()
    assert slow.result(60)
