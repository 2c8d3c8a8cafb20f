"""Variants of a method agree with the method itself where nothing is changed."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from retrieval import images, index, methods
from retrieval.collections import PRECOMPUTED, open_collection
from retrieval.collections.ground_truth import Query
from retrieval.errors import RetrievalError
from retrieval.evaluation import ablation

EMBEDDED = [PRECOMPUTED / "town" / name for name in ("sir-lite0", "gem-lite0")]


@pytest.mark.parametrize("name", ["sir", "cnn-irwnha"])
@pytest.mark.parametrize("box", [None, (20, 30, 200, 150)])
def test_steps_make_the_descriptor(load, drawn, name, box):
    method = load(name)
    steps = ablation.take_steps(method, drawn(3), box)
    scales = [steps.at_scale(scale) for scale in range(len(steps.maps))]
    assert len(scales) == {"sir": 1, "cnn-irwnha": 2}[name]
    found = ablation.l2(np.mean(scales, axis=0))
    assert found == pytest.approx(method.describe(drawn(3), box), abs=1e-5)


def test_the_exponent_goes_from_the_average_to_the_maximum():
    features = np.random.default_rng(0).random((6, 4, 5), np.float32)
    average, most = features.mean(axis=(1, 2)), features.max(axis=(1, 2))
    assert ablation.pool(features, 1.0) == pytest.approx(
        average / np.linalg.norm(average), abs=1e-5
    )
    assert ablation.pool(features, np.inf) == pytest.approx(most / np.linalg.norm(most), abs=1e-5)
    assert ablation.pool(features, 200.0) == pytest.approx(
        ablation.pool(features, np.inf), abs=0.01
    )
    root = ablation.pool(features, 1.0, power=0.5)
    assert root**2 == pytest.approx(average / average.sum(), abs=1e-5)


@pytest.fixture
def copied(indexes, tmp_path):
    def copy(name):
        shutil.copytree(indexes[name].path, tmp_path / name)
        return index.load(tmp_path / name)

    return copy


@pytest.mark.parametrize("name", ["sir", "cnn-irwnha"])
def test_scores_of_a_variant(copied, collection, load, drawn, name):
    opened, method = copied(name), load(name)
    ablation.make(opened, collection, method)
    found = ablation.load(opened, collection)
    assert np.isnan(found.maps).all()  # nothing is labelled
    steps = ablation.take_steps(method, drawn(9))
    pictures = [images.read(collection.path(one)) for one in opened.names]
    others = [ablation.take_steps(method, picture) for picture in pictures]
    for p in found.exponents:
        exact = [one.pooled(p) @ steps.pooled(p) for one in others]
        assert found.scores(steps, p, False) == pytest.approx(exact, abs=2e-3)
        exact = [
            ablation.project(one.pooled(p), one.layer)
            @ ablation.project(steps.pooled(p), one.layer)
            for one in others
        ]
        assert found.scores(steps, p, True) == pytest.approx(exact, abs=5e-3)
    whole = opened.arrays["descriptors"].astype(np.float32) @ method.describe(drawn(9))
    assert found.scores_of_scales(steps, len(steps.maps)) == pytest.approx(whole, abs=1e-3)


def test_what_does_not_belong_to_the_index_is_refused(copied, collection, load):
    opened = copied("sir")
    assert ablation.load(opened, collection) is None
    ablation.make(opened, collection, load("sir"))
    file = opened.path / ablation.FILE
    kept = file.read_bytes()
    with np.load(file) as arrays:
        honest = dict(arrays)
    bomb = honest | {"pooled": np.zeros((1, len(opened), 100_000), np.uint8)}
    np.savez_compressed(file, allow_pickle=False, **bomb)  # small until it is unpacked
    with pytest.raises(RetrievalError, match="damaged"):
        ablation.load(opened, collection)
    many = {
        "exponents": np.arange(1.0, 1001),
        "pooled": np.ones((1000, len(opened), 1), np.uint8),
        "maps": np.full((1000, 2), 0.5),
    }
    np.savez_compressed(file, allow_pickle=False, **(honest | many))
    with pytest.raises(RetrievalError, match="damaged"):
        ablation.load(opened, collection)
    file.write_bytes(kept)
    others = replace(collection, queries=(Query("q", labels={"easy": np.array([0])}),))
    with pytest.raises(RetrievalError, match="of an earlier index, other labels or other"):
        ablation.load(opened, others)
    manifest = opened.path / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8") + "\n", "utf-8")
    with pytest.raises(RetrievalError, match="query pictures; run: python -m retrieval abl"):
        ablation.load(opened, collection)
    manifest.unlink()  # another process removes or replaces the index
    with pytest.raises(RetrievalError, match="damaged"):
        ablation.load(opened, collection)
    file.write_bytes(b"PK")
    with pytest.raises(RetrievalError, match="damaged"):
        ablation.load(opened, collection)


def test_a_query_that_changes_while_the_others_are_described(
    copied, collection, load, drawn, tmp_path
):
    """The variants of the former one were kept as those of the new one, and where it was gone, a
    traceback came after all the work."""
    opened, method = copied("sir"), load("sir")
    shutil.copytree(collection.root, tmp_path / "pictures")
    mine = replace(collection, root=tmp_path / "pictures", queries=(Query("query.png"),))
    query = mine.path("query.png")
    drawn(9).save(query)
    ablation.make(opened, mine, method, lambda *a: query.unlink(missing_ok=True))
    drawn(8).save(query)
    with pytest.raises(RetrievalError, match="other query pictures; run: python -m retrieval abl"):
        ablation.load(opened, mine)


def test_pictures_that_were_replaced_are_noticed(copied, collection, load, drawn, tmp_path):
    opened, method = copied("sir"), load("sir")
    shutil.copytree(collection.root, tmp_path / "pictures")
    drawn(9).save(tmp_path / "pictures" / "query.png")
    mine = replace(collection, root=tmp_path / "pictures", queries=(Query("query.png"),))
    ablation.make(opened, mine, method)
    assert ablation.load(opened, mine) is not None
    drawn(8).save(mine.path("query.png"))
    with pytest.raises(RetrievalError, match="other query pictures; run: python -m retrieval abl"):
        ablation.load(opened, mine)
    mine.path("query.png").unlink()  # then nobody can tell
    assert ablation.load(opened, mine) is not None
    name = opened.names[0]
    drawn(8).save(mine.path(name), "PNG")
    with pytest.raises(RetrievalError, match=rf"{name} was replaced since the index .* was made"):
        ablation.make(opened, replace(mine, queries=()), method)


def test_more_pictures_than_fit_into_memory(copied, collection, load, monkeypatch):
    opened = copied("sir")
    ablation.make(opened, collection, load("sir"))
    monkeypatch.setattr(ablation, "MAX_PICTURES", len(opened) - 1)
    with pytest.raises(RetrievalError, match="it is for up to"):
        ablation.load(opened, collection)
    with pytest.raises(RetrievalError, match="it is for up to"):
        ablation.make(opened, collection, load("sir"))


def test_more_scales_than_are_kept(collection, load, tmp_path):
    """Of the pictures the first two scales and all of them are kept, so three are the most."""
    method = load("cnn-irwnha", scales=[1.0, 0.7071, 0.5, 0.3536])
    built = index.build(collection, method, tmp_path / "four")
    with pytest.raises(RetrievalError, match="up to 10,000 pictures and 3 scales"):
        ablation.make(built, collection, method)
    with pytest.raises(RetrievalError, match="3 scales"):  # so no page names that command
        ablation.load(built, collection)


def test_a_method_with_other_steps_is_told_so_whatever_its_scales(indexes, collection, load):
    """An index of DELF was told that an ablation is for up to three."""
    opened = indexes["delf"]
    assert len(opened.settings["scales"]) > ablation.MAX_SCALES
    with pytest.raises(RetrievalError, match="which SIR and CNN-IRwNHA have"):
        ablation.make(opened, collection, load("delf"))


def test_where_nothing_can_be_written_no_picture_is_read(copied, collection, load, monkeypatch):
    opened, seen = copied("sir"), []
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(RetrievalError, match=r"ablation cannot be kept in .* nothing can be"):
        ablation.make(opened, collection, load("sir"), lambda *progress: seen.append(progress))
    assert not seen


def test_a_query_that_cannot_be_read_is_said_before_pictures_are_described(
    copied, collection, load
):
    """All pictures may take hours."""
    opened, seen = copied("sir"), []
    gone = replace(collection, queries=(Query("gone.png"),))
    with pytest.raises(RetrievalError, match=r"gone\.png cannot be read"):
        ablation.make(opened, gone, load("sir"), lambda *progress: seen.append(progress))
    assert not seen


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exponents", [-1.0]),
        ("exponents", [np.nan]),
        ("maps", [[np.inf, 0.5]]),
        ("maps", [[0.5, 7.0]]),
        ("maps", [[np.nan, 0.5]]),  # the page said nan%
        ("scale_maps", [-1.0]),
    ],
)
def test_values_that_cannot_be(copied, collection, load, name, value):
    opened = copied("sir")
    asked = Query(collection.names[0], labels={"easy": np.array([1])})
    labelled = replace(collection, queries=(asked,))
    ablation.make(opened, labelled, load("sir"))
    assert ablation.load(opened, labelled)
    file = opened.path / ablation.FILE
    with np.load(file) as honest:
        wrong = dict(honest) | {name: np.array(value)}
    np.savez_compressed(file, allow_pickle=False, **wrong)
    with pytest.raises(RetrievalError, match="damaged"):
        ablation.load(opened, labelled)


def test_variants_of_another_network(copied, collection, load, drawn):
    """They match the index and not the steps of its method, which the page asked them for."""
    opened = copied("sir")
    found = ablation.make(opened, collection, load("sir"))
    steps = ablation.take_steps(load("sir"), drawn(9))
    assert found.fits(steps)
    for wrong in (
        replace(found, exponents=found.exponents + 1),
        replace(found, pooled=found.pooled[..., :-1]),
        replace(found, scale_maps=np.zeros(3)),
    ):
        assert not wrong.fits(steps)


def test_maxima_and_local_features_have_no_such_steps(load, drawn):
    with pytest.raises(RetrievalError, match="no ablation"):
        ablation.take_steps(load("delf"), drawn(3))


@pytest.mark.skipif(not all(path.is_dir() for path in EMBEDDED), reason="town is not here")
@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.name)
def test_the_embedded_variants_are_of_the_embedded_index(path):
    opened, town = index.load(path), open_collection("town")
    found = ablation.load(opened, town)
    assert found.pooled.shape[:2] == (len(found.exponents), len(town.names))
    query = town.queries[0]
    method = methods.for_index(opened)
    steps = ablation.take_steps(method, images.read(town.path(query.name)), query.box)
    own = int(np.flatnonzero(found.exponents == steps.exponent)[0])
    picture = ablation.take_steps(method, images.read(town.path(town.names[5])))
    assert found.pooled[own, 5] == pytest.approx(picture.pooled(steps.exponent), abs=5e-3)
    whole = found.scores_of_scales(steps, len(steps.maps))
    first = found.scores_of_scales(steps, 1)
    assert np.corrcoef(whole, first)[0, 1] > 0.8
    assert (found.maps > 0.3).all()
