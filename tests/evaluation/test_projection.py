"""Maps of descriptors keep what they promise to keep."""

import numpy as np
import pytest

from retrieval.evaluation import projection
from retrieval.workers import Workers


def clusters(count=3, each=12, width=20):
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(width)[:count], each, axis=0)
    vectors = centres + 0.1 * rng.normal(size=centres.shape)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_principal_directions_of_a_plane():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(7, 2)))[0].T
    flat = rng.normal(size=(30, 2)) @ np.diag([3.0, 1.0]) @ basis + 5
    found = projection.pca(flat)
    assert found.share == pytest.approx(1)
    places = found.place(flat)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    assert np.linalg.norm(places[:, None] - places[None], axis=2) == pytest.approx(distances)
    assert places[:, 0].std() > places[:, 1].std()


def test_equal_descriptors_have_one_place():
    found = projection.pca(np.ones((4, 3)))
    assert found.share == 0
    assert found.place(np.ones((4, 3))) == pytest.approx(np.zeros((4, 2)))
    # Of copies of one picture t-SNE ended the process: without the guard this ends the test run.
    assert not projection.tsne(np.ones((4, 3))).any()


def test_neighbourhoods_keep_clusters_together():
    places = projection.tsne(clusters())
    assert places.shape == (36, 2)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(axis=1) // 12 == np.arange(36) // 12).all()
    assert np.array_equal(places, projection.tsne(clusters()))


def test_few_pictures():
    assert np.isfinite(projection.tsne(clusters(2, 2))).all()


def test_searches_do_not_wait_for_a_map():
    """Two maps of 2000 pictures kept both quick workers, and a search waited 24 s."""
    workers = Workers(1, 10, slow=Workers(1, 10))
    places = workers.run("anybody", lambda: projection.tsne(clusters()), lambda place: None)
    assert places.shape == (36, 2)
    assert workers.slow._threads
