"""Ablation: one step of a method is changed or left out, to see its effect on the mAP.

It is for methods with one descriptor a picture.

The steps are those of ``GlobalMethod``: feature map, generalised mean with an exponent p (GeM,
Radenović, Tolias and Chum, TPAMI 2018, eq. 3), L2, the last layer (SIR's fully connected one, the
whitening of CNN-IRwNHA), L2, and the mean over scales. Network and last layer are those that were
learned with the method's own exponent; they are not learned again for another.

``ablation.npz`` beside an index keeps the pooled vectors of all pictures for several exponents, in
8 bits a number, so that a page can change a step at once; and the mAP of each variant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from retrieval import files, images
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation.protocols import evaluate
from retrieval.evaluation.queries import ranks_of
from retrieval.evaluation.runs import labels_digest, query_pictures_digest
from retrieval.images import Box
from retrieval.index import Index
from retrieval.methods.base import GlobalMethod, Method

FILE = "ablation.npz"
PROTOCOL = "medium"
MAX_PICTURES = 10_000  # all their vectors are in memory, and several times: 1.5 GB
MAX_SCALES = 3  # the first two and the mean of all are kept of each picture
MAX_BYTES = 16_000  # of a picture: five exponents and 2048 channels take 14 500
EXPONENTS = (1.0, 2.0, 5.0, np.inf)  # of CNN-IRwNHA, beside its own: from average to maximum
Layer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Steps:
    """The results of the steps of a method for one picture.

    maps: feature maps (C, h, w) float32 by scale, the method's first scale first. exponent: the
    method's own p. power: of SIR's square root, else 1. layer: weight (D, C) and bias (D,).
    """

    maps: tuple[np.ndarray, ...]
    exponent: float
    power: float
    layer: Layer | None

    def pooled(self, p: float, scale: int = 0) -> np.ndarray:
        """(C,) of unit length: the feature map of one scale, pooled with exponent p."""
        return pool(self.maps[scale], p, self.power)

    def shares(self, p: float) -> np.ndarray:
        """(h, w), sum 1: the share of each place of the first scale in the vector pooled with p.

        A place has its part of the powers in each channel, and a channel its part of the length of
        the pooled vector (SIR's square root changes the latter only).
        """
        values = self.maps[0].astype(np.float64).clip(min=0)
        if np.isinf(p):
            powers = (values == values.max(axis=(1, 2), keepdims=True)).astype(float)
        else:
            powers = values**p
        sums = powers.sum(axis=(1, 2), keepdims=True)
        parts = np.divide(
            powers, sums, out=np.full_like(powers, 1 / powers[0].size), where=sums > 0
        )
        return np.tensordot(self.pooled(p).astype(np.float64) ** 2, parts, 1)

    def at_scale(self, scale: int) -> np.ndarray:
        """(D,) of unit length: the descriptor of one scale alone."""
        return project(self.pooled(self.exponent, scale), self.layer)


def take_steps(method: Method, picture: Image.Image, box: Box | None = None) -> Steps:
    """Compute the steps of a method for a picture, or for the box in it.

    Raises RetrievalError for a method with other steps.
    """
    method, exponent = _with_steps(method)
    scales = method.settings.get("scales", [1.0])
    maps = tuple(method.feature_map(picture, box, scale) for scale in scales)
    layer = None
    if method.final_layer is not None:
        weight, bias = (tensor.cpu().numpy() for tensor in method.final_layer)
        layer = weight, bias
    return Steps(maps, exponent, method.settings.get("power", 1.0), layer)


def _with_steps(method: Method) -> tuple[GlobalMethod, float]:
    """The method and its exponent; RetrievalError for a method with other steps."""
    if not isinstance(method, GlobalMethod) or method.exponent is None:
        raise RetrievalError(
            f"There is no ablation of {method.checkpoint.id}: it is for pooling by an average or a "
            "generalised mean, which SIR and CNN-IRwNHA have."
        )
    return method, method.exponent


def pool(features: np.ndarray, p: float, power: float = 1.0) -> np.ndarray:
    """(C,) float32 of unit length: the generalised mean of a feature map (C, h, w), to a power.

    p: 1 is the average, infinity the maximum.
    """
    values = features.reshape(len(features), -1).astype(np.float64).clip(min=0)
    pooled = values.max(axis=1) if np.isinf(p) else (values**p).mean(axis=1) ** (1 / p)
    return l2(pooled**power).astype(np.float32)


def project(vectors: np.ndarray, layer: Layer | None) -> np.ndarray:
    """Apply the last layer to unit-length vectors (…, C), then L2: (…, D)."""
    return vectors if layer is None else l2(vectors @ layer[0].T + layer[1])


def l2(vectors: np.ndarray) -> np.ndarray:
    """Unit length along the last axis, as ``pooling.l2`` for tensors."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-6)


@dataclass(frozen=True, eq=False)
class Ablation:
    """The variants of an index.

    exponents: (E,), rising. pooled: (E, N, C) float32 of unit length, at the first scale.
    second: (N, D) float32, descriptors at the second scale alone, empty for methods of one scale.
    whole: (N, D) float32, the descriptors of the index. maps: (E, 2), mAP under Medium for each
    exponent without and with the last layer, at one scale. scale_maps: (S,), mAP with the first
    1 … S scales, by the method's own exponent. Both are nan where nothing is labelled.
    """

    exponents: np.ndarray
    pooled: np.ndarray
    second: np.ndarray
    whole: np.ndarray
    maps: np.ndarray
    scale_maps: np.ndarray

    def fits(self, steps: Steps) -> bool:
        """Whether these variants are of the network that computed ``steps``."""
        scales = len(steps.maps)
        return bool(
            steps.exponent in self.exponents
            and self.pooled.shape[-1] == len(steps.maps[0])
            and len(self.scale_maps) == scales
            and (scales == 1 or len(self.second))
        )

    def scores(self, steps: Steps, p: float, layer: bool) -> np.ndarray:
        """Cosines (N,) of a picture with all pictures of the index, at one scale."""
        vector, database = steps.pooled(p), self._pooled(p)
        if layer:
            vector, database = project(vector, steps.layer), project(database, steps.layer)
        return database @ vector

    def scores_of_scales(self, steps: Steps, count: int) -> np.ndarray:
        """Cosines (N,) by the mean of the first ``count`` scales: 1, 2, or all of the method's."""
        vector = l2(np.mean([steps.at_scale(scale) for scale in range(count)], axis=0))
        if count == len(steps.maps):
            return self.whole @ vector
        if count == 1:
            return self.scores(steps, steps.exponent, True)
        first = project(self._pooled(steps.exponent), steps.layer)
        return l2((first + self.second) / 2) @ vector

    def _pooled(self, p: float) -> np.ndarray:
        """(N, C): the vectors that are pooled with exponent p."""
        return self.pooled[int(np.flatnonzero(self.exponents == p)[0])]


def make(
    index: Index,
    collection: Collection,
    method: Method,
    progress: Callable[[int, int, str], None] | None = None,
) -> Ablation:
    """Compute the variants of an index and keep them beside it.

    method: the one that made the index. The collection's pictures must be on this machine.
    Raises RetrievalError for more than MAX_PICTURES or MAX_SCALES, where a picture has changed
    since it was indexed, and where nothing can be written beside the index.
    """
    index.check_method(method)
    _with_steps(method)
    _check_size(index)
    files.check_writable(index.path, "ablation")
    pooled: list[list[np.ndarray]] = []
    second: list[np.ndarray] = []
    exponents: list[float] = []
    total = len(index) + len(collection.queries)
    # Before: of a picture that is replaced meanwhile, nobody knows which one was described.
    query_pictures = query_pictures_digest(collection) or ""
    # Queries come first: pictures may take hours, which a query that cannot be read would lose.
    query_steps = []
    for done, query in enumerate(collection.queries, 1):
        picture = images.read(collection.path(query.name), query.name)
        query_steps.append(take_steps(method, picture, query.box))
        if progress:
            progress(done, total, query.name)
    for done, name in enumerate(index.names):
        data = collection.read_bytes(name)
        if hashlib.sha256(data).hexdigest() != index.digests[done]:
            raise RetrievalError(
                f"{name} was replaced since the index {index} was made; index the collection again."
            )
        steps = take_steps(method, images.read(data, name))
        if not exponents:
            more = EXPONENTS if len(steps.maps) > 1 else ()
            exponents = sorted({steps.exponent, *more})
        pooled.append([steps.pooled(p) for p in exponents])
        second += [steps.at_scale(1)] if len(steps.maps) > 1 else []
        if progress:
            progress(len(query_steps) + done + 1, total, name)
    arrays = {
        "exponents": np.array(exponents),
        "pooled": _coarse(np.swapaxes(pooled, 0, 1)),
        "second": np.array(second or np.empty((0, 0)), np.float16),
        "maps": np.full((len(exponents), 2), np.nan),
        "scale_maps": np.full(len(method.settings.get("scales", [1.0])), np.nan),
    }
    if query_steps and PROTOCOL in collection.protocols:
        arrays |= _scored(_ablation(index, arrays), index, collection, query_steps)
    _save(index, collection, query_pictures, arrays)
    return _ablation(index, arrays)


def _save(
    index: Index, collection: Collection, query_pictures: str, arrays: dict[str, np.ndarray]
) -> None:
    try:
        with files.replacing(index.path / FILE) as file:
            digests = {
                "index_sha256": np.array(index.digest_on_disk()),
                "labels_sha256": np.array(labels_digest(collection.queries)),
                "query_pictures_sha256": np.array(query_pictures),
            }
            np.savez_compressed(file, allow_pickle=False, **digests, **arrays)
    except OSError as error:
        raise RetrievalError(
            f"The ablation cannot be kept in {index.path}: {error.strerror or error}."
        ) from error


def load(index: Index, collection: Collection) -> Ablation | None:
    """The variants kept beside an index; None where there are none.

    Raises RetrievalError where there can be none (see ``make``), and when they are damaged or
    belong to an earlier index, to other labels or other query pictures.
    """
    _check_size(index)
    path = index.path / FILE
    if not path.is_file():
        return None
    again = f"; run: python -m retrieval ablate {index.path}"
    digests = "index_sha256", "labels_sha256", "query_pictures_sha256"
    names = "exponents", "pooled", "second", "maps", "scale_maps"
    # Packed they may be small; every byte of ``pooled`` becomes a float32, and copies of it.
    max_bytes = len(index) * MAX_BYTES + 100_000
    try:
        arrays = {name: files.read_array(path, name, max_bytes) for name in digests + names}
        *stated, pictures = [str(arrays.pop(name)) for name in digests]
        same = stated == [
            files.digest(index.path / "manifest.json"),
            labels_digest(collection.queries),
        ] and query_pictures_digest(collection) in (None, pictures)
    except (RetrievalError, OSError) as error:
        raise RetrievalError(f"{path} is damaged{again}.") from error
    if not same:
        raise RetrievalError(
            f"The ablation in {index.path} is of an earlier index, other labels or other query "
            f"pictures{again}."
        )
    count, width = index.arrays["descriptors"].shape
    exponents = len(np.atleast_1d(arrays["exponents"]))
    labelled = PROTOCOL in collection.protocols
    valid = (
        arrays["exponents"].ndim == 1
        and exponents <= len(EXPONENTS) + 1  # 15,000 of a vector of one number took 3.2 GB
        and arrays["pooled"].ndim == 3
        and arrays["pooled"].shape[:2] == (exponents, count)
        and arrays["pooled"].dtype == np.uint8
        and arrays["second"].shape in ((count, width), (0, 0))
        and arrays["maps"].shape == (exponents, 2)
        and arrays["scale_maps"].ndim == 1
        and all(arrays[name].dtype.kind == "f" for name in names if name != "pooled")
        and np.isfinite(arrays["second"]).all()
        and (np.diff(arrays["exponents"], prepend=0) > 0).all()
        and all(_are_maps(arrays[name], labelled) for name in ("maps", "scale_maps"))
    )
    if not valid:
        raise RetrievalError(f"{path} is damaged{again}.")
    return _ablation(index, arrays)


def _check_size(index: Index) -> None:
    if len(index) > MAX_PICTURES or len(index.settings.get("scales", [])) > MAX_SCALES:
        raise RetrievalError(
            f"There is no ablation of {index}: it is for up to {MAX_PICTURES:,} pictures and "
            f"{MAX_SCALES} scales."
        )


def _ablation(index: Index, arrays: dict[str, np.ndarray]) -> Ablation:
    return Ablation(
        arrays["exponents"],
        l2(arrays["pooled"].astype(np.float32) ** 2),
        arrays["second"].astype(np.float32),
        index.arrays["descriptors"].astype(np.float32),
        arrays["maps"],
        arrays["scale_maps"],
    )


def _are_maps(values: np.ndarray, labelled: bool) -> bool:
    """Whether all values are from 0 to 1, or all nan where nothing is labelled."""
    return bool((((values >= 0) & (values <= 1)) if labelled else np.isnan(values)).all())


def _coarse(vectors: np.ndarray) -> np.ndarray:
    """Vectors without negative numbers as uint8; the square root keeps small numbers apart."""
    maxima = vectors.max(axis=-1, keepdims=True).clip(min=1e-12)
    return np.rint(255 * np.sqrt(vectors / maxima)).astype(np.uint8)


def _scored(
    ablation: Ablation, index: Index, collection: Collection, query_steps: list[Steps]
) -> dict[str, np.ndarray]:
    """Compute the mAP of every variant."""

    def mean(scores: list[np.ndarray]) -> float:
        orders = [np.argsort(-row, kind="stable") for row in scores]
        ranks = ranks_of(index, collection, orders)
        return evaluate(ranks, collection, [PROTOCOL])[PROTOCOL].map

    return {
        "maps": np.array(
            [
                [
                    mean([ablation.scores(steps, p, layer) for steps in query_steps])
                    for layer in (False, True)
                ]
                for p in ablation.exponents
            ]
        ),
        "scale_maps": np.array(
            [
                mean([ablation.scores_of_scales(steps, count) for steps in query_steps])
                for count in range(1, len(query_steps[0].maps) + 1)
            ]
        ),
    }
