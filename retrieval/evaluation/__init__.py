"""How well rankings do: protocols, stored runs, and the figures that others publish."""

from retrieval.collections.ground_truth import PROTOCOLS
from retrieval.evaluation.protocols import (
    KS,
    RECALL_LEVELS,
    Explanation,
    Scores,
    Step,
    check_ranks,
    evaluate,
    explain,
    precision_recall,
    rank_descriptors,
)

__all__ = [
    "KS",
    "PROTOCOLS",
    "RECALL_LEVELS",
    "Explanation",
    "Scores",
    "Step",
    "check_ranks",
    "evaluate",
    "explain",
    "precision_recall",
    "rank_descriptors",
]
