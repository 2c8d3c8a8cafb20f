"""Collections of pictures, their ground truth, and the download of public ones."""

from retrieval.collections.collection import (
    PRECOMPUTED,
    Collection,
    Entry,
    data_folder,
    open_collection,
    registered,
)
from retrieval.collections.ground_truth import GroundTruth, Query
from retrieval.collections.ground_truth_files import read_ground_truth

__all__ = [
    "PRECOMPUTED",
    "Collection",
    "Entry",
    "GroundTruth",
    "Query",
    "data_folder",
    "open_collection",
    "read_ground_truth",
    "registered",
]
