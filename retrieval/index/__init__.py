"""Features of a whole collection on disk, and the search over them."""

from retrieval.index.builder import build
from retrieval.index.finding import find, find_all
from retrieval.index.index import Index
from retrieval.index.loading import load
from retrieval.index.merging import merge

__all__ = ["Index", "build", "find", "find_all", "load", "merge"]
