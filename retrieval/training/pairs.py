"""Pictures that show the same thing, found without any label: geometry is the teacher.

Radenović et al. (TPAMI 2018) take matching pairs from reconstructions by structure from motion.
Here two pictures match when one transformation explains many matches of their local features,
which is what such a reconstruction starts from. The features are XFeat's (Potje et al., CVPR 2024).
"""

from __future__ import annotations

import numpy as np
import torch

from retrieval import methods
from retrieval.methods import pooling
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints, trunks
from retrieval.networks.records import PLAIN
from retrieval.ranking import geometry
from retrieval.ranking.groups import components
from retrieval.training import views, whitening
from retrieval.training.loop import Progress
from retrieval.training.photographs import NONE, Photographs

SHORTLIST = 20  # pictures most like each that geometry is asked about
SIZE = 256  # pixels of the longer side that it looks at for that
KEYPOINTS = 512
MIN_SIMILARITY = 0.8
TOLERANCE = 0.02  # share of the longer side
AGREE = 12  # inliers from which two pictures are never negatives of each other
MATCH = 30  # inliers from which they show the same thing: 98.6 % of one landmark where labelled
MATCH_LABELLED = 20  # the same where a label says so too


def agreeing(photos: Photographs, progress: Progress = None) -> dict[str, torch.Tensor]:
    """Pairs that agree by at least ``AGREE`` inliers, among pictures that ImageNet finds alike.

    Returns 'pairs' (m, 2) int64, a < b; 'inliers' (m,) int64; 'maps' (m, 3, 3) float64, the
    homographies from pixels of a to pixels of b; 'points' (sum of inliers, 4) float32, x and y in a
    and in b of all inliers, pair by pair.
    """
    candidates = _candidates(photos, progress)
    points, descriptors, sizes = _local_features(photos, progress)
    pairs, inliers, maps, points_of = [], [], [], []
    for done, (a, b) in enumerate(candidates, 1):
        matched = geometry.mutual_matches(
            descriptors[a].astype(np.float32), descriptors[b].astype(np.float32), MIN_SIMILARITY
        )
        if len(matched) >= AGREE:
            found = geometry.verify(
                points[a][matched[:, 0]],
                points[b][matched[:, 1]],
                TOLERANCE * max(sizes[b]),
                "homography",
            )
            if found.count >= AGREE:
                pairs.append((a, b))
                inliers.append(found.count)
                maps.append(found.matrix)
                agreed = matched[found.inliers]
                points_of.append(np.hstack([points[a][agreed[:, 0]], points[b][agreed[:, 1]]]))
        if progress:
            progress(done, len(candidates), "pairs")
    return {
        "pairs": torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
        "inliers": torch.tensor(inliers, dtype=torch.int64),
        "maps": torch.tensor(np.array(maps, np.float64).reshape(-1, 3, 3)),
        "points": torch.from_numpy(np.concatenate([np.empty((0, 4), np.float32), *points_of])),
    }


class Matches:
    """Which pictures match, which are of one group, and which must not be told apart.

    group: (n,) int64. Without landmarks a group is joined by any chain of matches; with them
    (positions, or NONE) it is the landmark, and a match shows one landmark.
    pairs: (m, 2) int64, a < b. Of each: points, the places that correspond, (k, 4) float32: x, y in
    a, x, y in b; maps, the homography from pixels of a to pixels of b, (m, 3, 3) float64.
    """

    def __init__(
        self, found: dict[str, torch.Tensor], count: int, landmarks: np.ndarray | None = None
    ):
        pairs, inliers = found["pairs"].numpy(), found["inliers"].numpy()
        if landmarks is None:
            kept = inliers >= MATCH
            self.group = groups(found, count)
        else:
            a, b = landmarks[pairs].T
            kept = (a == b) & (a != NONE) & (inliers >= MATCH_LABELLED)
            alone = len(landmarks) + np.arange(count)
            self.group = np.where(landmarks == NONE, alone, landmarks)
        self.pairs, self.maps = pairs[kept], found["maps"].numpy()[kept]
        points = np.split(found["points"].numpy(), np.cumsum(inliers)[:-1])
        self.points = [points[row] for row in np.flatnonzero(kept)]
        self._agree = {(a, b) for a, b in pairs.tolist()}
        self._partners: dict[int, list[int]] = {}
        for a, b in self.pairs.tolist():
            self._partners.setdefault(a, []).append(b)
            self._partners.setdefault(b, []).append(a)

    def __len__(self) -> int:
        return len(self.pairs)

    def partners(self, number: int) -> list[int]:
        return self._partners.get(number, [])

    def with_partners(self) -> np.ndarray:
        return np.array(sorted(self._partners), np.int64)

    def agree(self, a: int, b: int) -> bool:
        """Whether geometry found anything in common."""
        return (min(a, b), max(a, b)) in self._agree


def groups(found: dict[str, torch.Tensor], count: int) -> np.ndarray:
    """Number of the group of each picture (count,): joined by any chain of sure matches."""
    return components(found["pairs"][found["inliers"] >= MATCH].numpy(), count)


def _candidates(photos: Photographs, progress: Progress) -> list[tuple[int, int]]:
    """Pairs (a, b), a < b, of each picture and those most like it by whitened GeM."""
    checkpoint = checkpoints.find("cnn-irwnha", PLAIN)
    weights = checkpoints.load(checkpoint)
    trunk = trunks.build(checkpoint.trunk, "final", weights.trunk)
    rows, numbers = [], np.arange(len(photos))
    with torch.inference_mode():
        for x in views.whole(photos, numbers, SIZE, checkpoint):
            rows.append(pooling.l2(pooling.gem(trunk(x))).cpu())
            if progress:
                progress(sum(map(len, rows)), len(photos), "looking")
    plain = torch.cat(rows).numpy()
    dimensions = min(512, plain.shape[1], len(plain) // 2)
    weight, bias = whitening.pca_whitening(plain, dimensions)
    codes = plain @ weight.T + bias
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    pairs = set()
    for number, row in enumerate(codes):
        likeness = codes @ row
        likeness[number] = -np.inf
        for other in np.argsort(-likeness, kind="stable")[:SHORTLIST].tolist():
            if other != number:
                pairs.add((min(number, other), max(number, other)))
    return sorted(pairs)


def _local_features(photos: Photographs, progress: Progress):
    """Of each picture: points (k, 2) float32, descriptors (k, 64) float16; and its size."""
    xfeat = methods.load_record(checkpoints.REGISTRY["xfeat"], keypoints=KEYPOINTS)
    points, descriptors, sizes = [], [], []
    for number in range(len(photos)):
        picture = photos.read(number)
        found = xfeat.describe(picture)
        assert isinstance(found, LocalFeatures)
        points.append(found.keypoints)
        descriptors.append(found.descriptors.astype(np.float16))
        sizes.append(picture.size)
        if progress:
            progress(number + 1, len(photos), "local features")
    return points, descriptors, sizes
