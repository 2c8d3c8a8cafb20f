"""Features of a whole collection on disk, and the search over them."""

from retrieval.index.builder import build
from retrieval.index.finding import find, find_all
from retrieval.index.merging import merge
from retrieval.index.store import Index, load

__all__ = ["Index", "build", "find", "find_all", "load", "merge"]
