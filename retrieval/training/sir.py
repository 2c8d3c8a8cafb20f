"""SIR's layer: 1024 units on frozen features, trained with a classifier of landmarks.

The trunk is not trained, so its features are computed once and an epoch takes seconds. The layer
starts as the discriminant analysis of the same landmarks (``whitening.from_groups``), which saves
epochs. The classifier is not written to the network's file.
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
from retrieval.methods.base import MAX_OUTPUTS, as_vector
from retrieval.networks import checkpoints
from retrieval.networks.records import IMAGENET_TRUNK
from retrieval.training import photographs, result, whitening
from retrieval.training.journal import Journal, is_array
from retrieval.training.loop import Progress, Say, Settings, Stage, train_stage
from retrieval.training.validation import mean_average_precision

DIMENSIONS = 1024  # of the layer
SHRINKAGE = 0.3  # of the discriminant analysis
NOISE = 0.5  # features are multiplied by noise of mean 1 and this deviation, in place of new views
BATCH = 128
SCALE = 30.0  # the classifier's cosines are multiplied by it before the softmax


class Layer(Stage):
    """The layer and its classifier."""

    name = "layer"

    def __init__(self, features: torch.Tensor, photos: photographs.Photographs, settings: Settings):
        """features: (n, C) float32 of unit length, a row for each picture."""
        self.features, self.photos, self.settings = features, photos, settings
        self.training, self.held_out = photos.split()
        self.labelled = self.training[photos.landmarks[self.training] != photographs.NO_LANDMARK]
        self.steps = -(-len(self.labelled) // BATCH)
        x = features[self.training].numpy().astype(np.float64)
        dimensions = min(DIMENSIONS, x.shape[1])
        weight, bias = whitening.from_groups(
            x, photos.landmarks[self.training], dimensions, SHRINKAGE
        )
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

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": self.module.parameters()}]

    def begin(self, epoch: int) -> None:
        rng = np.random.default_rng([self.settings.seed, epoch])
        self.batches = torch.from_numpy(rng.permutation(self.labelled)).split(BATCH)
        self.noise = torch.Generator().manual_seed(int(rng.integers(1 << 31)))

    def loss(self, step: int) -> torch.Tensor:
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
    start: str | None = None,
    settings: Settings = Settings(),  # noqa: B008 - it is frozen
    progress: Progress = None,
    say: Say = lambda text: None,
) -> Path:
    """Train the layer on the labelled pictures of a collection and write it to ``out``.

    start: id or file of the checkpoint whose trunk gives the features; default: the embedded trunk.
    progress(done, total, what) is called after each picture and each step, say(text) with a line
    about the pictures and about each epoch. Returns ``out``. The same call resumes a training that
    was stopped. Raises RetrievalError for pictures or labels that cannot be used.
    """
    checkpoint = checkpoints.find("sir", start or IMAGENET_TRUNK)
    trunk = methods.load_record(checkpoint)
    photos = photographs.require_labels(collection)
    journal = Journal(
        out,
        {
            "method": "sir",
            "pictures": photos.digest(),
            "from": checkpoint.sha256,
            "input": trunk.settings,
            **asdict(settings),
        },
    )

    def describe_all() -> torch.Tensor:
        rows = []
        for number in range(len(photos)):
            rows.append(torch.from_numpy(as_vector(trunk.describe(photos.read(number)))))
            if progress:
                progress(number + 1, len(photos), "features")
        return torch.stack(rows)

    def are_features(stored: Any) -> bool:
        return (
            is_array(stored, torch.float32, len(photos), -1) and 0 < stored.shape[1] <= MAX_OUTPUTS
        )

    features = journal.computed_once(
        "features", describe_all, are_features, len(photos) * 4 * MAX_OUTPUTS
    )
    stage = Layer(features, photos, settings)
    say(f"{len(stage.labelled)} pictures to train on, {len(stage.held_out)} to validate on")
    history: list[dict[str, Any]] = []
    train_stage(stage, settings, journal, history, progress, say)
    record = result.training_record(checkpoint, photos, "landmark", settings, history)
    tensors = {"weight": stage.layer.weight, "bias": stage.layer.bias}
    return journal.write_network(result.file_content(checkpoint, tensors, record, pooling="spoc"))
