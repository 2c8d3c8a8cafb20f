"""Attention of DELF, learned without any label from pictures that agree with each other.

Noh et al. (ICCV 2017) train the attention by telling landmarks apart, which takes labels. Here
geometry is the teacher, as in Radenović et al. (TPAMI 2018): pictures of the collection that agree
on one map by many matches show the same thing, and a place of one is worth attention if it matches
where the map puts it in the other. Skies, leaves and people seldom do. What is learned is
matchability (Hartmann, Havlena and Schindler, "Predicting Matchability", CVPR 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from retrieval.methods.base import LocalFeatures
from retrieval.methods.delf import DELF
from retrieval.ranking import geometry
from retrieval.training.pairs import agreeing, matching

PICTURES = 500  # that are looked at, at most
PLACES = 1000  # of a picture that are examples, at most
LEAST_PAIRS = 50
TOLERANCE = 0.03  # share of the longer side; the map is affine and the world is not
HIDDEN = 128
EPOCHS, BATCH, RATE = 4, 1024, 1e-3
SEED = 0


class Seen(NamedTuple):
    """What is kept of a picture.

    features: the keypoints that the feature norm picks. points (n, 2), descriptors (n, d) float32:
    of every place. sample (s,) int64: the places that are examples; raw (s, C) float16: of those.
    """

    size: tuple[int, int]
    features: LocalFeatures
    points: np.ndarray
    descriptors: torch.Tensor
    sample: np.ndarray
    raw: torch.Tensor


@dataclass(frozen=True)
class Learned:
    """layers: weights and biases by their names in a head. The rest is for the record.

    matchable: share of the examples. auc: of the feature norm and of the attention on pictures
    that were held out: how often a matchable place is scored above one that is not.
    """

    layers: dict[str, np.ndarray]
    pairs: int
    examples: int
    matchable: float
    auc: dict[str, float]


@torch.inference_mode()
def look(method: DELF, picture: Image.Image, rng: np.random.Generator) -> Seen:
    """Describe a picture whole. method: with its PCA, and the norm as its attention."""
    dense = method.dense(picture)
    descriptors = method.reduce(dense.raw)
    kept, scores = method.select(dense)
    points = dense.keypoints.numpy()
    sample = rng.permutation(len(points))[:PLACES]
    features = LocalFeatures(
        points[kept], dense.scales[kept].numpy(), scores.numpy(), descriptors[kept].numpy()
    )
    return Seen(picture.size, features, points, descriptors, sample, dense.raw[sample].half())


def learn(seen: Sequence[Seen]) -> Learned | None:
    """The attention of what was seen; None where too little agrees, or all, to learn from."""
    pairs = matching(agreeing([one.features for one in seen], [one.size for one in seen]))
    if len(pairs) < LEAST_PAIRS:
        return None
    starts = np.cumsum([0, *(len(one.sample) for one in seen)])
    rows, labels = [], []
    for pair in pairs:
        places, matchable = judge(seen[pair.a], seen[pair.b], pair.matrix)
        rows.append(starts[pair.a] + places)
        labels.append(matchable)
    row, label = np.concatenate(rows), np.concatenate(labels)
    if label.all() or not label.any():  # copies of one picture agree everywhere
        return None
    raw = torch.cat([one.raw for one in seen])
    return _train(raw, row, label, starts, len(pairs))


def judge(a: Seen, b: Seen, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the sampled places of a match where the map puts them in b.

    Returns positions in ``a.sample`` (m,) of those that b shows, and whether they do (m,) bool.
    """
    there = geometry.project(matrix, a.points[a.sample])
    shown = np.flatnonzero(((there >= 0) & (there < b.size)).all(axis=1))
    similarity = a.descriptors[a.sample[shown]] @ b.descriptors.T
    best, nearest = similarity.max(dim=1)
    error = np.linalg.norm(b.points[nearest.numpy()] - there[shown], axis=1)
    near = error < TOLERANCE * max(b.size)
    return shown, near & (best.numpy() >= geometry.MIN_SIMILARITY)


def _train(
    raw: torch.Tensor, rows: np.ndarray, labels: np.ndarray, starts: np.ndarray, pairs: int
) -> Learned:
    """Two layers that tell matchable places from others (logistic regression with one hidden)."""
    picture = np.searchsorted(starts, rows, side="right") - 1
    held_out = picture % 10 == 0
    row, label = torch.from_numpy(rows), torch.from_numpy(labels).float()
    spread = raw.float().std()
    generator = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        net = nn.Sequential(nn.Linear(raw.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-4)
    training = torch.from_numpy(np.flatnonzero(~held_out))
    for _ in range(EPOCHS):
        for batch in training[torch.randperm(len(training), generator=generator)].split(BATCH):
            logits = net(raw[row[batch]].float() / spread)[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits, label[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.inference_mode():
        others = raw[row[held_out]].float()
        scores = {"feature norm": others.norm(dim=1), "attention": net(others / spread)[:, 0]}
        first, last = net[0], net[2]
        layers = {
            "attention.conv1.weight": first.weight / spread,
            "attention.conv1.bias": first.bias,
            "attention.conv2.weight": last.weight,
            "attention.conv2.bias": last.bias,
        }
        return Learned(
            {name: values.numpy() for name, values in layers.items()},
            pairs,
            len(rows),
            float(labels.mean()),
            {name: auc(score.numpy(), labels[held_out]) for name, score in scores.items()},
        )


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: how often a true one (labels (n,) bool) is above a false one.

    Equal scores count half. NaN where all labels are the same.
    """
    from scipy.stats import rankdata

    true = int(labels.sum())
    if true in (0, len(labels)):
        return float("nan")
    below = rankdata(scores)[labels].sum() - true * (true + 1) / 2
    return float(below / (true * (len(labels) - true)))
