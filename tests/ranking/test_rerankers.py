"""Every re-ranker against a plain version written from the formula of its paper."""

import dataclasses

import numpy as np
import pytest
from made_up import exact, save, scene, unit

from retrieval.ranking import chain, diffusion, expansion, reciprocal, search, superglobal
from retrieval.ranking.ranking import Query


def with_inliers(ranking, inliers):
    """The ranking as geometry would leave it: inliers (N,) by position, confirmed ones first."""
    counts = np.array(inliers)[ranking.positions]
    order = np.argsort(-counts, kind="stable")
    return dataclasses.replace(
        ranking,
        positions=ranking.positions[order],
        names=tuple(ranking.names[i] for i in order),
        inliers=counts[order],
        before=ranking,
        stage="geometry",
    )


def test_average_expansion(groups):
    opened, query = groups
    first = search.rank_features(opened, query)
    vectors = exact(opened)
    asked = query + sum(vectors[i] for i in first.positions[:5])
    expected = vectors @ unit(asked)
    found = chain.rerank(first, Query(opened, query), ["expansion-average"])
    assert found.positions.tolist() == np.argsort(-expected).tolist()
    np.testing.assert_allclose(found.scores, np.sort(expected)[::-1], atol=1e-5)


def test_expansion_without_geometry_weighs_by_the_cosine(groups):
    opened, query = groups
    first = search.rank_features(opened, query)
    vectors = exact(opened)
    asked = query + sum((vectors[i] @ query) ** 3 * vectors[i] for i in first.positions[:3])
    expected = vectors @ unit(asked)
    found = expansion.expansion(first, Query(opened, query))
    assert found.positions.tolist() == np.argsort(-expected).tolist()


def test_expansion_asks_with_what_geometry_confirmed(groups):
    opened, query = groups
    first = search.rank_features(opened, query)
    inliers = np.zeros(60, int)
    inliers[[7, 13, 40]] = 30, 12, 99
    vectors = exact(opened)
    expected = vectors @ unit(query + vectors[7] + vectors[13] + vectors[40])
    found = expansion.expansion(with_inliers(first, inliers), Query(opened, query))
    assert found.positions.tolist() == np.argsort(-expected).tolist()
    assert found.inliers.tolist() == inliers[found.positions].tolist()


@pytest.mark.parametrize("own", [None, 6])
def test_augmentation_against_a_loop(groups, own):
    opened, query = groups
    vectors = exact(opened)
    expected = {}
    for i in range(60):
        others = [j for j in range(60) if j not in (i, own)]
        near = sorted(others, key=lambda j: -vectors[i] @ vectors[j])[:3]
        expected[i] = unit(vectors[i] + sum(vectors[j] for j in near)) @ query
    first = search.rank_features(opened, query)
    asked = Query(opened, query, own=own)
    found = expansion.augmentation(first, asked)
    # Pictures that are each other's neighbours have the same average: they stay in order.
    order = sorted(first.positions.tolist(), key=lambda i: -round(expected[i], 5))
    assert found.positions.tolist() == order
    np.testing.assert_allclose(found.scores, sorted(expected.values())[::-1], atol=1e-5)


def plain_diffusion(vectors, y, own=None):
    """Iscen et al., CVPR 2017, equations 3 to 8, with the matrix inverted."""
    count = len(vectors)
    similar = vectors @ vectors.T
    near = [
        set(sorted((j for j in range(count) if j != i), key=lambda j: -similar[i, j])[:20])
        for i in range(count)
    ]
    w = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if j in near[i] and i in near[j]:
                w[i, j] = max(similar[i, j], 0) ** 3
    d = w.sum(axis=1)
    s = w / np.sqrt(np.outer(d, d) + 1e-300)
    if own is not None:
        s[own] = s[:, own] = 0
    return np.linalg.inv(np.eye(count) - 0.7 * s) @ y


@pytest.mark.parametrize("own", [None, 12])
@pytest.mark.parametrize("confirmed", [False, True])
def test_diffusion_against_the_inverse_of_the_whole_matrix(groups, confirmed, own):
    opened, query = groups
    first = search.rank_features(opened, query)
    likeness = dict(zip(first.positions.tolist(), first.scores.tolist(), strict=True))
    inliers = np.zeros(60, int)
    if confirmed:
        inliers[[3, 9, 30]] = 40, 12, 13
    sources = [3, 30, 9] if confirmed else first.positions[:5].tolist()
    y = np.zeros(60)
    for i in sources:
        y[i] = max(likeness[i], 1e-3) ** 3
    f = plain_diffusion(exact(opened), y, own)
    before = with_inliers(first, inliers) if confirmed else first
    found = diffusion.diffusion(before, Query(opened, query, own=own))
    place = {position: i for i, position in enumerate(before.positions.tolist())}
    others = sorted(
        (i for i in range(60) if not inliers[i]), key=lambda i: (-max(f[i], 0), place[i])
    )
    same = [*([3, 30, 9] if confirmed else []), *others]
    reached = sum(f > 1e-4 * f.max())  # below, the accuracy of the solution decides
    assert found.positions[:reached].tolist() == same[:reached]
    # Without geometry nothing says that it confirmed no picture.
    assert (found.inliers is None) == (not confirmed)
    shares = found.scores - (0 if found.inliers is None else found.inliers)
    np.testing.assert_allclose(shares, 0.999 * f[found.positions].clip(0) / f.max(), atol=1e-4)


def test_diffusion_leaves_what_nothing_reaches_in_its_order(tmp_path):
    """Two groups without an edge between them: only that of the query is touched."""
    rng = np.random.default_rng(4)
    vectors = np.zeros((60, 20))
    vectors[:25, :10] = np.abs(rng.normal(size=(25, 10)))
    vectors[25:, 10:] = np.abs(rng.normal(size=(35, 10)))
    opened = save(tmp_path / "index", unit(vectors))
    query = unit(np.r_[np.ones(10), np.linspace(0.01, 0.05, 10)]).astype(np.float32)
    first = search.rank_features(opened, query)
    found = diffusion.diffusion(first, Query(opened, query))
    assert set(found.positions[:25].tolist()) == set(range(25))
    assert found.positions[25:].tolist() == [i for i in first.positions.tolist() if i >= 25]
    assert (found.scores[25:] == 0).all()


def test_one_picture_says_why_diffusion_does_nothing(tmp_path):
    opened = save(tmp_path / "index", np.eye(3)[:1])
    query = np.float32([1, 0, 0])
    found = diffusion.diffusion(search.rank_features(opened, query), Query(opened, query))
    assert found.notes == ["Diffusion needs a collection of at least two pictures."]
    assert found.names == ("000.jpg",)


def plain_k_reciprocal(vectors, query, k1=10, k2=3, weight=0.3):
    """Zhong et al., CVPR 2017, with sets, equation by equation; row 0 is the query."""
    rows = np.vstack([query, vectors]).astype(np.float64)
    count = len(rows)
    squared = np.array([[((a - b) ** 2).sum() for b in rows] for a in rows])
    original = squared / squared.max(axis=1, keepdims=True)

    def nearest(i, k):
        others = sorted((j for j in range(count) if j != i), key=lambda j: (original[i, j], j))
        return [i, *others[:k]]

    def reciprocal(i, k):
        return {j for j in nearest(i, k) if i in nearest(j, k)}

    encoded = np.zeros((count, count))
    for i in range(count):
        members = reciprocal(i, k1)
        larger = set(members)
        for j in members:
            other = reciprocal(j, round(k1 / 2))
            if len(other & members) > 2 / 3 * len(other):
                larger |= other
        for j in larger:
            encoded[i, j] = np.exp(-original[i, j])
        encoded[i] /= encoded[i].sum()
    expanded = np.array([encoded[nearest(i, k2 - 1)].mean(axis=0) for i in range(count)])
    final = []
    for i in range(1, count):
        least = sum(min(a, b) for a, b in zip(expanded[0], expanded[i], strict=True))
        most = sum(max(a, b) for a, b in zip(expanded[0], expanded[i], strict=True))
        final.append((1 - weight) * (1 - least / most) + weight * original[0, i])
    return np.array(final)


@pytest.mark.parametrize("seed", range(3))
def test_k_reciprocal(seed):
    vectors, query = scene(seed, count=40)
    rows = np.vstack([query, vectors])
    found = reciprocal.distances(2 - 2 * rows @ rows.T)
    np.testing.assert_allclose(found, plain_k_reciprocal(vectors, query), atol=1e-6)


def test_k_reciprocal_orders_the_shortlist_only(tmp_path):
    vectors, query = scene(5, count=130)
    opened = save(tmp_path / "index", vectors)
    first = search.rank_features(opened, query)
    found = reciprocal.k_reciprocal(first, Query(opened, query))
    plain = plain_k_reciprocal(unit(exact(opened))[first.positions[:100]], query)
    assert found.positions[:100].tolist() == first.positions[np.argsort(plain)].tolist()
    np.testing.assert_allclose(found.scores[:100], 1 - np.sort(plain), atol=1e-6)
    assert found.positions[100:].tolist() == first.positions[100:].tolist()
    assert not found.scores[100:].any()


def plain_superglobal(vectors, query, neighbours=9, beta=0.15):
    """Shao et al., ICCV 2023, section 3.3: refined pictures, refined query, mean of both."""
    refined = []
    for v in vectors:
        order = sorted(range(len(vectors)), key=lambda j: -(v @ vectors[j]))[1 : neighbours + 1]
        weights = [1, *(beta * (v @ vectors[j]) for j in order)]
        total = sum(w * x for w, x in zip(weights, [v, *vectors[order]], strict=True))
        refined.append(total / sum(weights))
    refined = np.array(refined)
    plain = refined @ query
    best = refined[np.argsort(-plain)[: neighbours + 1]].max(axis=0)
    return (plain + refined @ best) / 2


def test_superglobal_against_a_loop(groups):
    opened, query = groups
    first = search.rank_features(opened, query)
    expected = plain_superglobal(exact(opened)[first.positions], query)
    found = superglobal.superglobal(first, Query(opened, query))
    assert found.positions.tolist() == first.positions[np.argsort(-expected)].tolist()
    np.testing.assert_allclose(found.scores, np.sort(expected)[::-1].clip(0), atol=1e-5)
