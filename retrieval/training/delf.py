"""DELF's training: the trunk and the attention learn to classify landmarks.

Noh, Araujo, Sim, Weyand and Han, ICCV 2017, section 4: (1) the trunk is fine-tuned up to its
stride-16 block by classifying landmarks; (2) with the trunk frozen, the attention learns which
places help to classify: two 1×1 convolutions with softplus weigh the features of all places, and
their weighted sum goes into the classifier; (3) descriptors are reduced to 40 dimensions by PCA.

Two options are not in the paper. In (1) the trunk may also learn from correspondences: features of
places that XFeat matched and geometry verified become similar (InfoNCE, van den Oord et al., 2018).
In (2) the attention may learn from geometry instead of landmarks, or be left out: then it is the
norm of the feature.

A *place* is one position (y, x) of the feature map.
"""

from __future__ import annotations

from collections import Counter
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
from retrieval.networks.records import IMAGENET_TRUNK, SETTINGS
from retrieval.ranking import geometry
from retrieval.training import loop, pairs, photographs, result, views, whitening
from retrieval.training.journal import Journal
from retrieval.training.loop import Progress, Say, Stage, train_stage
from retrieval.training.validation import mean_average_precision

DIMENSIONS = 40  # of a descriptor
SIZE = 224  # pixels of a side of a training view
SCALE = 16.0  # the classifier's cosines are multiplied by it before the softmax
TEMPERATURE = 0.07  # of InfoNCE
MIN_NEGATIVE_DISTANCE = 2.0  # strides; nearer places are not used as negatives
MAX_CORRESPONDENCES = 64  # of a pair of pictures
VALIDATION_PAIRS, VALIDATION_BATCH = 200, 8
HIDDEN_UNITS = 512  # of the attention, as in the paper
ATTENTION_RATE = 1e-3  # learning rate of the attention
MAX_SIZE = 320  # pixels of a side of the largest view that the attention learns from
MIN_ZOOM = 0.5  # side of the smallest such view, as a share of MAX_SIZE
PCA_PICTURES = 1000
PCA_FEATURES = 50  # at most so many from a picture at one size
PCA_SIZES = (160, 224, 320)  # pixels of the longer side


@dataclass(frozen=True)
class Settings(loop.Settings):
    """Settings of this training.

    trunk: 'landmarks' trains it on landmarks, 'correspondences' on landmarks and correspondences,
    'frozen' not at all. attention: 'landmarks' or 'geometry' is what it learns from; 'norm' learns
    nothing and takes the norm of the feature. rate: learning rate of the trunk. frozen: how many
    blocks of the trunk, from the first, are not trained. steps: in an epoch. batch: pairs of
    pictures in a step.
    """

    epochs: int = 6
    trunk: Literal["landmarks", "correspondences", "frozen"] = "landmarks"
    attention: Literal["landmarks", "geometry", "norm"] = "landmarks"
    frozen: int = 5
    steps: int = 250
    batch: int = 8


class Trunk(Stage):
    """Stage 1, the trunk. A batch is made of matching pairs of pictures, whatever the loss.

    rows, held_out_rows: (m,) int64, positions in ``pairs`` of the pairs to train on, and of those
    to validate on.
    """

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
        self.held_out_rows = np.flatnonzero(np.isin(self.pairs, self.held_out).all(axis=1))
        self.steps = settings.steps
        self.device = trunks.placement()[0]
        features = trunks.build_for_training(
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

    def parameter_groups(self) -> list[dict[str, Any]]:
        trunk = [p for p in self.features.parameters() if p.requires_grad]
        return [
            {"params": trunk},
            {"params": self.classifier.parameters(), "factor": 10.0},
        ]

    def begin(self, epoch: int) -> None:
        self.rng = np.random.default_rng([self.settings.seed, epoch])
        # One pair of each landmark in turn: landmarks with few pairs count as much as others.
        landmarks = self.photos.landmarks[self.pairs[self.rows, 0]]
        order = self.rng.permutation(len(landmarks))
        turns = np.zeros(len(landmarks), np.int64)  # place of a pair among those of its landmark
        pairs_before: Counter[int] = Counter()
        for pair in order:
            turns[pair] = pairs_before[landmarks[pair]]
            pairs_before[landmarks[pair]] += 1
        order = order[np.argsort(turns[order], kind="stable")]
        pair_count = self.steps * self.settings.batch
        self.order = self.rng.permutation(self.rows[np.resize(order, pair_count)])

    def loss(self, step: int) -> torch.Tensor:
        rows = np.split(self.order, self.steps)[step]
        maps, boxes = self._feature_maps(rows, self.rng)
        vectors = F.normalize(maps.mean(dim=(-2, -1)))
        cosines = F.linear(vectors, F.normalize(self.classifier.weight))
        landmarks = torch.from_numpy(self.photos.landmarks[self.pairs[rows].flatten()])
        loss = F.cross_entropy(SCALE * cosines, landmarks.to(self.device))
        if self.settings.trunk == "correspondences":
            logits = self._similarities(maps, rows, boxes, self.rng) / TEMPERATURE
            own = torch.arange(len(logits), device=logits.device)
            if len(own):
                loss = loss + F.cross_entropy(logits, own) / 2 + F.cross_entropy(logits.T, own) / 2
        return loss

    def _feature_maps(
        self, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[torch.Tensor, list[Box]]:
        """Feature maps (2 n, C, h, w) float32 of a random view of each picture of n pairs.

        rows: (n,) int64, positions in ``pairs``. Also returns the box of each view, in pixels.
        """
        pictures = [self.photos.read(int(number)) for number in self.pairs[rows].flatten()]
        boxes = [views.random_crop(picture.size, rng) for picture in pictures]
        pixels = [
            views.jitter_light(views.resized_crop(picture, box, SIZE), rng)
            for picture, box in zip(pictures, boxes, strict=True)
        ]
        inputs = views.network_input(pixels, self.checkpoint).to(self.device)
        return self.features(inputs).float(), boxes

    def _similarities(
        self, maps: torch.Tensor, rows: np.ndarray, boxes: list[Box], rng: np.random.Generator
    ) -> torch.Tensor:
        """Cosines (n, n) float32 between features at n corresponding points of the pairs.

        A row is a point in the first picture of a pair, a column a point in the second picture. The
        diagonal holds the correspondences. -inf stands where two points of one picture are too near
        to be negatives. maps, boxes: from ``_feature_maps(rows, …)``.
        """
        features, second_points, pair_of_point = [], [], []
        for number, row in enumerate(rows):
            sides = []
            for side in (0, 1):
                left, top, right, bottom = boxes[2 * number + side]
                points = self.points[row][:, 2 * side : 2 * side + 2] - [left, top]
                sides.append(points / [right - left, bottom - top] * SIZE)
            view_points = np.stack(sides)  # (2, k, 2), pixels of the view
            inside = np.flatnonzero(((view_points > 0) & (view_points < SIZE)).all(axis=(0, 2)))
            chosen = rng.permutation(inside)[:MAX_CORRESPONDENCES]
            chosen_points = torch.from_numpy(view_points[:, chosen]).float().to(maps.device)
            units = (chosen_points - self.field.offset) / self.field.stride  # of the map, from 0
            grid = (units + 0.5) / maps.shape[-1] * 2 - 1  # grid_sample wants -1 to 1
            sampled = F.grid_sample(
                maps[2 * number : 2 * number + 2], grid[:, None], align_corners=False
            )  # (2, C, 1, n)
            features.append(sampled[:, :, 0].transpose(1, 2))
            second_points.append(chosen_points[1])
            pair_of_point += [number] * len(chosen)
        a, b = F.normalize(torch.cat(features, dim=1), dim=-1)
        points_b, pair = torch.cat(second_points), torch.tensor(pair_of_point, device=a.device)
        min_distance = MIN_NEGATIVE_DISTANCE * self.field.stride
        near = (torch.cdist(points_b, points_b) < min_distance) & (pair[:, None] == pair)
        return (a @ b.T).masked_fill(near.fill_diagonal_(False), float("-inf"))

    def validate(self) -> float:
        with torch.inference_mode():
            if self.settings.trunk == "correspondences":
                return self._matching_accuracy()
            rows = [
                F.normalize(self.features(x.to(self.device)).float().mean(dim=(-2, -1)))
                for x in views.whole_pictures(self.photos, self.held_out, SIZE, self.checkpoint)
            ]
        vectors = torch.cat(rows).cpu().numpy()
        return mean_average_precision(vectors, self.photos.landmarks[self.held_out])

    def _matching_accuracy(self) -> float:
        """Share of the points, 0 to 1, whose most similar point in the other picture is the right
        one, on pairs of held-out landmarks.
        """
        rng = np.random.default_rng(self.settings.seed)
        held_out = rng.permutation(self.held_out_rows)[:VALIDATION_PAIRS]
        correct = []
        for rows in np.array_split(held_out, max(1, len(held_out) // VALIDATION_BATCH)):
            maps, boxes = self._feature_maps(rows, rng)
            nearest = self._similarities(maps, rows, boxes, rng).argmax(dim=1).cpu()
            correct.append((nearest == torch.arange(len(nearest))).float())
        return float(torch.cat(correct).mean())


class Attention(Stage):
    """Stage 2, the attention on the frozen trunk.

    From landmarks: cross-entropy of W Σ α f / n over the n places of a random view of random size;
    equations 2 to 4 of the report are its gradients. From geometry: a place is matchable if the
    place most similar to it in a matching picture is where the homography puts it. A score s
    predicts this with probability 1 − e⁻ˢ (Hartmann, Havlena and Schindler, "Predicting
    Matchability", CVPR 2014).

    feature_std: the standard deviation of the trunk's features, by which they are divided.
    """

    name = "attention"

    def __init__(self, trunk: Trunk):
        self.trunk, self.settings = trunk, trunk.settings
        self.photos, self.held_out = trunk.photos, trunk.held_out
        self.features = trunk.features.requires_grad_(False)
        self.labelled = trunk.training[
            self.photos.landmarks[trunk.training] != photographs.NO_LANDMARK
        ]
        self.by_geometry = self.settings.attention == "geometry"
        self.steps = self.settings.steps
        self.maps = trunk.matches.maps
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            channels = self.features.channels
            self.conv1, self.conv2 = (
                nn.Conv2d(channels, HIDDEN_UNITS, 1),
                nn.Conv2d(HIDDEN_UNITS, 1, 1),
            )
            self.classifier = nn.Linear(channels, len(self.photos.titles))
        self.module = nn.ModuleDict(
            {"conv1": self.conv1, "conv2": self.conv2, "classifier": self.classifier}
        ).to(trunk.device)
        # Trunks differ in the size of their features; the layers learn well at deviation 1.
        first = views.whole_pictures(self.photos, self.labelled[:1], SIZE, trunk.checkpoint)
        with torch.inference_mode():
            self.feature_std = float(self.features(next(first).to(trunk.device)).float().std())

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": self.module.parameters()}]

    def begin(self, epoch: int) -> None:
        rng = np.random.default_rng([self.settings.seed, epoch])
        # A step has ``batch`` pairs, or 2 · ``batch`` single pictures.
        items = self.trunk.rows if self.by_geometry else self.labelled
        item_count = self.steps * self.settings.batch * (1 if self.by_geometry else 2)
        repeats = [rng.permutation(items) for _ in range(-(-item_count // len(items)))]
        self.order, self.rng = np.concatenate(repeats)[:item_count], rng

    def loss(self, step: int) -> torch.Tensor:
        numbers = np.split(self.order, self.steps)[step]
        if self.by_geometry:
            return self._matchability_loss(numbers)
        zoom = self.rng.uniform(MIN_ZOOM, 1)
        size = round(MAX_SIZE * zoom / 32) * 32
        pixels = [views.random_view(self.photos.read(int(n)), self.rng, size) for n in numbers]
        inputs = views.network_input(pixels, self.trunk.checkpoint)
        features = self.scaled_features(inputs)
        weighted = (F.softplus(self.logits(features)) * features).mean(dim=(-2, -1))
        landmarks = torch.from_numpy(self.photos.landmarks[numbers]).to(self.trunk.device)
        return F.cross_entropy(self.classifier(weighted), landmarks)

    def scaled_features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features (B, C, h, w) float32 of inputs (B, 3, H, W), over their standard deviation."""
        with torch.no_grad():
            return self.features(inputs.to(self.trunk.device)).float() / self.feature_std

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1, h, w) of scaled features (B, C, h, w); their softplus is the attention."""
        return self.conv2(self.conv1(features).relu())

    def _matchability_loss(self, rows: np.ndarray) -> torch.Tensor:
        """Binary cross-entropy, a scalar: which places of the first pictures are matchable.

        rows: (n,) int64, positions in ``pairs``.
        """
        numbers = self.trunk.pairs[rows].flatten()
        pictures = [self.photos.read(int(number)) for number in numbers]
        pixels = [views.resized_crop(picture, (0, 0, *picture.size), SIZE) for picture in pictures]
        features = self.scaled_features(views.network_input(pixels, self.trunk.checkpoint))
        side = features.shape[-1]
        centres = self.trunk.field.offset + self.trunk.field.stride * np.arange(side)
        places = np.stack(np.meshgrid(centres, centres, indexing="xy"), axis=-1).reshape(-1, 2)
        directions = F.normalize(features.flatten(2), dim=1)  # (2 n, C, h w)
        logits = self.logits(features)[:, 0].flatten(1)
        visible_logits, matchable = [], []
        for number, row in enumerate(rows):
            a, b = 2 * number, 2 * number + 1
            factor_a, factor_b = (np.array(pictures[n].size) / SIZE for n in (a, b))
            projected = geometry.project(self.maps[row], places * factor_a) / factor_b
            visible = np.flatnonzero(((projected > 0) & (projected < SIZE)).all(axis=1))
            nearest = (directions[a].T @ directions[b]).argmax(dim=1).cpu().numpy()
            error = np.linalg.norm(places[nearest[visible]] - projected[visible], axis=1)
            visible_logits.append(logits[a, visible])
            matchable.append(torch.from_numpy(error < self.trunk.field.stride))
        target = torch.cat(matchable).float().to(logits.device)
        return F.binary_cross_entropy_with_logits(torch.cat(visible_logits), target)

    def validate(self) -> float:
        rows = []
        with torch.inference_mode():
            for x in views.whole_pictures(self.photos, self.held_out, SIZE, self.trunk.checkpoint):
                features = self.scaled_features(x)
                attention = F.softplus(self.logits(features))
                rows.append(F.normalize((attention * features).mean(dim=(-2, -1))).cpu())
        vectors = torch.cat(rows).numpy()
        return mean_average_precision(vectors, self.photos.landmarks[self.held_out])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Tensors of the two layers, by their names in a file, for features that are not scaled."""
        conv1, conv2 = self.conv1, self.conv2
        assert conv1.bias is not None
        assert conv2.bias is not None
        return {
            "attention.conv1.weight": conv1.weight[:, :, 0, 0] / self.feature_std,
            "attention.conv1.bias": conv1.bias,
            "attention.conv2.weight": conv2.weight[:, :, 0, 0],
            "attention.conv2.bias": conv2.bias,
        }


def train(
    collection: Collection,
    out: Path,
    start: str | None = None,
    settings: Settings = Settings(),
    progress: Progress = None,
    say: Say = lambda text: None,
) -> Path:
    """Train DELF on the labelled pictures of a collection and write it to ``out``.

    start: id or file of the checkpoint to start from, of DELF or CNN-IRwNHA; default: the embedded
    trunk. progress(done, total, what) is called after each picture and each step, say(text) with a
    line about the pairs and about each epoch. Returns ``out``. The same call resumes a training
    that was stopped. Raises RetrievalError for pictures or labels that cannot be used.
    """
    checkpoint = _checkpoint(start)
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
    verified = pairs.verified_once(journal, photos, progress)
    matches = pairs.Matches(verified, len(photos), photos.landmarks)
    history: list[dict[str, Any]] = []
    trunk = Trunk(checkpoint, photos, matches, settings)
    say(
        f"{len(trunk.rows)} matching pairs; {len(trunk.training)} pictures to train on, "
        f"{len(trunk.held_out)} of other landmarks to validate on"
    )
    _check_matches(trunk, collection.title)
    best = 0
    if settings.trunk != "frozen":
        best = train_stage(trunk, settings, journal, history, progress, say)
    tensors = result.trunk_tensors(trunk.features) if best or checkpoint.file else {}
    attention = Attention(trunk)
    if settings.attention != "norm":
        attention_settings = replace(settings, rate=ATTENTION_RATE)
        train_stage(attention, attention_settings, journal, history, progress, say)
        tensors |= attention.tensors()
    tensors |= _pca(attention)
    record = result.training_record(checkpoint, photos, "landmark", settings, history, len(matches))
    return journal.write_network(
        result.file_content(checkpoint, tensors, record, pooling="attention")
    )


def _check_matches(trunk: Trunk, title: str) -> None:
    """Raise RetrievalError where no pictures match. title: of the collection."""
    if not len(trunk.rows):
        raise RetrievalError(
            f"No two pictures of a landmark of {title} match, and training needs such pairs: add "
            "pictures that show a landmark from the same side."
        )
    if trunk.settings.trunk == "correspondences" and not len(trunk.held_out_rows):
        raise RetrievalError(
            f"No two of the pictures of {title} that are held out to validate on match, and "
            "correspondences need such pairs: add pictures, or choose another --trunk."
        )


def _checkpoint(start: str | None) -> checkpoints.Checkpoint:
    """The checkpoint to start from: one of DELF, or one of CNN-IRwNHA with DELF's settings."""
    try:
        return checkpoints.find("delf", start or IMAGENET_TRUNK)
    except RetrievalError:
        checkpoint = checkpoints.find("cnn-irwnha", start)
        return replace(checkpoint, method="delf", settings=SETTINGS["delf"])


def _pca(attention: Attention) -> dict[str, torch.Tensor]:
    """PCA of the features with the highest attention, as tensors by their names in a file.

    It is fitted on pictures spread evenly over the training pictures. Descriptors become
    (DIMENSIONS,).
    """
    photos, training = attention.photos, attention.trunk.training
    count = min(PCA_PICTURES, len(training))
    numbers = training[np.linspace(0, len(training) - 1, count, dtype=int)]
    samples = []
    with torch.inference_mode():
        for size in PCA_SIZES:
            for x in views.whole_pictures(photos, numbers, size, attention.trunk.checkpoint):
                features = attention.scaled_features(x)
                scores = attention.logits(features)[:, 0].flatten(1)
                if attention.settings.attention == "norm":
                    scores = features.norm(dim=1).flatten(1)
                count = min(PCA_FEATURES, scores.shape[1] // 2)
                best = scores.topk(count).indices[:, None].expand(-1, features.shape[1], -1)
                best_features = features.flatten(2).gather(2, best).transpose(1, 2).flatten(0, 1)
                samples.append(pooling.l2(best_features).cpu())
    descriptors = torch.cat(samples).numpy()
    if len(descriptors) <= DIMENSIONS:
        raise RetrievalError(
            f"The pictures give {len(descriptors)} features, too few for a PCA to {DIMENSIONS} "
            "dimensions: add larger pictures."
        )
    layer = whitening.pca(descriptors, DIMENSIONS)
    weight, bias = (torch.from_numpy(array.astype(np.float32, order="C")) for array in layer)
    return {"pca.components": weight, "pca.bias": bias}
