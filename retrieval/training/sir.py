"""SIR's layer: 1024 units and a classifier on frozen features, trained to tell landmarks apart.

The trunk stays as it is, so its features are computed once and an epoch takes seconds. The layer
begins as the discriminant analysis of the same landmarks (``whitening.learn``), which is what
cross-entropy would have to find first; the classifier is dropped in the end.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from retrieval import methods
from retrieval.collections import Collection
from retrieval.networks import checkpoints
from retrieval.networks.records import PLAIN
from retrieval.training import photographs, result, whitening
from retrieval.training.journal import Journal
from retrieval.training.loop import Progress, Say, Settings, Stage, run
from retrieval.training.validation import mean_average_precision

DIMENSIONS = 1024
SHRINKAGE = 0.3
NOISE = 0.5  # standard deviation of what each feature is multiplied by: other views of the same
BATCH = 128
SCALE = 30.0  # of the cosines that the classifier gives


class Layer(Stage):
    """features (n, C) float32 of unit length, by number of the picture."""

    name = "layer"

    def __init__(self, features: torch.Tensor, photos: photographs.Photographs, settings: Settings):
        self.features, self.photos, self.settings = features, photos, settings
        self.training, self.held_out = photos.split()
        self.labelled = self.training[photos.landmarks[self.training] != photographs.NONE]
        self.steps = -(-len(self.labelled) // BATCH)
        x = features[self.training].numpy().astype(np.float64)
        dimensions = min(DIMENSIONS, x.shape[1])
        weight, bias = whitening.learn(x, photos.landmarks[self.training], dimensions, SHRINKAGE)
        factor = 1 / np.linalg.norm(x @ weight.T + bias, axis=1).mean()
        layer = nn.Linear(x.shape[1], dimensions)
        classifier = nn.Linear(dimensions, len(photos.titles), bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight * factor))
            layer.bias.copy_(torch.from_numpy(bias * factor))
            codes = F.normalize(layer(features[self.labelled]))
            classifier.weight.zero_()
            classifier.weight.index_add_(
                0, torch.from_numpy(photos.landmarks[self.labelled]), codes
            )
        self.layer, self.classifier = layer, classifier
        self.module = nn.ModuleDict({"layer": layer, "classifier": classifier})

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": self.module.parameters()}]

    def begin(self, epoch: int) -> None:
        rng = np.random.default_rng([self.settings.seed, epoch])
        self.batches = torch.from_numpy(rng.permutation(self.labelled)).split(BATCH)
        self.noise = torch.Generator().manual_seed(int(rng.integers(1 << 31)))

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        numbers = self.batches[step]
        features = self.features[numbers]
        features = features * (1 + NOISE * torch.randn(features.shape, generator=self.noise))
        codes = F.normalize(self.layer(F.normalize(features)))
        cosines = F.linear(codes, F.normalize(self.classifier.weight))
        landmarks = torch.from_numpy(self.photos.landmarks)[numbers]
        return F.cross_entropy(SCALE * cosines, landmarks)

    def validate(self) -> float:
        with torch.inference_mode():
            codes = F.normalize(self.layer(self.features[self.held_out]))
        return mean_average_precision(codes.numpy(), self.photos.landmarks[self.held_out])


def train(
    collection: Collection,
    out: Path,
    which: str | None = None,
    settings: Settings = Settings(),  # noqa: B008 - it is frozen
    progress: Progress = None,
    say: Say = lambda text: None,
) -> Path:
    """Train the layer on the labelled pictures of a collection and write it to ``out``.

    which: the checkpoint whose trunk it goes on. The same call goes on where it was stopped.
    """
    checkpoint = checkpoints.find("sir", which or PLAIN)
    bare = methods.load_record(checkpoint)
    photos = photographs.require_labels(collection)
    journal = Journal(
        out,
        {
            "method": "sir",
            "pictures": photos.digest(),
            "from": checkpoint.sha256,
            "input": bare.settings,
            **asdict(settings),
        },
    )

    def features() -> torch.Tensor:
        rows = []
        for number in range(len(photos)):
            rows.append(torch.from_numpy(bare.describe(photos.read(number))))
            if progress:
                progress(number + 1, len(photos), "features")
        return torch.stack(rows)

    stage = Layer(journal.once("features", features), photos, settings)
    say(f"{len(stage.labelled)} pictures to train on, {len(stage.held_out)} to validate on")
    rows: list[dict[str, Any]] = []
    run(stage, settings, journal, rows, progress, say)
    layer = stage.layer
    made = result.record(checkpoint, photos, "landmark", settings, rows)
    tensors = {"weight": layer.weight, "bias": layer.bias}
    return journal.finish(result.content(checkpoint, tensors, made, pooling="spoc"))
