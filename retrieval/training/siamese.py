"""CNN-IRwNHA's training: a siamese network on matching pairs.

Radenović, Tolias and Chum, TPAMI 2018: a tuple is a query, a picture that matches it, and its
negatives: the pictures most similar to it of other landmarks, at most one of each. They are mined
(chosen) again before every epoch.

Here the query and each of its NEGATIVES come with a picture that matches them, where there is one:
up to twelve pictures of six things. Each picture that has its match among them is once the query of
a tuple, and the pictures of the other things are its negatives. So one pass of twelve pictures
through the network gives up to twelve tuples.

Batch norms and the first blocks of the trunk, which see edges and textures only, stay as they are;
the rest of the trunk and GeM's exponent are trained. Then a whitening layer is learned from the
matching pairs (section 3.4 of the paper), and all of it is written as a network file of cirtorch's
form.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from retrieval import methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.methods import pooling
from retrieval.networks import checkpoints, trunks
from retrieval.networks.records import IMAGENET_TRUNK
from retrieval.training import loop, losses, pairs, photographs, result, views, whitening
from retrieval.training.journal import Journal
from retrieval.training.loop import Progress, Say, Stage, train_stage
from retrieval.training.validation import mean_average_precision

SIZE = 224  # pixels of a side of a training view
NEGATIVES = 5  # of a tuple
MINING_POOL = 400  # pictures most similar to the query, which negatives are taken from
DIMENSIONS = 512  # of the whitened descriptor
SHRINKAGE = 0.3  # of the whitening, see ``whitening.from_groups``
MIN_PAIRS = 50  # matching pairs that a collection needs


@dataclass(frozen=True)
class Settings(loop.Settings):
    """Settings of this training.

    pairs: what makes two pictures a matching pair. 'geometry': one transformation explains many
    matches of their local features; no labels are needed. 'labels': they also show one landmark,
    and negatives are of other landmarks.
    size: pixels of a side of a view. frozen: how many blocks of the trunk, from the first, are not
    trained. tuples: in an epoch. batch: tuples in a step.
    """

    epochs: int = 4
    pairs: Literal["geometry", "labels"] = "geometry"
    loss: Literal["contrastive", "triplet"] = "contrastive"
    size: int = SIZE
    frozen: int = 5
    tuples: int = 250
    batch: int = 1


class Network(nn.Module):
    """Trunk → GeM → L2."""

    def __init__(self, checkpoint: checkpoints.Checkpoint, frozen: int):
        """Raises RetrievalError for a checkpoint without GeM over the whole picture."""
        super().__init__()
        weights = checkpoints.load(checkpoint)
        meta = weights.meta
        if meta.get("pooling", "gem") != "gem" or meta.get("regional"):
            raise RetrievalError(
                f"{checkpoint.id} does not pool by GeM over the whole picture; start from another "
                "--checkpoint."
            )
        self.features = trunks.build_for_training(checkpoint.trunk, "final", weights.tensors)
        trunks.freeze(self.features, frozen)
        self.p = nn.Parameter(
            torch.from_numpy(weights.head.get("pool.p", np.array([3.0], np.float32)).copy())
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Descriptors (B, C) of unit length, of inputs (B, 3, H, W)."""
        # GeM: (mean of xᵖ over the map)^(1/p). To ``pooling.gem`` one p is a plain number, of which
        # nothing can be learned.
        x = self.features(x).float().clamp(min=pooling.EPS).pow(self.p).mean(dim=(-2, -1))
        return pooling.l2(x.pow(1 / self.p))


class Siamese(Stage):
    """The one stage of this training."""

    name = "trunk"

    def __init__(
        self,
        network: Network,
        checkpoint: checkpoints.Checkpoint,
        photos: photographs.Photographs,
        matches: pairs.Matches,
        settings: Settings,
    ):
        self.module = self.network = network
        self.checkpoint, self.photos = checkpoint, photos
        self.matches, self.settings = matches, settings
        self.training, self.held_out = photos.split()
        self.queries = np.intersect1d(self.training, matches.with_partners())
        self.steps = -(-settings.tuples // settings.batch)
        self.device = trunks.placement()[0]

    def parameter_groups(self) -> list[dict[str, Any]]:
        trunk = [p for p in self.network.features.parameters() if p.requires_grad]
        # GeM's exponent learns ten times as fast, as in cirtorch.
        return [
            {"params": trunk},
            {"params": [self.network.p], "factor": 10.0, "weight_decay": 0.0},
        ]

    def describe(self, numbers: np.ndarray, size: int) -> np.ndarray:
        """Descriptors (n, C) float32, of unit length, of whole pictures.

        numbers: of the pictures, (n,) int. size: pixels of the longer side; smaller pictures are
        enlarged to it where the method does so with this checkpoint.
        """
        enlarge = self.checkpoint.settings.get("enlarge", False)
        with torch.inference_mode():
            rows = [
                self.module(x.to(self.device)).cpu()
                for x in views.whole_pictures(self.photos, numbers, size, self.checkpoint, enlarge)
            ]
        return torch.cat(rows).numpy()

    def begin(self, epoch: int) -> None:
        self.rng = np.random.default_rng([self.settings.seed, epoch])
        descriptors = self.describe(self.training, self.settings.size)
        self.descriptors = np.zeros((len(self.photos), descriptors.shape[1]), np.float32)
        self.descriptors[self.training] = descriptors
        repeats = -(-self.settings.tuples // len(self.queries))
        order = [self.rng.permutation(self.queries) for _ in range(repeats)]
        self.order = np.concatenate(order)[: self.settings.tuples]

    def loss(self, step: int) -> torch.Tensor:
        first = step * self.settings.batch
        numbers: list[int] = []
        tuples = []
        for query in self.order[first : first + self.settings.batch].tolist():
            query_numbers, items = self._mined_pictures(query)
            tuples.append(len(numbers) + all_tuples(items))
            numbers += query_numbers
        pixels = [
            views.random_view(self.photos.read(number), self.rng, self.settings.size)
            for number in numbers
        ]
        inputs = views.network_input(pixels, self.checkpoint).to(self.device)
        vectors = self.module(inputs)
        compare = losses.triplet if self.settings.loss == "triplet" else losses.contrastive
        total, count = vectors.new_zeros(()), 0
        for rows in tuples:
            # As ``losses`` wants them: the query -1, its match 1, negatives 0.
            labels = torch.zeros(rows.shape, device=self.device)
            labels[:, 0], labels[:, 1] = -1, 1
            total = total + compare(vectors[rows.flatten()], labels.flatten())
            count += len(rows)
        return total / count

    def _mined_pictures(self, query: int) -> tuple[list[int], np.ndarray]:
        """A query and its negatives, each followed by a picture that matches it, if one does.

        Returns the numbers of the pictures, and for each the item (n,) int64 that it belongs to: 0
        for the query and its match, 1 for the first negative and its match, and so on.
        """
        numbers, items = [], []
        for item, number in enumerate([query, *self._hard_negatives(query)]):
            numbers.append(number)
            items.append(item)
            partners = self.matches.partners(number)
            if len(partners):
                numbers.append(int(self.rng.choice(partners)))
                items.append(item)
        return numbers, np.array(items)

    def _hard_negatives(self, query: int) -> list[int]:
        """The pictures most similar to the query that do not match it, one of each group.

        Groups: see ``pairs.Matches``.
        """
        matches = self.matches
        similarities = self.descriptors[self.training] @ self.descriptors[query]
        pool = self.training[np.argsort(-similarities, kind="stable")[:MINING_POOL]]
        negatives: list[int] = []
        used_groups = {matches.group[query]}
        used_groups |= set(matches.group[matches.partners(query)].tolist())
        for number in pool.tolist():
            group = matches.group[number]
            if group in used_groups or any(
                matches.are_verified(number, other) for other in (query, *negatives)
            ):
                continue
            negatives.append(number)
            used_groups.add(group)
            if len(negatives) == NEGATIVES:
                break
        return negatives

    def validate(self) -> float:
        vectors = self.describe(self.held_out, self.checkpoint.settings["size"])
        return mean_average_precision(vectors, self.photos.landmarks[self.held_out])


def all_tuples(items: np.ndarray) -> torch.Tensor:
    """The tuples of n pictures, one for each picture that has a match: (t, n) int64.

    items: (n,) int64, see ``_mined_pictures``: one or two pictures have the same number, and two
    with the same number match. A row holds positions: the query, its match, then all pictures of
    other items.
    """
    tuples = []
    for query, item in enumerate(items):
        negatives = np.flatnonzero(items != item)
        match = np.flatnonzero((items == item) & (np.arange(len(items)) != query))
        if len(match):
            tuples.append([query, *match, *negatives])
    return torch.tensor(tuples)


def train(
    collection: Collection,
    out: Path,
    start: str | None = None,
    settings: Settings = Settings(),
    progress: Progress = None,
    say: Say = lambda text: None,
) -> Path:
    """Train a network on the database pictures of a collection and write it to ``out``.

    start: id or file of the checkpoint to start from; default: the embedded trunk.
    progress(done, total, what) is called after each picture and each step, say(text) with a line
    about the pairs and about each epoch. Returns ``out``. The same call resumes a training that was
    stopped. Raises RetrievalError where too few pictures match.
    """
    checkpoint = checkpoints.find("cnn-irwnha", start or IMAGENET_TRUNK)
    # All settings of the method, checked: a file may state others, or not all.
    checkpoint = replace(checkpoint, settings=methods.load_record(checkpoint).settings)
    labelled = photographs.labelled(collection)
    if settings.pairs == "labels" and labelled is None:
        labelled = photographs.require_labels(collection)
    unlabelled = photographs.unlabelled(collection)
    journal = Journal(
        out,
        {
            "method": "cnn-irwnha",
            "pictures": (labelled or unlabelled).digest(),
            "from": checkpoint.sha256,
            "input": checkpoint.settings,
            **asdict(settings),
        },
    )
    verified = pairs.verified_once(journal, unlabelled, progress)
    photos = labelled or photographs.grouped(unlabelled, pairs.groups(verified, len(unlabelled)))
    landmarks = photos.landmarks if settings.pairs == "labels" else None
    matches = pairs.Matches(verified, len(unlabelled), landmarks)
    network = Network(checkpoint, settings.frozen).to(memory_format=torch.channels_last)
    network.to(trunks.placement()[0])
    stage = Siamese(network, checkpoint, photos, matches, settings)
    say(
        f"{len(matches)} matching pairs of {len(stage.queries)} pictures; {len(stage.training)} "
        f"to train on, {len(stage.held_out)} of other landmarks to validate on"
    )
    _check_matches(stage, collection.title)
    history: list[dict[str, Any]] = []
    best = train_stage(stage, settings, journal, history, progress, say)
    labels = "landmark" if settings.pairs == "labels" else "none"
    if settings.pairs == "geometry" and labelled is not None:
        labels = "landmark, to validate only"
    weight, bias = (torch.from_numpy(array.astype(np.float32)) for array in _whitening(stage))
    tensors = {"pool.p": network.p, "whiten.weight": weight, "whiten.bias": bias}
    if best or checkpoint.file:
        tensors |= result.trunk_tensors(network.features)
    record = result.training_record(checkpoint, photos, labels, settings, history, len(matches))
    cirtorch = {"pooling": "gem", "local_whitening": False, "regional": False, "whitening": True}
    return journal.write_network(
        result.file_content(checkpoint, tensors, record, **cirtorch, outputdim=len(bias))
    )


def _check_matches(stage: Siamese, title: str) -> None:
    """Raise RetrievalError where too few pictures match. title: of the collection."""
    pair_count, group_count = len(stage.matches), len(np.unique(stage.matches.group))
    if pair_count < MIN_PAIRS or group_count <= NEGATIVES:
        raise RetrievalError(
            f"Too few pictures of {title} match: {pair_count} pairs in {group_count} groups. "
            f"Training needs {MIN_PAIRS} pairs in {NEGATIVES + 1} groups: add pictures of the same "
            "things."
        )
    if not len(stage.queries):
        raise RetrievalError(
            f"No two training pictures of {title} match: all that match are held out to validate "
            "on. Add pictures of the other landmarks."
        )


def _whitening(stage: Siamese) -> tuple[np.ndarray, np.ndarray]:
    """Weight (d, C) and bias (d,), learned from the matching pairs among the training pictures."""
    row_of = np.zeros(len(stage.photos), np.int64)
    row_of[stage.training] = np.arange(len(stage.training))
    pairs = stage.matches.pairs
    pairs = pairs[np.isin(pairs, stage.training).all(axis=1)]
    descriptors = stage.describe(stage.training, stage.checkpoint.settings["size"])
    return whitening.from_groups(
        descriptors[row_of[pairs.flatten()]],
        np.repeat(np.arange(len(pairs)), 2),
        DIMENSIONS,
        SHRINKAGE,
    )
