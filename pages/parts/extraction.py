"""Cached results of the networks: places, keypoints, attention, and matches of two pictures.

Everything is computed when it is this session's turn, and cached (``loaders``).
A picture is a file, or the bytes that a visitor brought; its ``key`` stands for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from PIL import Image

from pages.parts.loaders import (
    cached,
    decoded,
    features_key,
    file_key,
    index_of,
    load_method,
    timed,
)
from pages.parts.turns import in_turn
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import ablation
from retrieval.images import Box
from retrieval.methods.base import Features, LocalFeatures, Method, as_local
from retrieval.methods.places import Places
from retrieval.ranking import lighterglue as lighterglue_module
from retrieval.ranking import search, verification, verifiers
from retrieval.ranking.geometry import Verification
from retrieval.ranking.ranking import Query

if TYPE_CHECKING:
    from pages.parts.query import QueryPicture
    from retrieval.methods.delf import Attention


def _decoded_for(method: Method, source: Path | bytes) -> Image.Image:
    """A picture for a method. Slow workers do what comes next where that takes seconds."""
    search.leave_to_slow_workers(method)
    return decoded(source)


def places(
    source: Path | bytes, key: str, box: Box | None, name: str, checkpoint: str, settings: Mapping
) -> Places | None:
    """The part of each place in the descriptor of a picture; None where the pooling has no parts.

    name: of the method.
    """
    method = load_method(name, checkpoint, **settings)
    if not hasattr(method, "places"):
        return None
    return cached(
        source,
        ("places", key, box, method.checkpoint.id, json.dumps(settings)),
        lambda: method.places(_decoded_for(method, source), box),
        "Looking at every place of the picture",
    )


def steps(
    path: Path, collection: Collection, query_picture: QueryPicture, box: Box | None
) -> ablation.Steps:
    """The steps of the method of an index, for a picture or for the box in it.

    Raises RetrievalError where the index was made with other weights or settings.
    """
    index_key = file_key(path / "manifest.json")
    opened = index_of(path, collection)
    method = load_method(opened.method, opened.checkpoint, **opened.settings)
    opened.check_method(method)
    return cached(
        query_picture.source,
        ("steps", index_key, query_picture.key, box),
        lambda: ablation.take_steps(method, _decoded_for(method, query_picture.source), box),
        "Taking the picture through the network",
    )


def delf(
    source: Path | bytes, key: str, box: Box | None, checkpoint: str | None, settings: Mapping
) -> LocalFeatures:
    """DELF's features of a picture. They are cached; other thresholds need no new ones."""
    method = load_method("delf", checkpoint, **settings)

    def describe() -> tuple[Features, float]:
        picture = _decoded_for(method, source)
        return timed(lambda: method.describe(picture, box))

    features, _ = cached(
        source, features_key(key, box, method, settings), describe, "Finding keypoints"
    )
    return as_local(features)


def field_sides(
    features: LocalFeatures,
    size: tuple[int, int],
    box: Box | None,
    checkpoint: str | None,
    settings: Mapping,
) -> np.ndarray | None:
    """Sides (N,) of the squares that DELF's keypoints see, in pixels of their picture.

    size: (width, height) of the picture, of which ``box`` was described. None where the checkpoint
    cannot tell.
    """
    method = load_method("delf", checkpoint, **settings)
    if not hasattr(method, "field_side"):
        return None
    return method.field_side(size, box) / features.scales


def attention(
    source: Path | bytes, key: str, scale: float, checkpoint: str | None, settings: Mapping
) -> Attention | None:
    """DELF's attention all over one pyramid level; None where the checkpoint cannot tell."""
    method = load_method("delf", checkpoint, **settings)
    if not hasattr(method, "attention"):
        return None
    return cached(
        source,
        ("attention", key, scale, method.checkpoint.id, json.dumps(settings)),
        lambda: method.attention(_decoded_for(method, source), scale),
        "Looking at every place of the picture",
    )


def xfeat(source: Path | bytes, key: str, box: Box | None = None) -> LocalFeatures:
    """XFeat's features of a picture, as many as a query has."""
    return cached(
        source,
        ("xfeat-features", key, box),
        lambda: as_local(verifiers.xfeat().describe(decoded(source), box)),
        "Finding keypoints",
    )


def xfeat_stored(path: Path, collection: Collection, name: str) -> LocalFeatures | None:
    """XFeat's features of a picture as the re-ranking has them.

    None where the index at ``path`` lacks the picture, or is in a store that cannot be asked now.
    """
    try:
        opened = index_of(path, collection).holding(name)
    except RetrievalError:
        return None
    if name not in opened.positions:
        return None
    with st.spinner("Finding keypoints"):
        return in_turn(
            lambda: verifiers.DatabaseFeatures(opened, collection).features(opened.positions[name])
        )


def xfeat_matches(
    path: Path,
    collection: Collection,
    query_picture: QueryPicture,
    box: Box | None,
    hit: str,
    reranker: str,
) -> tuple[LocalFeatures, LocalFeatures, np.ndarray, Verification] | None:
    """The data that a re-ranker by geometry compares, of a query and a result.

    reranker: a key of ``verification.PAIR_MATCHERS``. Returns XFeat's features of both, their pairs
    (K, 2) and the verification; None where the result cannot be read.
    """
    index_key = file_key(path / "manifest.json")
    opened = index_of(path, collection).holding(hit)
    position = opened.positions[hit]

    def compare() -> tuple[LocalFeatures, LocalFeatures, np.ndarray, Verification] | None:
        picture = decoded(query_picture.source)
        without_vector = np.empty(0, np.float32)
        ranking_query = Query(opened, without_vector, picture, box, collection=collection)
        a = verifiers.of_query(ranking_query, "xfeat", verifiers.xfeat)
        b = verifiers.DatabaseFeatures(opened, collection).features(position)
        if a is None or b is None:
            return None
        alone, size_a = verification.of_box(a, picture.size, box)
        match_pair = verification.PAIR_MATCHERS[reranker]
        pairs, found = match_pair(alone, b, size_a, opened.size(position))
        return a, b, pairs, found

    return cached(
        query_picture.source,
        (reranker, index_key, query_picture.key, box, hit),
        compare,
        "Matching keypoints",
    )


def lighterglue(
    source: Path | bytes,
    key: tuple,
    sides: tuple[LocalFeatures, LocalFeatures],
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> np.ndarray:
    """Pairs (K, 2) that LighterGlue finds. key: stands for both sides."""
    return cached(
        source,
        ("lighterglue", *key),
        lambda: lighterglue_module.match(*sides, *sizes),
        "Matching keypoints",
    )
