"""Why a result was found: which places raise its score, or which keypoints match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair
import numpy as np
import streamlit as st

from pages.parts import cards, compare, extraction, loaders, query
from pages.parts.judging import Judged
from pages.parts.keypoints.figures import open_picture
from pages.parts.search.answer import Search
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation.similarity import MAX_PICTURES
from retrieval.figures import local_features as plots
from retrieval.index import Index
from retrieval.methods import METHODS
from retrieval.methods.base import LocalFeatures, as_local
from retrieval.ranking import confidence, geometry
from retrieval.ranking.geometry import NOISE_FLOOR, Verification
from retrieval.ranking.ranking import Ranking
from retrieval.ranking.verification import MIN_INLIERS

PICTURE_SIDE = 800  # pixels of the longer side of a picture on show
ROUNDING = 1e-4  # of the cosines of an index, whose vectors are stored in 16 bits


def explain_result(search: Search, path: Path, hit: str) -> None:
    """Show both pictures, and why the method of the index at ``path`` gives ``hit`` its score.

    hit: name of the result.
    """
    opened = loaders.index_of(path, search.collection)
    other = query.in_database(search.collection, hit)
    try:
        shown = _views(search.query_picture, other)
    except RetrievalError:
        alt = "the result" if search.hidden else ""
        cards.picture(search.collection, hit, PICTURE_SIDE, alt)
        return
    if opened.kind == "global":
        score = _show_places(search, opened, other, shown)
        if score is not None:
            _show_histogram(path, search.collection, score, len(opened))
    else:
        _show_matches(search, opened, other, shown)


def _views(*pictures: query.QueryPicture) -> list:
    """A copy of each picture as JPEG, and the size of the original."""
    return [loaders.view(picture.source, PICTURE_SIDE, picture.name) for picture in pictures]


def _show_places(
    search: Search, opened: Index, other: query.QueryPicture, shown: list
) -> float | None:
    """Show heat maps that add up to the cosine, which is returned; None where it has no parts.

    shown: of both pictures, as from ``_views``.
    """
    first, second = (
        extraction.places(
            picture.source, picture.key, area, opened.method, opened.checkpoint, opened.settings
        )
        for picture, area in ((search.query_picture, search.box), (other, None))
    )
    if first is None or second is None:
        st.info("The pooling of this network takes maxima: its score has no parts to show.")
        return None
    score = float(np.sum(first.vectors.sum((0, 1)) * second.vectors.sum((0, 1))))
    jpegs, sizes = zip(*shown, strict=True)
    compare.heat(
        jpegs,
        sizes,
        (first, second),
        f"Yellow places raise the cosine, blue ones lower it; all add up to {score:.3f}. Click a "
        "place, or go there with the arrow keys, to see where the other picture is like it.",
        f"heat-{other.key}",
    )
    title = METHODS[opened.method].title
    if opened.method == "sir":
        st.caption(
            f"{title} averages its features over all places, so each has a part in the cosine."
        )
    else:
        st.caption(
            f"{title} takes a mean of its features over all places in which the strong ones count "
            "more (GeM), so each has a part in the cosine."
        )
    return score


def _show_histogram(path: Path, collection: Collection, score: float, pictures: int) -> None:
    """Show the score beside those of pairs that do and do not show one landmark.

    pictures: of the index at ``path``; of many, only the first are compared with each other.
    """
    right, unrelated = loaders.pair_cosines(path, collection)
    if not len(right) or not len(unrelated):
        return
    usual = float(np.quantile(unrelated, 0.99))
    same, other = ((values > score - ROUNDING).sum() for values in (right, unrelated))
    rare = (
        "Pictures of different places are rarely so alike: only 1 such pair in 100 has "
        f"{usual:.2f} or more."
        if score >= usual
        else "That says little: more than 1 in 100 pairs of different places are as alike."
    )
    first = f" among the first {MAX_PICTURES:,} pictures" if pictures > MAX_PICTURES else ""
    st.markdown(
        f"This pair has a cosine of **{score:.2f}** (grey line). {rare} As alike or more{first}: "
        f"**{same:,}** of the {len(right):,} pairs of the same landmark, **{other:,}** of the "
        f"{len(unrelated):,} pairs of different places."
    )
    st.altair_chart(
        _histogram(right, unrelated, score),
        alt=f"Histograms of cosines; this pair: {score:.2f}",
    )


def _histogram(right: np.ndarray, unrelated: np.ndarray, score: float) -> altair.LayerChart:
    """Cosines of pairs of one landmark (n,) and of different places (m,), and one score."""
    from pages.parts import axes

    shown = np.concatenate([right, unrelated, [score, 1]])  # of copies it may be 1.0001
    kinds = ["Same landmark", "Different places"]
    colours = altair.Scale(
        domain=kinds, range=[cards.VERDICTS[v].colour for v in ("positive", "wrong")]
    )
    # One kind is filled, the other almost an outline, for those who see no colours.
    filled = altair.Scale(domain=kinds, range=[0.75, 0.1])
    legend = altair.Legend(orient="top", title=None, columns=1)  # side by side, a phone cuts them
    edges = np.linspace(shown.min() - 0.01, shown.max(), 41)
    bars = []
    for kind, values in zip(kinds, (right, unrelated), strict=True):
        shares = np.histogram(values, edges)[0] / len(values)
        for left, end, share in zip(edges[:-1], edges[1:], shares, strict=True):
            bars.append({"from": left, "to": end, "share": share, "zero": 0, "Pairs": kind})
    base = (
        altair.Chart(altair.Data(values=bars))
        .mark_bar(strokeWidth=1)
        .encode(
            x=altair.X(
                "from:Q",
                axis=altair.Axis(title="Cosine of two pictures of this collection", tickCount=10),
            ),
            x2="to:Q",
            y=altair.Y("share:Q", stack=None, axis=altair.Axis(title="Share of pairs", format="%")),
            y2="zero:Q",
            color=altair.Color("Pairs:N", scale=colours, legend=legend),
            stroke=altair.Stroke("Pairs:N", scale=colours, legend=legend),
            fillOpacity=altair.FillOpacity("Pairs:N", scale=filled, legend=legend),
        )
    )
    line = (
        altair.Chart(altair.Data(values=[{"score": score}]))
        .mark_rule(size=3, color="#888")
        .encode(x="score:Q")
    )
    return (base + line).properties(height=300).configure_axis(**axes.READABLE)


def show_inliers(ranking: Ranking, judged: Judged, n: int) -> None:
    """Show the inliers of one result beside those of other results. n: its rank, from 0."""
    assert ranking.inliers is not None
    verdicts = [judged.verdict(name) for name in ranking.names]
    rows = [
        {
            "inliers": int(count),
            "Result": cards.VERDICTS[verdict].label,
            "name": Path(name).name,
        }
        for name, verdict, count in zip(ranking.names, verdicts, ranking.inliers, strict=True)
        if verdict in ("positive", "wrong") and count
    ]
    wrong = [count for v, count in zip(verdicts, ranking.inliers, strict=True) if v == "wrong"]
    elsewhere = ""
    if wrong:  # a visitor may have judged none of their pictures wrong
        elsewhere = (
            f"; at most {max(wrong)} in pictures of other places"
            if any(wrong)
            else "; geometry confirms no picture of another place"
        )
    own = ranking.inliers[n] or "too few, or never counted,"
    line = " (grey line)" if rows else ""
    st.markdown(f"Inliers in this search: **{own}** here{line}{elsewhere}.")
    if rows:
        st.altair_chart(
            _inlier_ticks(rows, int(ranking.inliers[n])), alt="Inliers of right and wrong results"
        )


def _inlier_ticks(rows: list[dict[str, Any]], own: int) -> altair.LayerChart:
    """A chart of the inliers of right and wrong results, with a line at those of one result.

    rows: one dictionary a result: ``inliers``, ``Result`` (label of its verdict) and ``name``.
    own: inliers of the one result.
    """
    from pages.parts import axes

    labels = [cards.VERDICTS[verdict].label for verdict in ("positive", "wrong")]
    ticks = (
        altair.Chart(altair.Data(values=rows))
        .mark_tick(thickness=3, size=26, opacity=0.8)
        .encode(
            x=altair.X(
                "inliers:Q",
                axis=altair.Axis(title="Inliers of the results of this search", tickCount=10),
            ),
            y=altair.Y("Result:N", sort=labels, title=None),
            color=altair.Color(
                "Result:N",
                scale=altair.Scale(
                    domain=labels, range=[cards.VERDICTS[v].colour for v in ("positive", "wrong")]
                ),
                legend=None,
            ),
            tooltip=["name:N", "inliers:Q"],
        )
    )
    line = (
        altair.Chart(altair.Data(values=[{"inliers": own}]))
        .mark_rule(size=3, color="#888")
        .encode(x="inliers:Q")
    )
    return (ticks + line).properties(height=170).configure_axis(**axes.READABLE)


def show_geometry(search: Search, path: Path, hit: str, reranker: str) -> None:
    """Show the matches that a re-ranker by geometry counts. reranker: a key of PAIR_MATCHERS."""
    st.markdown("#### What geometry saw")
    collection, query_picture = search.collection, search.query_picture
    compared = extraction.xfeat_matches(path, collection, query_picture, search.box, hit, reranker)
    if compared is None:
        st.info("The picture of this result is not on this machine.")
        return
    a, b, pairs, verified = compared
    other = query.in_database(collection, hit)
    shown = _views(query_picture, other)
    compare.matches(shown, _lines(a, b, pairs, verified), f"xfeat-{other.key}")
    learned = ", and LighterGlue matches them" if reranker == "geometry-lighterglue" else ""
    sure = confidence.sure_inliers(reranker)
    st.markdown(
        f"XFeat finds keypoints in both pictures{learned}: **{verified.count} of {len(pairs)} "
        f"matches are inliers**. {confidence.meaning(verified.count, MIN_INLIERS, sure)}"
    )


def _show_matches(search: Search, opened: Index, other: query.QueryPicture, shown: list) -> None:
    """Show the matches of DELF, and the aligned pictures where enough of them agree.

    shown: of both pictures, as from ``_views``.
    """
    query_picture, box = search.query_picture, search.box
    sizes = [size for _, size in shown]
    a = extraction.delf(
        query_picture.source, query_picture.key, box, opened.checkpoint, opened.settings
    )
    b = as_local(opened.features(opened.positions[other.name]))
    pairs, verified = geometry.verify_features(a, b, sizes[1])
    agree = verified.matrix is not None and verified.count >= NOISE_FLOOR
    outlines = geometry.outlines(box or (0, 0, *sizes[0]), verified) if agree else (None, None)
    seen_a, seen_b = (
        extraction.field_sides(features, size, area, opened.checkpoint, opened.settings)
        for features, size, area in zip((a, b), sizes, (box, None), strict=True)
    )
    sides = None
    if seen_a is not None and seen_b is not None:
        sides = seen_a[pairs[:, 0]], seen_b[pairs[:, 1]]
    lines = _lines(a, b, pairs, verified)._replace(outlines=outlines, sides=sides)
    compare.matches(shown, lines, f"matches-{other.key}")
    if verified.matrix is not None and agree:
        st.markdown(
            f"**{verified.count} of {len(pairs)} matches of DELF are inliers**: they agree on how "
            f"the camera moved. {confidence.meaning(verified.count, NOISE_FLOOR)}"
        )
        above = plots.aligned(
            open_picture(query_picture.source, query_picture.name)[0],
            sizes[0],
            open_picture(other.source, other.name)[0],
            sizes[1],
            verified.matrix,
        )
        compare.aligned(open_picture(other.source, other.name)[0], above, f"aligned-{other.key}")
    else:
        st.markdown(
            f"**{verified.count} of {len(pairs)} matches are inliers.** "
            f"{confidence.meaning(verified.count, NOISE_FLOOR)} DELF then ranks a picture by its "
            "votes, which count similar details wherever they are."
        )


def _lines(
    a: LocalFeatures, b: LocalFeatures, pairs: np.ndarray, verified: Verification
) -> compare.Lines:
    """The matches of two pictures, to be drawn. pairs: (K, 2), rows of the features a and b."""
    first, second = pairs.T
    return compare.Lines(
        (a.keypoints[first], b.keypoints[second]),
        geometry.similarities(a, b, pairs),
        verified.inliers,
    )
