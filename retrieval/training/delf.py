"""DELF's training: the trunk and the attention learn by telling landmarks apart.

Noh, Araujo, Sim, Weyand and Han, ICCV 2017, section 4: (1) the trunk is fine-tuned up to its
stride-16 block by classifying landmarks; (2) with the trunk frozen, the attention learns which
places help to classify: two 1×1 convolutions with softplus weigh the features of all places, and
their weighted sum goes into the classifier; (3) descriptors are reduced to 40 dimensions by PCA.

Two things are not in the paper and are named for what they are. In (1) descriptors may learn from
correspondences besides: places that XFeat matched, and geometry confirmed, are brought together
(InfoNCE, van den Oord et al., 2018). In (2) the attention may learn from geometry
instead, or be left out: then it is the norm of the feature.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.methods import pooling
from retrieval.networks import checkpoints, trunks
from retrieval.networks.records import PLAIN, SETTINGS
from retrieval.ranking import geometry
from retrieval.training import loop, pairs, photographs, result, views, whitening
from retrieval.training.journal import Journal
from retrieval.training.loop import Progress, Say, Stage, run
from retrieval.training.validation import mean_average_precision

DIMENSIONS = 40
SIZE = 224
SCALE = 16.0  # of the cosines that the classifier gives
TEMPERATURE = 0.07  # of InfoNCE
NEAR = 2.0  # strides within which another place is no negative
PLACES = 64  # corresponding places of a pair, at most
VALIDATION_PAIRS, VALIDATION_BATCH = 200, 8
HIDDEN = 512  # of the attention, as in the paper
LEAST_ZOOM = 0.5  # of the random rescaling that the attention sees
ATTENTION_RATE = 1e-3
LARGEST = 320  # pixels of a side of what the attention sees, at most
PCA_PICTURES, PCA_PLACES, PCA_SIZES = 1000, 50, (160, 224, 320)


@dataclass(frozen=True)
class Settings(loop.Settings):
    """trunk: what fine-tunes it. attention: what it learns from.

    rate: of the trunk. frozen: blocks of the trunk, from the first, that stay as they are.
    steps: of an epoch. batch: pairs of pictures of a step.
    """

    epochs: int = 6
    trunk: Literal["landmarks", "correspondences", "frozen"] = "landmarks"
    attention: Literal["landmarks", "geometry", "norm"] = "landmarks"
    frozen: int = 5
    steps: int = 250
    batch: int = 8


class Trunk(Stage):
    """Stage 1. Its batches are matching pairs of pictures, so that both losses share them."""

    name = "trunk"

    def __init__(
        self,
        checkpoint: checkpoints.Checkpoint,
        photos: photographs.Photographs,
        matches: pairs.Matches,
        settings: Settings,
    ):
        self.checkpoint, self.photos = checkpoint, photos
        self.matches, self.settings = matches, settings
        self.training, self.held_out = photos.split()
        self.pairs, self.points = matches.pairs, matches.points
        if settings.trunk == "correspondences":
            self.measure = "places found again, held-out landmarks"
        self.rows = np.flatnonzero(np.isin(self.pairs, self.training).all(axis=1))
        self.steps = settings.steps
        self.device = trunks.placement()[0]
        features = trunks.unfolded(
            checkpoint.trunk, "stride16", checkpoints.load(checkpoint).tensors
        ).to(memory_format=torch.channels_last)
        trunks.freeze(features, settings.frozen)
        self.field = trunks.receptive_field(features.layers, SIZE)
        generator = torch.Generator().manual_seed(settings.seed)
        classifier = nn.Linear(features.channels, len(photos.titles), bias=False)
        with torch.no_grad():
            classifier.weight.normal_(generator=generator)
        self.module = nn.ModuleDict({"features": features, "classifier": classifier})
        self.features, self.classifier = features.to(self.device), classifier.to(self.device)

    def groups(self) -> list[dict[str, Any]]:
        trained = [one for one in self.features.parameters() if one.requires_grad]
        return [
            {"params": trained},
            {"params": self.classifier.parameters(), "factor": 10.0},
        ]

    def begin(self, epoch: int) -> None:
        self.rng = np.random.default_rng([self.settings.seed, epoch])
        # Seldom seen landmarks count as much as others: a pair of each landmark in turn.
        landmark = self.photos.landmarks[self.pairs[self.rows, 0]]
        order = self.rng.permutation(len(landmark))
        turn = np.zeros(len(landmark), np.int64)
        seen: dict[int, int] = {}
        for place in order:
            turn[place] = seen.get(landmark[place], 0)
            seen[landmark[place]] = turn[place] + 1
        order = order[np.argsort(turn[order], kind="stable")]
        wanted = self.steps * self.settings.batch
        self.order = self.rows[np.resize(order, wanted)]
        self.order = self.rng.permutation(self.order)

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        rows = np.split(self.order, self.steps)[step]
        maps, boxes = self._maps(rows, self.rng)
        codes = F.normalize(maps.mean(dim=(-2, -1)))
        cosines = F.linear(codes, F.normalize(self.classifier.weight))
        landmarks = torch.from_numpy(self.photos.landmarks[self.pairs[rows].flatten()])
        loss = F.cross_entropy(SCALE * cosines, landmarks.to(self.device))
        if self.settings.trunk == "correspondences":
            logits = self._likeness(maps, rows, boxes, self.rng) / TEMPERATURE
            same = torch.arange(len(logits), device=logits.device)
            if len(same):
                loss = (
                    loss + F.cross_entropy(logits, same) / 2 + F.cross_entropy(logits.T, same) / 2
                )
        return loss

    def _maps(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, list[Box]]:
        """Features (2 n, C, h, w) of random parts of the two pictures of n pairs, and the parts."""
        pictures = [self.photos.read(int(number)) for number in self.pairs[rows].flatten()]
        boxes = [views.random_box(picture.size, rng) for picture in pictures]
        pixels = [
            views.in_another_light(views.cut(picture, box, SIZE), rng)
            for picture, box in zip(pictures, boxes, strict=True)
        ]
        inputs = views.stack(pixels, self.checkpoint).to(self.device)
        return self.features(inputs).float(), boxes

    def _likeness(self, maps: torch.Tensor, rows: np.ndarray, boxes, rng) -> torch.Tensor:
        """Cosines (n, n) of n places of the first pictures and of n places of the second ones.

        The diagonal holds those that correspond; what is too near to one is -inf.
        """
        both, where, whose = [], [], []
        for number, row in enumerate(rows):
            sides = []
            for side in (0, 1):
                left, top, right, bottom = boxes[2 * number + side]
                points = self.points[row][:, 2 * side : 2 * side + 2] - [left, top]
                sides.append(points / [right - left, bottom - top] * SIZE)  # pixels of the view
            seen = np.stack(sides)  # (2, k, 2)
            inside = np.flatnonzero(((seen > 0) & (seen < SIZE)).all(axis=(0, 2)))
            chosen = rng.permutation(inside)[:PLACES]
            ends = torch.from_numpy(seen[:, chosen]).float().to(maps.device)
            units = (ends - self.field.offset) / self.field.stride  # of the map: 0 is its first
            grid = (units + 0.5) / maps.shape[-1] * 2 - 1  # as grid_sample counts
            sampled = F.grid_sample(
                maps[2 * number : 2 * number + 2], grid[:, None], align_corners=False
            )  # (2, C, 1, n)
            both.append(sampled[:, :, 0].transpose(1, 2))
            where.append(ends[1])
            whose += [number] * len(chosen)
        a, b = F.normalize(torch.cat(both, dim=1), dim=-1)
        places, pair = torch.cat(where), torch.tensor(whose, device=a.device)
        apart = NEAR * self.field.stride
        near = (torch.cdist(places, places) < apart) & (pair[:, None] == pair)
        return (a @ b.T).masked_fill(near.fill_diagonal_(False), float("-inf"))

    def validate(self) -> float:
        with torch.inference_mode():
            if self.settings.trunk == "correspondences":
                return self._found()
            rows = [
                F.normalize(self.features(x.to(self.device)).float().mean(dim=(-2, -1)))
                for x in views.whole(self.photos, self.held_out, SIZE, self.checkpoint)
            ]
        vectors = torch.cat(rows).cpu().numpy()
        return mean_average_precision(vectors, self.photos.landmarks[self.held_out])

    def _found(self) -> float:
        """How often the nearest place is the corresponding one, in pairs of held-out landmarks."""
        rng = np.random.default_rng(self.settings.seed)
        held = np.flatnonzero(np.isin(self.pairs, self.held_out).all(axis=1))
        held = rng.permutation(held)[:VALIDATION_PAIRS]
        right = []
        for rows in np.array_split(held, max(1, len(held) // VALIDATION_BATCH)):
            maps, boxes = self._maps(rows, rng)
            likeness = self._likeness(maps, rows, boxes, rng)
            right.append((likeness.argmax(dim=1).cpu() == torch.arange(len(likeness))).float())
        return float(torch.cat(right).mean())


class Attention(Stage):
    """Stage 2, on the frozen trunk.

    From landmarks: cross-entropy of W Σ α f / n over the n places of random parts at random sizes;
    equations 2 to 4 of the report are its gradients. From geometry: a place deserves attention if
    the place most like it in a matching picture is where the map between the two puts it; the
    score s of a place says that with probability 1 − e⁻ˢ (Hartmann, Havlena and Schindler,
    "Predicting Matchability", CVPR 2014).
    """

    name = "attention"

    def __init__(self, trunk: Trunk):
        self.trunk, self.settings = trunk, trunk.settings
        self.photos, self.held_out = trunk.photos, trunk.held_out
        self.features = trunk.features.requires_grad_(False)
        self.labelled = trunk.training[self.photos.landmarks[trunk.training] != photographs.NONE]
        self.by_geometry = self.settings.attention == "geometry"
        self.steps = self.settings.steps
        self.maps = trunk.matches.maps
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            channels = self.features.channels
            self.conv1, self.conv2 = nn.Conv2d(channels, HIDDEN, 1), nn.Conv2d(HIDDEN, 1, 1)
            self.classifier = nn.Linear(channels, len(self.photos.titles))
        self.module = nn.ModuleDict(
            {"conv1": self.conv1, "conv2": self.conv2, "classifier": self.classifier}
        ).to(trunk.device)
        # Features of a trunk may be large or small; layers like those of about one.
        with torch.inference_mode():
            some = next(views.whole(self.photos, self.labelled[:1], SIZE, trunk.checkpoint))
            self.spread = float(self.features(some.to(trunk.device)).float().std())

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": self.module.parameters()}]

    def begin(self, epoch: int) -> None:
        rng = np.random.default_rng([self.settings.seed, epoch])
        chosen = self.trunk.rows if self.by_geometry else self.labelled
        wanted = self.steps * self.settings.batch * (1 if self.by_geometry else 2)
        repeats = [rng.permutation(chosen) for _ in range(-(-wanted // len(chosen)))]
        self.order, self.rng = np.concatenate(repeats)[:wanted], rng

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        numbers = np.split(self.order, self.steps)[step]
        if self.by_geometry:
            return self._matchable(numbers)
        zoom = self.rng.uniform(LEAST_ZOOM, 1)
        size = round(LARGEST * zoom / 32) * 32
        pixels = [views.crop(self.photos.read(int(n)), self.rng, size) for n in numbers]
        inputs = views.stack(pixels, self.trunk.checkpoint)
        features = self._features(inputs)
        weighted = (F.softplus(self.logits(features)) * features).mean(dim=(-2, -1))
        landmarks = torch.from_numpy(self.photos.landmarks[numbers]).to(self.trunk.device)
        return F.cross_entropy(self.classifier(weighted), landmarks)

    def _features(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.features(inputs.to(self.trunk.device)).float() / self.spread

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(B, 1, h, w) of features (B, C, h, w); their softplus is the attention."""
        return self.conv2(self.conv1(features).relu())

    def _matchable(self, rows: np.ndarray) -> torch.Tensor:
        numbers = self.trunk.pairs[rows].flatten()
        pictures = [self.photos.read(int(number)) for number in numbers]
        whole = [views.cut(one, (0, 0, *one.size), SIZE) for one in pictures]
        features = self._features(views.stack(whole, self.trunk.checkpoint))
        side = features.shape[-1]
        centres = self.trunk.field.offset + self.trunk.field.stride * np.arange(side)
        places = np.stack(np.meshgrid(centres, centres, indexing="xy"), axis=-1).reshape(-1, 2)
        codes = F.normalize(features.flatten(2), dim=1)  # (2 n, C, h w)
        logits = self.logits(features)[:, 0].flatten(1)
        asked, answers = [], []
        for number, row in enumerate(rows):
            first, second = (np.array(one.size) / SIZE for one in pictures[2 * number :][:2])
            there = geometry.project(self.maps[row], places * first) / second
            shown = np.flatnonzero(((there > 0) & (there < SIZE)).all(axis=1))
            nearest = (codes[2 * number].T @ codes[2 * number + 1]).argmax(dim=1).cpu().numpy()
            error = np.linalg.norm(places[nearest[shown]] - there[shown], axis=1)
            asked.append(logits[2 * number, shown])
            answers.append(torch.from_numpy(error < self.trunk.field.stride))
        target = torch.cat(answers).float().to(logits.device)
        return F.binary_cross_entropy_with_logits(torch.cat(asked), target)

    def validate(self) -> float:
        rows = []
        with torch.inference_mode():
            for x in views.whole(self.photos, self.held_out, SIZE, self.trunk.checkpoint):
                features = self._features(x)
                attention = F.softplus(self.logits(features))
                rows.append(F.normalize((attention * features).mean(dim=(-2, -1))).cpu())
        vectors = torch.cat(rows).numpy()
        return mean_average_precision(vectors, self.photos.landmarks[self.held_out])

    def tensors(self) -> dict[str, torch.Tensor]:
        """The two layers by their names in a file, for features as the trunk gives them."""
        first, last = self.conv1, self.conv2
        assert first.bias is not None
        assert last.bias is not None
        return {
            "attention.conv1.weight": first.weight[:, :, 0, 0] / self.spread,
            "attention.conv1.bias": first.bias,
            "attention.conv2.weight": last.weight[:, :, 0, 0],
            "attention.conv2.bias": last.bias,
        }


def train(
    collection: Collection,
    out: Path,
    which: str | None = None,
    settings: Settings = Settings(),
    progress: Progress = None,
    say: Say = lambda text: None,
) -> Path:
    """Train DELF on the labelled pictures of a collection and write it to ``out``.

    which: the checkpoint to start from, of DELF or CNN-IRwNHA. settings: of the trunk and of the
    attention; the same call goes on where it was stopped.
    """
    checkpoint = _start(which)
    photos = photographs.require_labels(collection)
    journal = Journal(
        out,
        {
            "method": "delf",
            "pictures": photos.digest(),
            "from": checkpoint.sha256,
            **asdict(settings),
        },
    )
    found = journal.once("matches", lambda: pairs.agreeing(photos, progress))
    matches = pairs.Matches(found, len(photos), photos.landmarks)
    rows: list[dict[str, Any]] = []
    trunk = Trunk(checkpoint, photos, matches, settings)
    say(
        f"{len(trunk.rows)} matching pairs; {len(trunk.training)} pictures to train on, "
        f"{len(trunk.held_out)} of other landmarks to validate on"
    )
    if not len(trunk.rows):
        raise RetrievalError(f"No two pictures of a landmark of {collection.title} match.")
    best = 0
    if settings.trunk != "frozen":
        best = run(trunk, settings, journal, rows, progress, say)
    tensors = result.trunk(trunk.features) if best or checkpoint.file else {}
    attention = Attention(trunk)
    if settings.attention != "norm":
        run(attention, replace(settings, rate=ATTENTION_RATE), journal, rows, progress, say)
        tensors |= attention.tensors()
    tensors |= _pca(attention)
    made = result.record(
        checkpoint,
        photos,
        "landmark",
        settings,
        rows,
        matches=len(matches),
    )
    return journal.finish(result.content(checkpoint, tensors, made, pooling="attention"))


def _start(which: str | None) -> checkpoints.Checkpoint:
    """A checkpoint of DELF, or the trunk of one of CNN-IRwNHA with DELF's settings."""
    try:
        return checkpoints.find("delf", which or PLAIN)
    except RetrievalError:
        other = checkpoints.find("cnn-irwnha", which)
        return replace(other, method="delf", settings=SETTINGS["delf"])


def _pca(attention: Attention) -> dict[str, torch.Tensor]:
    """PCA of the places that get most attention, in pictures spread evenly over the training."""
    photos, training = attention.photos, attention.trunk.training
    chosen = training[
        np.linspace(0, len(training) - 1, min(PCA_PICTURES, len(training)), dtype=int)
    ]
    sample = []
    with torch.inference_mode():
        for size in PCA_SIZES:
            for x in views.whole(photos, chosen, size, attention.trunk.checkpoint):
                features = attention._features(x)
                scores = attention.logits(features)[:, 0].flatten(1)
                if attention.settings.attention == "norm":
                    scores = features.norm(dim=1).flatten(1)
                count = min(PCA_PLACES, scores.shape[1] // 2)
                best = scores.topk(count).indices[:, None].expand(-1, features.shape[1], -1)
                places = features.flatten(2).gather(2, best).transpose(1, 2).flatten(0, 1)
                sample.append(pooling.l2(places).cpu())
    rows = torch.cat(sample).numpy()
    if len(rows) <= DIMENSIONS:
        raise RetrievalError("There are too few places to reduce descriptors by PCA.")
    layer = whitening.pca(rows, DIMENSIONS)
    weight, bias = (torch.from_numpy(array.astype(np.float32, order="C")) for array in layer)
    return {"pca.components": weight, "pca.bias": bias}
