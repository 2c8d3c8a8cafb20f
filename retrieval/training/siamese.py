"""CNN-IRwNHA's own training: a siamese network on matching pairs.

Radenović, Tolias and Chum, TPAMI 2018: tuples of a query, a picture that matches it, and the
pictures most like it of other landmarks, at most one of each, mined anew before every epoch. Here
each picture of a tuple is in turn the query of the others: a negative that has a match brings it
along, so one pass of twelve pictures serves up to twelve tuples instead of one.

Batch norms stay as they are, and so do the first blocks, which see edges and textures only; the
rest of the trunk and GeM's exponent are trained. Then a whitening layer is learned from the
matching pairs (section 3.4), and all of it is written as a network file of cirtorch's form.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.methods import pooling
from retrieval.networks import checkpoints, trunks
from retrieval.networks.records import PLAIN
from retrieval.training import loop, losses, pairs, photographs, result, views, whitening
from retrieval.training.journal import Journal
from retrieval.training.loop import Progress, Say, Stage, run
from retrieval.training.validation import mean_average_precision

SIZE = 224  # pixels of a side of a training view
NEGATIVES = 5  # of a tuple
LOOK = 400  # pictures most like the query among which negatives are looked for
DIMENSIONS = 512
SHRINKAGE = 0.3
LEAST_PAIRS = 50


@dataclass(frozen=True)
class Settings(loop.Settings):
    """pairs: what says that two pictures match, and that two do not.

    'geometry' asks no human: pictures match where one transformation explains many matches of
    their local features. 'labels' asks besides that they show one landmark, and takes negatives
    from others.
    frozen: blocks of the trunk, from the first, that stay as they are.
    tuples: of an epoch; batch: of a step.
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
        super().__init__()
        weights = checkpoints.load(checkpoint)
        meta = weights.meta
        if meta.get("pooling", "gem") != "gem" or meta.get("regional"):
            raise RetrievalError(f"{checkpoint.id} does not pool by GeM over the whole picture.")
        self.features = trunks.unfolded(checkpoint.trunk, "final", weights.tensors)
        trunks.freeze(self.features, frozen)
        self.p = nn.Parameter(
            torch.from_numpy(weights.head.get("pool.p", np.array([3.0], np.float32)).copy())
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, C) of unit length."""
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

    def groups(self) -> list[dict[str, Any]]:
        trained = [one for one in self.network.features.parameters() if one.requires_grad]
        return [
            {"params": trained},
            {"params": [self.network.p], "factor": 10.0, "weight_decay": 0.0},
        ]

    def describe(self, numbers: np.ndarray, size: int) -> np.ndarray:
        """Descriptors (n, C) float32 of whole pictures, ``size`` pixels on the longer side."""
        with torch.inference_mode():
            rows = [
                self.module(x.to(self.device)).cpu()
                for x in views.whole(self.photos, numbers, size, self.checkpoint)
            ]
        return torch.cat(rows).numpy()

    def begin(self, epoch: int) -> None:
        self.rng = np.random.default_rng([self.settings.seed, epoch])
        rows = self.describe(self.training, self.settings.size)
        self.known = np.zeros((len(self.photos), rows.shape[1]), np.float32)
        self.known[self.training] = rows
        repeats = -(-self.settings.tuples // len(self.queries))
        order = [self.rng.permutation(self.queries) for _ in range(repeats)]
        self.order = np.concatenate(order)[: self.settings.tuples]

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        first = step * self.settings.batch
        pictures: list[int] = []
        rows = []
        for query in self.order[first : first + self.settings.batch].tolist():
            numbers, items = self._tuple(query)
            rows.append(len(pictures) + everyone_asks(items))
            pictures += numbers
        several = [
            views.crop(self.photos.read(number), self.rng, self.settings.size)
            for number in pictures
        ]
        inputs = views.stack(several, self.checkpoint).to(self.device)
        vectors = self.module(inputs)
        compare = losses.triplet if self.settings.loss == "triplet" else losses.contrastive
        total, count = vectors.new_zeros(()), 0
        for index in rows:
            labels = torch.zeros(index.shape, device=self.device)
            labels[:, 0], labels[:, 1] = -1, 1
            total = total + compare(vectors[index.flatten()], labels.flatten())
            count += len(index)
        return total / count

    def _tuple(self, query: int) -> tuple[list[int], np.ndarray]:
        """A query, its negatives, and a match of each that has one, beside it.

        Returns the pictures, and for each the number of the item that it belongs to.
        """
        chosen = [query, *self._hardest(query)]
        numbers, items = [], []
        for item, number in enumerate(chosen):
            numbers.append(number)
            items.append(item)
            partners = self.matches.partners(number)
            if len(partners):
                numbers.append(int(self.rng.choice(partners)))
                items.append(item)
        return numbers, np.array(items)

    def _hardest(self, query: int) -> list[int]:
        """The pictures most like the query that do not match it, one of each landmark."""
        likeness = self.known[self.training] @ self.known[query]
        found: list[int] = []
        used = {self.matches.group[query]}
        used |= set(self.matches.group[self.matches.partners(query)].tolist())
        for number in self.training[np.argsort(-likeness, kind="stable")[:LOOK]].tolist():
            group = self.matches.group[number]
            if group in used or any(self.matches.agree(number, other) for other in (query, *found)):
                continue
            found.append(number)
            used.add(group)
            if len(found) == NEGATIVES:
                break
        return found

    def validate(self) -> float:
        vectors = self.describe(self.held_out, self.checkpoint.settings["size"])
        return mean_average_precision(vectors, self.photos.landmarks[self.held_out])


def everyone_asks(items: np.ndarray) -> torch.Tensor:
    """Tuples (t, n) of n pictures: every picture with a match asks for it among all the others.

    items: (n,) which pictures belong together: one or two of each number. A row holds positions:
    the query, its match, then all pictures of other items.
    """
    rows = []
    for query, item in enumerate(items):
        others = np.flatnonzero(items != item)
        match = np.flatnonzero((items == item) & (np.arange(len(items)) != query))
        if len(match):
            rows.append([query, *match, *others])
    return torch.tensor(rows)


def train(
    collection: Collection,
    out: Path,
    which: str | None = None,
    settings: Settings = Settings(),
    progress: Progress = None,
    say: Say = lambda text: None,
) -> Path:
    """Train a network on the database pictures of a collection and write it to ``out``.

    which: the checkpoint to start from. progress(done, total, what) is called after each picture
    and each step; say is told what was found and how each epoch went. The same call goes on where
    it was stopped. Raises RetrievalError where the pictures have too little in common.
    """
    checkpoint = checkpoints.find("cnn-irwnha", which or PLAIN)
    labelled = photographs.labelled(collection)
    if settings.pairs == "labels" and labelled is None:
        labelled = photographs.require_labels(collection)
    plain = photographs.unlabelled(collection)
    journal = Journal(
        out,
        {
            "method": "cnn-irwnha",
            "pictures": (labelled or plain).digest(),
            "from": checkpoint.sha256,
            **asdict(settings),
        },
    )
    found = journal.once("matches", lambda: pairs.agreeing(plain, progress))
    photos = labelled or photographs.grouped(plain, pairs.groups(found, len(plain)))
    landmarks = photos.landmarks if settings.pairs == "labels" else None
    matches = pairs.Matches(found, len(plain), landmarks)
    network = Network(checkpoint, settings.frozen).to(memory_format=torch.channels_last)
    network.to(trunks.placement()[0])
    stage = Siamese(network, checkpoint, photos, matches, settings)
    say(
        f"{len(matches)} matching pairs of {len(stage.queries)} pictures; {len(stage.training)} "
        f"to train on, {len(stage.held_out)} of other landmarks to validate on"
    )
    count = len(np.unique(matches.group))
    if len(matches) < LEAST_PAIRS or count <= NEGATIVES:
        raise RetrievalError(
            f"Too few pictures of {collection.title} match to train on: {len(matches)} pairs in "
            f"{count} groups; {LEAST_PAIRS} in {NEGATIVES + 1} are the least."
        )
    rows: list[dict[str, Any]] = []
    best = run(stage, settings, journal, rows, progress, say)
    labels = "landmark" if settings.pairs == "labels" else "none"
    if settings.pairs == "geometry" and labelled is not None:
        labels = "landmark, to validate only"
    weight, bias = (torch.from_numpy(array.astype(np.float32)) for array in _whitening(stage))
    tensors = {"pool.p": network.p, "whiten.weight": weight, "whiten.bias": bias}
    if best or checkpoint.file:
        tensors |= result.trunk(network.features)
    made = result.record(
        checkpoint,
        photos,
        labels,
        settings,
        rows,
        matches=len(matches),
    )
    cirtorch = {"pooling": "gem", "local_whitening": False, "regional": False, "whitening": True}
    return journal.finish(
        result.content(checkpoint, tensors, made, **cirtorch, outputdim=len(bias))
    )


def _whitening(stage: Siamese) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias learned from the matching pairs among the training pictures."""
    place = np.zeros(len(stage.photos), np.int64)
    place[stage.training] = np.arange(len(stage.training))
    pairs = stage.matches.pairs
    pairs = pairs[np.isin(pairs, stage.training).all(axis=1)]
    vectors = stage.describe(stage.training, stage.checkpoint.settings["size"])[
        place[pairs.flatten()]
    ]
    return whitening.learn(vectors, np.repeat(np.arange(len(pairs)), 2), DIMENSIONS, SHRINKAGE)
