"""Matching pairs of pictures, found by geometry and without labels.

Radenović et al. (TPAMI 2018) take matching pairs from reconstructions by structure from motion.
Here two pictures match when one homography explains many matches of their local features, which
is how such a reconstruction starts. The features are XFeat's (Potje et al., CVPR 2024).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from retrieval import methods
from retrieval.methods import pooling
from retrieval.methods.base import as_local
from retrieval.networks import checkpoints, trunks
from retrieval.networks.records import IMAGENET_TRUNK
from retrieval.ranking import geometry
from retrieval.ranking.groups import components
from retrieval.training import views, whitening
from retrieval.training.journal import Journal, is_array
from retrieval.training.loop import Progress
from retrieval.training.photographs import NO_LANDMARK, Photographs

SHORTLIST = 20  # pictures most similar to a picture, which geometry verifies
SIZE = 256  # pixels of the longer side of a picture when the shortlists are made
KEYPOINTS = 512  # of a picture, at most
MIN_SIMILARITY = 0.8  # cosine from which two descriptors match
TOLERANCE = 0.02  # of an inlier, as a share of the longer side of the second picture
MIN_INLIERS = 12  # pictures with so many inliers are never negatives of each other
# From this number two pictures show the same thing; 98.6 % of such pairs have one label.
MATCH_INLIERS = 30
LABELLED_MATCH_INLIERS = 20  # the same for two pictures with the same label
# Bytes of the pairs of a picture, at most: numbers, a map, and the places of all inliers.
PICTURE = SHORTLIST * (8 * (2 + 1 + 9) + 16 * KEYPOINTS)


def verified_once(
    journal: Journal, photos: Photographs, progress: Progress = None
) -> dict[str, torch.Tensor]:
    """What ``verified_pairs`` returns; a resumed training reads it from its journal."""
    return journal.computed_once(
        "matches",
        lambda: verified_pairs(photos, progress),
        lambda stored: are_pairs(stored, len(photos)),
        len(photos) * PICTURE,
    )


def verified_pairs(photos: Photographs, progress: Progress = None) -> dict[str, torch.Tensor]:
    """Pairs of pictures in which geometry finds at least ``MIN_INLIERS`` inliers.

    Only pictures that are similar by ImageNet features are compared. Returns 'pairs' (m, 2) int64,
    numbers of the pictures a < b; 'inliers' (m,) int64; 'maps' (m, 3, 3) float64, homographies from
    pixels of a to pixels of b; 'points' (sum of inliers, 4) float32, x and y in a and in b of all
    inliers, pair by pair.
    """
    candidates = _candidates(photos, progress)
    points, descriptors, sizes = _local_features(photos, progress)
    pairs, inliers, maps, inlier_points = [], [], [], []
    for done, (a, b) in enumerate(candidates, 1):
        matches = geometry.mutual_matches(
            descriptors[a].astype(np.float32), descriptors[b].astype(np.float32), MIN_SIMILARITY
        )
        if len(matches) >= MIN_INLIERS:
            verification = geometry.verify(
                points[a][matches[:, 0]],
                points[b][matches[:, 1]],
                TOLERANCE * max(sizes[b]),
                "homography",
            )
            if verification.count >= MIN_INLIERS:
                pairs.append((a, b))
                inliers.append(verification.count)
                maps.append(verification.matrix)
                matches = matches[verification.inliers]
                inlier_points.append(
                    np.hstack([points[a][matches[:, 0]], points[b][matches[:, 1]]])
                )
        if progress:
            progress(done, len(candidates), "pairs")
    return {
        "pairs": torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
        "inliers": torch.tensor(inliers, dtype=torch.int64),
        "maps": torch.tensor(np.array(maps, np.float64).reshape(-1, 3, 3)),
        "points": torch.from_numpy(np.concatenate([np.empty((0, 4), np.float32), *inlier_points])),
    }


def are_pairs(stored: Any, count: int) -> bool:
    """Whether a value of a stranger is what ``verified_pairs`` returns for ``count`` pictures."""
    if not isinstance(stored, dict) or stored.keys() != {"pairs", "inliers", "maps", "points"}:
        return False
    pairs, inliers = stored["pairs"], stored["inliers"]
    return (
        is_array(pairs, torch.int64, -1, 2)
        and is_array(inliers, torch.int64, len(pairs))
        and is_array(stored["maps"], torch.float64, len(pairs), 3, 3)
        and is_array(stored["points"], torch.float32, int(inliers.sum()), 4)
        and bool(((inliers >= MIN_INLIERS) & (inliers <= KEYPOINTS)).all())
        and bool(((pairs >= 0) & (pairs < count)).all() and (pairs[:, 0] < pairs[:, 1]).all())
    )


class Matches:
    """Matching pairs of pictures, and the group of each picture.

    Without landmarks, two pictures match from ``MATCH_INLIERS`` inliers, and a chain of matches
    makes a group. With landmarks, two pictures of the same landmark match from
    ``LABELLED_MATCH_INLIERS`` inliers, and a landmark is a group.

    group: (n,) int64, the number of each picture's group.
    pairs: (m, 2) int64, the numbers a < b of two pictures that match. maps: (m, 3, 3) float64, for
    each pair the homography from pixels of a to pixels of b. points: for each pair (k, 4) float32,
    x and y in a and in b of its inliers.
    """

    def __init__(
        self, verified: dict[str, torch.Tensor], count: int, landmarks: np.ndarray | None = None
    ):
        """verified: from ``verified_pairs``. count: of all pictures.

        landmarks: (count,) int64, the landmark of each picture or NO_LANDMARK.
        """
        pairs, inliers = verified["pairs"].numpy(), verified["inliers"].numpy()
        if landmarks is None:
            matching = inliers >= MATCH_INLIERS
            self.group = groups(verified, count)
        else:
            a, b = landmarks[pairs].T
            matching = (a == b) & (a != NO_LANDMARK) & (inliers >= LABELLED_MATCH_INLIERS)
            group_of_its_own = len(landmarks) + np.arange(count)
            self.group = np.where(landmarks == NO_LANDMARK, group_of_its_own, landmarks)
        self.pairs, self.maps = pairs[matching], verified["maps"].numpy()[matching]
        points = np.split(verified["points"].numpy(), np.cumsum(inliers)[:-1])
        self.points = [points[row] for row in np.flatnonzero(matching)]
        self._verified = {(a, b) for a, b in pairs.tolist()}
        self._partners: dict[int, list[int]] = {}
        for a, b in self.pairs.tolist():
            self._partners.setdefault(a, []).append(b)
            self._partners.setdefault(b, []).append(a)

    def __len__(self) -> int:
        return len(self.pairs)

    def partners(self, number: int) -> list[int]:
        """Numbers of the pictures that match a picture."""
        return self._partners.get(number, [])

    def with_partners(self) -> np.ndarray:
        """Numbers of the pictures that match another, (k,) int64, ascending."""
        return np.array(sorted(self._partners), np.int64)

    def are_verified(self, a: int, b: int) -> bool:
        """Whether geometry found at least ``MIN_INLIERS`` inliers; a match may need more."""
        return (min(a, b), max(a, b)) in self._verified


def groups(verified: dict[str, torch.Tensor], count: int) -> np.ndarray:
    """Number of each picture's group, (count,) int64: a chain of matches makes a group.

    verified: from ``verified_pairs``.
    """
    return components(verified["pairs"][verified["inliers"] >= MATCH_INLIERS].numpy(), count)


def _candidates(photos: Photographs, progress: Progress) -> list[tuple[int, int]]:
    """Pairs (a, b), a < b, of each picture and its ``SHORTLIST``, by whitened GeM descriptors."""
    checkpoint = checkpoints.find("cnn-irwnha", IMAGENET_TRUNK)
    weights = checkpoints.load(checkpoint)
    trunk = trunks.build(checkpoint.trunk, "final", weights.trunk)
    rows, numbers = [], np.arange(len(photos))
    with torch.inference_mode():
        for x in views.whole_pictures(photos, numbers, SIZE, checkpoint):
            rows.append(pooling.l2(pooling.gem(trunk(x))).cpu())
            if progress:
                progress(sum(map(len, rows)), len(photos), "global features")
    gem = torch.cat(rows).numpy()
    dimensions = min(512, gem.shape[1], len(gem) // 2)
    weight, bias = whitening.pca_whitening(gem, dimensions)
    descriptors = gem @ weight.T + bias
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    pairs = set()
    for number, descriptor in enumerate(descriptors):
        similarities = descriptors @ descriptor
        similarities[number] = -np.inf
        for other in np.argsort(-similarities, kind="stable")[:SHORTLIST].tolist():
            if other != number:
                pairs.add((min(number, other), max(number, other)))
    return sorted(pairs)


def _local_features(
    photos: Photographs, progress: Progress
) -> tuple[list[np.ndarray], list[np.ndarray], list[tuple[int, int]]]:
    """For each picture: points (k, 2) float32, x and y in pixels; descriptors (k, 64) float16;
    and its size (width, height).
    """
    # The limits above were chosen with pictures as small as they are.
    xfeat = methods.load_record(checkpoints.REGISTRY["xfeat"], enlarge=False, keypoints=KEYPOINTS)
    points, descriptors, sizes = [], [], []
    for number in range(len(photos)):
        picture = photos.read(number)
        features = as_local(xfeat.describe(picture))
        points.append(features.keypoints)
        descriptors.append(features.descriptors.astype(np.float16))
        sizes.append(picture.size)
        if progress:
            progress(number + 1, len(photos), "local features")
    return points, descriptors, sizes
