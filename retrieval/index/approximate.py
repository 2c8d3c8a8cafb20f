"""Approximate nearest neighbours of global descriptors, for collections that are too large to scan.

Two kinds, both of FAISS. ``hnsw`` is a graph that a search walks through (Malkov and Yashunin,
TPAMI 2020); its vectors are in memory in half precision. ``ivfpq`` keeps a code of a few bytes a
picture, in cells of which a search opens some (Jégou, Douze and Schmid, TPAMI 2011). Either gives a
shortlist, which is scored exactly with the stored descriptors: scores are never approximate, only
the choice of the pictures in the shortlist is.

The data of FAISS are kept as plain arrays, and put together when an index is opened: the readers of
FAISS's own files are not made for files of strangers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np

from retrieval.errors import RetrievalError
from retrieval.index.vectors import BLOCK, fill, nearest

SHORTLIST = 100  # pictures that are scored exactly, at least
RECALL_AT = 10
SAMPLE = 200  # pictures of a collection that recall is measured with

Arrays = Mapping[str, np.ndarray]
Types = dict[str, tuple[str, int]]  # name → dtype, dimensions


class Approximate(ABC):
    """A search over descriptors (N, D) float16 of unit length, which may stay on disk."""

    types: ClassVar[Types]
    numbers: ClassVar[str]  # name of the array with the picture of each entry
    fewest: ClassVar[int] = 1  # pictures that it needs

    def __init__(self, descriptors: np.ndarray, faiss_index: Any):
        self.descriptors = descriptors
        self.faiss = faiss_index

    @classmethod
    def make(
        cls,
        descriptors: np.ndarray,
        previous: Arrays | None = None,
        previous_positions: np.ndarray | None = None,
    ) -> Self:
        """The search over all descriptors (N, D).

        previous: arrays of the search over an earlier list of pictures. previous_positions: (N,)
        int64, position of each picture in that list, -1 for new ones. Where the kind allows it,
        only the new ones are added.
        """
        if len(descriptors) < cls.fewest:
            raise RetrievalError(
                f"This search needs at least {cls.fewest} pictures; use --search exact."
            )
        new = np.arange(len(descriptors))
        if previous is not None and previous_positions is not None:
            stays = previous_positions >= 0
            moved = np.full(len(previous[cls.numbers]), -1, np.int64)
            moved[previous_positions[stays]] = np.flatnonzero(stays)
            previous = cls.renumbered(previous, moved, len(descriptors))
            new = new if previous is None else np.flatnonzero(~stays)
        searcher = cls.trained(descriptors) if previous is None else cls.of(descriptors, previous)
        for start in range(0, len(new), BLOCK):
            searcher._add(new[start : start + BLOCK])
        return searcher

    @classmethod
    @abstractmethod
    def trained(cls, descriptors: np.ndarray) -> Self:
        """A search that is trained on these descriptors and holds none yet."""

    @classmethod
    @abstractmethod
    def of(cls, descriptors: np.ndarray, arrays: Arrays) -> Self:
        """The search from the arrays of an index on disk, which ``fits`` has checked."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of an index on disk."""

    @classmethod
    @abstractmethod
    def renumbered(cls, arrays: Arrays, moved: np.ndarray, count: int) -> Arrays | None:
        """The arrays with picture i at moved[i], -1 where it is gone; None to build them again.

        count: number of pictures of the new list.
        """

    @classmethod
    @abstractmethod
    def fits(cls, arrays: Arrays, descriptors: np.ndarray) -> bool:
        """Whether all numbers in arrays of the right types and dimensions are in range."""

    @abstractmethod
    def _add(self, positions: np.ndarray) -> None: ...

    @abstractmethod
    def _candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Positions (n, count) for queries (n, D), -1 where there are fewer."""

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``count`` best found for each of (n, D): cosines and positions, (n, count)."""
        queries = np.ascontiguousarray(queries, np.float32)
        shortlist = min(max(SHORTLIST, count), len(self.descriptors))
        scores = np.empty((len(queries), count), np.float32)
        positions = np.empty((len(queries), count), np.int64)
        for row, candidates in enumerate(self._candidates(queries, shortlist)):
            # Sorted, so that equal scores are in the order of the collection.
            candidates = np.sort(candidates[candidates >= 0])
            if len(candidates) < count:  # the search of a graph may not reach enough pictures
                cosines, nearest_positions = nearest(
                    self.descriptors, queries[row : row + 1], count
                )
                scores[row], positions[row] = cosines[0], nearest_positions[0]
                continue
            cosines = self.descriptors[candidates].astype(np.float32) @ queries[row]
            order = np.argsort(-cosines, kind="stable")[:count]
            scores[row], positions[row] = cosines[order], candidates[order]
        return scores, positions

    def rank(self, descriptor: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``top`` best found for descriptor (D,): positions (top,) int64, cosines (top,)."""
        scores, positions = self.search(descriptor[None], top)
        return positions[0], scores[0]

    def recall(self) -> float:
        """Share of the RECALL_AT nearest pictures that it finds: the mean over a sample.

        The sample is spread evenly over the collection; no picture counts as its own neighbour.
        """
        total = len(self.descriptors)
        count = min(RECALL_AT, total - 1)
        if count < 1:
            return 1.0
        rows = np.unique(np.linspace(0, total - 1, min(SAMPLE, total)).astype(np.int64))
        queries = self.descriptors[rows].astype(np.float32)
        exact = nearest(self.descriptors, queries, count + 1)
        approximate = self.search(queries, count + 1)
        hits = 0
        for row, *results in zip(rows, *exact, *approximate, strict=True):
            exact_scores, scores = (
                scores[positions != row][:count] for scores, positions in (results[:2], results[2:])
            )
            # A picture as similar as the last exact one is a hit; the tolerance is for rounding.
            hits += int((scores >= exact_scores[-1] - 1e-6).sum())
        return hits / (len(rows) * count)


class Graph(Approximate):
    """HNSW: each picture is a node that knows some of its neighbours, on one level or more.

    graph_nodes: (N,) int32, the picture of each node, in the order in which they were added.
    graph_levels: (N,) uint8, on how many levels each node is. graph_links: node after node and
    level after level, 2·LINKS neighbours on the lowest and LINKS on each other, -1 for none.
    """

    types = {"graph_nodes": ("int32", 1), "graph_levels": ("uint8", 1), "graph_links": ("int32", 1)}
    numbers = "graph_nodes"
    LINKS = 16
    LEVELS = 8  # at most; FAISS draws more for one in 16⁸ pictures
    WIDTH = 100  # neighbours looked at for each new node
    BEAM = 128  # neighbours kept in view by a search, at least

    def __init__(self, descriptors: np.ndarray, nodes: np.ndarray):
        faiss = _faiss()
        super().__init__(
            descriptors,
            faiss.IndexHNSWSQ(
                descriptors.shape[1],
                faiss.ScalarQuantizer.QT_fp16,
                self.LINKS,
                faiss.METRIC_INNER_PRODUCT,
            ),
        )
        self.faiss.hnsw.efConstruction = self.WIDTH
        self.nodes = nodes

    @classmethod
    def trained(cls, descriptors: np.ndarray) -> Self:
        return cls(descriptors, np.empty(0, np.int32))

    @classmethod
    def of(cls, descriptors: np.ndarray, arrays: Arrays) -> Self:
        faiss = _faiss()
        nodes, levels, links = (np.asarray(arrays[name]) for name in cls.types)
        searcher = cls(descriptors, nodes)
        fill(faiss.downcast_index(searcher.faiss.storage), descriptors, np.float16, nodes)
        searcher.faiss.ntotal = len(nodes)
        graph = searcher.faiss.hnsw
        faiss.copy_array_to_vector(levels.astype(np.int32), graph.levels)
        faiss.copy_array_to_vector(cls._offsets(levels).astype(np.uint64), graph.offsets)
        graph.neighbors.resize(len(links))
        faiss.rev_swig_ptr(graph.neighbors.data(), len(links))[:] = links
        graph.entry_point = int(levels.argmax())
        graph.max_level = int(levels.max()) - 1
        return searcher

    def arrays(self) -> dict[str, np.ndarray]:
        faiss = _faiss()
        graph = self.faiss.hnsw
        links = faiss.rev_swig_ptr(graph.neighbors.data(), graph.neighbors.size())
        levels = faiss.vector_to_array(graph.levels)
        values = self.nodes, levels.astype(np.uint8), links.copy()
        return dict(zip(self.types, values, strict=True))

    @classmethod
    def renumbered(cls, arrays: Arrays, moved: np.ndarray, count: int) -> Arrays | None:
        if (moved < 0).any():  # other pictures have links to the deleted ones
            return None
        return {**arrays, "graph_nodes": moved[arrays["graph_nodes"]].astype(np.int32)}

    @classmethod
    def fits(cls, arrays: Arrays, descriptors: np.ndarray) -> bool:
        nodes, levels, links = (np.asarray(arrays[name]) for name in cls.types)
        if (
            not _is_order(nodes, len(descriptors))
            or len(levels) != len(nodes)
            or not 1 <= levels.min() <= levels.max() <= cls.LEVELS
        ):
            return False
        offsets = cls._offsets(levels)
        if len(links) != offsets[-1] or not -1 <= links.min() <= links.max() < len(nodes):
            return False
        # A node with links to it on a level must have links of its own on that level.
        for level in range(1, int(levels.max())):
            first = offsets[:-1][levels > level] + cls.LINKS * (level + 1)
            linked = links[first[:, None] + np.arange(cls.LINKS)]
            if (levels[linked[linked >= 0]] <= level).any():
                return False
        return True

    @classmethod
    def _offsets(cls, levels: np.ndarray) -> np.ndarray:
        """(N + 1,) int64: where the links of each node begin."""
        return np.concatenate([[0], np.cumsum((levels.astype(np.int64) + 1) * cls.LINKS)])

    def _add(self, positions: np.ndarray) -> None:
        self.faiss.add(self.descriptors[positions].astype(np.float32))
        self.nodes = np.concatenate([self.nodes, positions.astype(np.int32)])

    def _candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        faiss = _faiss()
        wide = faiss.SearchParametersHNSW(efSearch=max(self.BEAM, count))
        nodes = self.faiss.search(queries, count, params=wide)[1]
        return np.where(nodes < 0, -1, self.nodes[nodes])


class Cells(Approximate):
    """IVF-PQ: pictures in the cell of the nearest centre, each as a code of BYTES bytes or fewer.

    cell_centres: (c, D) float32. cell_starts: (c + 1,) int64; cell i has entries starts[i] to
    starts[i + 1]. cell_pictures: (N,) int32. cell_quantiser: (m, 256, D / m) float32.
    cell_codes: (N, m) uint8. The residual of a picture to its centre is cut into m equal pieces;
    the code has for each piece the nearest of the 256 values in cell_quantiser.
    """

    types = {
        "cell_centres": ("float32", 2),
        "cell_starts": ("int64", 1),
        "cell_pictures": ("int32", 1),
        "cell_codes": ("uint8", 2),
        "cell_quantiser": ("float32", 3),
    }
    numbers = "cell_pictures"
    fewest = 1000  # a quantiser has 256 values to learn
    BYTES = 64
    POINTS = 64  # pictures a cell, and a value of the quantiser, that are learned from
    ITERATIONS = 10
    OPENED = 8  # one in so many cells is opened
    SEED = 0

    @classmethod
    def trained(cls, descriptors: np.ndarray) -> Self:
        cells = _cells(len(descriptors))
        max_rows = cls.POINTS * max(cells, 256)
        rows = np.arange(len(descriptors))
        if len(rows) > max_rows:
            rows = np.random.default_rng(cls.SEED).choice(rows, max_rows, replace=False)
        index = cls._empty(descriptors.shape[1], cells)
        index.train(descriptors[np.sort(rows)].astype(np.float32))
        return cls(descriptors, index)

    @classmethod
    def _empty(cls, width: int, cells: int, pieces: int | None = None) -> Any:
        faiss = _faiss()
        pieces = pieces or max(m for m in range(1, cls.BYTES + 1) if width % m == 0)
        centres = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFPQ(centres, width, cells, pieces, 8, faiss.METRIC_INNER_PRODUCT)
        for clustering in (index.cp, index.pq.cp):
            clustering.niter = cls.ITERATIONS
            clustering.max_points_per_centroid = cls.POINTS
            clustering.min_points_per_centroid = 1
        return index

    @classmethod
    def of(cls, descriptors: np.ndarray, arrays: Arrays) -> Self:
        faiss = _faiss()
        centres, starts, pictures, codes, quantiser = (arrays[name] for name in cls.types)
        index = cls._empty(descriptors.shape[1], len(centres), len(quantiser))
        index.quantizer.add(np.ascontiguousarray(centres))
        faiss.copy_array_to_vector(np.ravel(quantiser), index.pq.centroids)
        index.is_trained = True
        pictures, codes = np.asarray(pictures).astype(np.int64), np.ascontiguousarray(codes)
        for cell, (start, end) in enumerate(pairwise(starts)):
            if end > start:
                ids, entries = (faiss.swig_ptr(part[start:end]) for part in (pictures, codes))
                index.invlists.add_entries(cell, int(end - start), ids, entries)
        index.ntotal = len(pictures)
        return cls(descriptors, index)

    def arrays(self) -> dict[str, np.ndarray]:
        faiss = _faiss()
        index, lists = self.faiss, self.faiss.invlists
        sizes = [lists.list_size(cell) for cell in range(index.nlist)]
        pictures = [np.empty(0, np.int64)]
        codes = [np.empty(0, np.uint8)]
        for cell, size in enumerate(sizes):
            if size:
                pictures.append(faiss.rev_swig_ptr(lists.get_ids(cell), size).copy())
                codes.append(faiss.rev_swig_ptr(lists.get_codes(cell), size * index.pq.M).copy())
        quantiser = faiss.vector_to_array(index.pq.centroids)
        values = (
            index.quantizer.reconstruct_n(0, index.nlist),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.concatenate(pictures).astype(np.int32),
            np.concatenate(codes).reshape(-1, index.pq.M),
            quantiser.reshape(index.pq.M, 256, -1),
        )
        return dict(zip(self.types, values, strict=True))

    @classmethod
    def renumbered(cls, arrays: Arrays, moved: np.ndarray, count: int) -> Arrays | None:
        if len(arrays["cell_centres"]) != _cells(count):
            return None
        pictures = moved[arrays["cell_pictures"]]
        stays = pictures >= 0
        starts = np.concatenate([[0], np.cumsum(stays)])
        return {
            **arrays,
            "cell_starts": starts[arrays["cell_starts"]],
            "cell_pictures": pictures[stays].astype(np.int32),
            "cell_codes": arrays["cell_codes"][stays],
        }

    @classmethod
    def fits(cls, arrays: Arrays, descriptors: np.ndarray) -> bool:
        centres, starts, pictures, codes, quantiser = (arrays[name] for name in cls.types)
        count, width = descriptors.shape
        pieces = codes.shape[1]
        return bool(
            len(centres) == _cells(count)
            and centres.shape[1] == width
            and len(starts) == len(centres) + 1
            and starts[0] == 0
            and starts[-1] == count == len(codes)
            and (starts[:-1] <= starts[1:]).all()  # a difference may overflow
            and _is_order(pictures, count)
            and 0 < pieces <= width
            and quantiser.shape == (pieces, 256, width / pieces)
            and np.isfinite(centres).all()
            and np.isfinite(quantiser).all()
        )

    def _add(self, positions: np.ndarray) -> None:
        self.faiss.add_with_ids(self.descriptors[positions].astype(np.float32), positions)

    def _candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        faiss = _faiss()
        opened = faiss.SearchParametersIVF(nprobe=-(-self.faiss.nlist // self.OPENED))
        return self.faiss.search(queries, count, params=opened)[1]


KINDS: dict[str, type[Approximate]] = {"hnsw": Graph, "ivfpq": Cells}


def _cells(count: int) -> int:
    """Cells for so many pictures: about 4·√N, a power of two."""
    return int(2 ** np.round(np.log2(4 * np.sqrt(count))))


def _is_order(values: np.ndarray, count: int) -> bool:
    """Whether values are the numbers 0 to count - 1, each once, in any order."""
    return len(values) == count and np.array_equal(np.sort(values), np.arange(count))


def _faiss() -> Any:
    """FAISS, imported late. Typed as Any: its type stubs lack half of the functions used here."""
    import faiss

    return faiss
