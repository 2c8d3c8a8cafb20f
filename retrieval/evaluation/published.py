"""Figures that others state: the report this project starts from, and the authors' own tables.

None of them is measured here. Those of networks that can be downloaded are kept with their
checkpoints (``retrieval.networks.records``), those of published descriptors in
``retrieval.evaluation.published_descriptors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from retrieval import methods
from retrieval.evaluation import published_descriptors as features
from retrieval.networks import checkpoints

REPORT, PUBLISHED = "report", "published"


@dataclass(frozen=True)
class Row:
    """One line of somebody's table, in per cent; what they do not state is absent.

    origin: REPORT or PUBLISHED. map: protocol → mAP. mp: protocol → mP@1, 5, 10.
    checkpoint: the id under which the same network or descriptors are used here, if they are.
    """

    collection: str
    origin: str
    method: str
    network: str
    map: Mapping[str, float]
    source: str
    mp: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    checkpoint: str = ""


_THEIRS = "the report this project starts from"
_SQUEEZED = "pictures squeezed to 256 × 256"
_TABLES = "the authors' own tables (revisitop)"


def _report(method: str, network: str, revisited: tuple, classic: float) -> list[Row]:
    kinds = ("easy", "medium", "hard")
    return [
        Row(
            "roxford5k", REPORT, method, network, dict(zip(kinds, revisited, strict=True)), _THEIRS
        ),
        Row("oxford5k", REPORT, method, network, {"classic": classic}, _THEIRS),
    ]


_STATED = (
    *_report("SIR", f"ResNet-152; {_SQUEEZED}", (14.4, 11.85, 2.34), 23.34),
    *_report("DELF", f"TF-Hub module; {_SQUEEZED}", (58.56, 42.04, 16.98), 66.69),
    *_report("CNN-IRwNHA", "ResNet-152, GeM, whitening", (85.08, 68.65, 44.24), 82.09),
    Row("roxford5k", PUBLISHED, "DELF-ASMK*+SP", "DELF, trained on landmarks",
        {"medium": 67.8, "hard": 43.1}, _TABLES),
    Row("roxford5k", PUBLISHED, "GeM and diffusion", "ResNet-101, SfM-120k",
        {"easy": 86.4, "medium": 72.5, "hard": 48.6}, _TABLES),
)  # fmt: skip


def rows(collection: str) -> list[Row]:
    """What others state for a collection; empty for collections that only we have."""
    found = [row for row in _STATED if row.collection == collection]
    for one in features.FEATURES.values():
        if one.collection == collection:
            found.append(Row(
                collection, PUBLISHED, "CNN-IRwNHA", "ResNet-101, GeM, SfM-120k: descriptors",
                {protocol: value for protocol, (value, _) in one.published.items()},
                "README of revisitop, Radenović et al.",
                {protocol: values for protocol, (_, values) in one.published.items()},
                features.CHECKPOINT))  # fmt: skip
    for record in checkpoints.REGISTRY.values():
        if collection in record.published:
            found.append(Row(
                collection, PUBLISHED, methods.METHODS[record.method].title,
                f"{record.title}; {record.trained_on}", record.published[collection], record.source,
                checkpoint=record.id))  # fmt: skip
    return found
