"""Published scores: those of the report that this project starts from, and those of papers.

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
YES, NO, UNKNOWN = "yes", "no", "unknown"


@dataclass(frozen=True)
class Row:
    """One line of a published table, in per cent. Figures that the table lacks are left out.

    origin: REPORT or PUBLISHED. map: protocol → mAP. mp: protocol → mP@1, 5, 10.
    overlap: whether the training pictures show landmarks of this collection: YES, NO or UNKNOWN.
    checkpoint: the id under which the same network or descriptors are used here, if they are.
    """

    collection: str
    origin: str
    method: str
    network: str
    trained_on: str
    overlap: str
    map: Mapping[str, float]
    source: str
    mp: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    checkpoint: str = ""


_REPORT_SOURCE = "The report"
_SQUEEZED = "pictures squeezed to 256 × 256"
_TABLES = "Radenović et al., CVPR 2018, arXiv 1803.11285"
_GL18, _GLDV2, _SFM = "Google Landmarks 2018", "GLDv2-clean", "retrieval-SfM-120k"


def _report(
    method: str, network: str, trained_on: str, revisited: tuple, classic: float
) -> list[Row]:
    kinds = ("easy", "medium", "hard")
    roxford = dict(zip(kinds, revisited, strict=True))
    return [
        Row(collection, REPORT, method, network, trained_on, UNKNOWN, scores, _REPORT_SOURCE)
        for collection, scores in (("roxford5k", roxford), ("oxford5k", {"classic": classic}))
    ]


def _later(
    method: str,
    network: str,
    trained_on: str,
    overlap: str,
    source: str,
    oxford: tuple[float | None, float],
    paris: tuple[float | None, float] | None = None,
) -> list[Row]:
    """Figures on ROxford5k and RParis6k from papers after the benchmarks' own.

    oxford, paris: mAP of Medium and Hard; None where it is not stated or could not be read.
    """
    rows = []
    for collection, values in (("roxford5k", oxford), ("rparis6k", paris)):
        stated = zip(("medium", "hard"), values or (), strict=False)
        scores = {kind: value for kind, value in stated if value is not None}
        if scores:
            rows.append(
                Row(collection, PUBLISHED, method, network, trained_on, overlap, scores, source)
            )
    return rows


# GLDv2-clean shows the landmark of 36 of the 70 queries of ROxford and of 38 of RParis; Landmarks-
# clean and SfM-120k show none (Song et al., CVPR 2024, arXiv 2404.01524, and its repository
# dealicious-inc/RGLDv2-clean). LVD-142M, of DINOv2, holds pictures of GLDv2-clean.
_STATED = (
    *_report("SIR", f"ResNet-152; {_SQUEEZED}", "ImageNet", (14.4, 11.85, 2.34), 23.34),
    *_report("DELF", f"TF-Hub module; {_SQUEEZED}", "Google Landmarks",
             (58.56, 42.04, 16.98), 66.69),
    *_report("CNN-IRwNHA", "ResNet-152, GeM, whitening", _GL18, (85.08, 68.65, 44.24), 82.09),
    Row("roxford5k", PUBLISHED, "DELF-ASMK*+SP", "DELF", "landmarks", UNKNOWN,
        {"medium": 67.8, "hard": 43.1}, _TABLES),
    Row("roxford5k", PUBLISHED, "GeM and diffusion", "ResNet-101", _SFM, NO,
        {"easy": 86.42, "medium": 72.52, "hard": 48.56},
        "README of ducha-aiki/manifold-diffusion, not the authors' code"),
    *_later("DELF-R-ASMK*+SP", "ResNet-50", _GL18, UNKNOWN,
            "Teichmann et al., CVPR 2019, arXiv 1812.01584; read in later papers",
            (76.0, 52.4), (80.2, 58.6)),
    *_later("AP-GeM", "ResNet-101", "Landmarks-clean", NO,
            "README of naver/deep-image-retrieval (Revaud et al., ICCV 2019, arXiv 1906.07589)",
            (67.1, 42.3), (80.3, 60.9)),
    *_later("DELG", "ResNet-50", _GL18, UNKNOWN,
            "Cao et al., ECCV 2020, arXiv 2001.05027", (69.71, 45.11), (81.6, 63.4)),
    *_later("DELG, geometry", "ResNet-50", _GL18, UNKNOWN,
            "Cao et al., ECCV 2020, arXiv 2001.05027", (75.42, 53.72)),
    *_later("SOLAR", "ResNet-101", _GL18, UNKNOWN,
            "Ng et al., ECCV 2020, arXiv 2001.08972", (69.9, 47.91), (81.57, 64.45)),
    *_later("HOW-ASMK", "ResNet-50", _SFM, NO,
            "Tolias et al., ECCV 2020, arXiv 2007.13172; read in later papers",
            (79.4, 56.9), (81.6, 62.4)),
    *_later("ArcFace", "ResNet-101, GeM", _GLDV2, YES,
            "Weyand et al., CVPR 2020, arXiv 2004.01804", (76.23, 55.54)),
    *_later("DOLG", "ResNet-101", _GLDV2, YES,
            "Yang et al., ICCV 2021, arXiv 2108.02927", (82.37, 64.93), (90.97, 81.71)),
    *_later("DELG, transformer", "ResNet-101", _GLDV2, YES,
            "Tan et al., ICCV 2021, arXiv 2103.12236", (79.9, 64.1), (87.6, 76.1)),
    *_later("Token", "ResNet-101", _GLDV2, YES,
            "Wu et al., AAAI 2022, arXiv 2112.06159", (82.61, 65.75), (89.40, 78.44)),
    *_later("SuperGlobal", "CVNet, re-ranking", _GLDV2, YES,
            "Shao et al., ICCV 2023, arXiv 2308.06954; read at Papers with Code", (None, 80.2)),
    *_later("OpenCLIP, frozen", "ViT-G/14", "pictures with captions", UNKNOWN,
            "Oquab et al., 2023, arXiv 2304.07193; read in a copy of table 9",
            (50.7, 19.7), (79.2, 60.2)),
    *_later("DINOv2, frozen", "ViT-L/14", "LVD-142M", YES,
            "Oquab et al., 2023, arXiv 2304.07193; read in a copy of table 9",
            (75.1, 54.0), (92.7, 83.5)),
)  # fmt: skip


def rows(collection: str) -> list[Row]:
    """The published scores for a collection; empty for collections that only we have."""
    stated = [row for row in _STATED if row.collection == collection]
    for published in features.FEATURES.values():
        if published.collection == collection:
            stated.append(Row(
                collection, PUBLISHED, "CNN-IRwNHA", "ResNet-101, GeM: descriptors", _SFM, NO,
                {protocol: value for protocol, (value, _) in published.published.items()},
                "README of revisitop, Radenović et al.",
                {protocol: values for protocol, (_, values) in published.published.items()},
                features.CHECKPOINT))  # fmt: skip
    for record in checkpoints.REGISTRY.values():
        if collection in record.published:
            stated.append(Row(
                collection, PUBLISHED, methods.METHODS[record.method].title, record.title,
                record.trained_on, NO if record.overlap.startswith("none") else UNKNOWN,
                record.published[collection], record.source,
                checkpoint=record.id))  # fmt: skip
    return stated
