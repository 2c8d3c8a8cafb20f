"""Ground truth files, in all forms people have them in; each is checked as a stranger's.

A pickle or JSON of the revisited benchmarks counts pictures, our own JSON names them, and the
classic authors have four text files a query.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval import files, rehearsal
from retrieval.collections.ground_truth import LABELS, POSITIVE, GroundTruth, Query
from retrieval.collections.names import check_name, plain_name
from retrieval.collections.pickles import read_pickle
from retrieval.errors import RetrievalError
from retrieval.text import one_line

if TYPE_CHECKING:
    from retrieval.images import Box

KEYS = ("image", "landmark", "bbox", *LABELS, "good")  # of a query, where pictures have names
MAX_BYTES = 32_000_000  # of JSON, which takes up to twenty times as much in memory
MAX_CHARACTERS = 128_000_000  # of all names together
MAX_QUERIES = 100_000  # a query without labels takes 14 bytes of JSON, and 800 in memory
MAX_LISTS = 1_000_000  # in JSON: the two bytes of one become a hundred; a query has up to ten
MAX_LABELS = 5_000_000  # over all queries; shared lists could blow a small file up beyond memory

# Names that say nothing about the landmark, e.g. oxford_002416, paris_general_001729.
_GENERIC = frozenset({"oxford", "paris_general", ""})
_TEXT_FILE = re.compile(r"(?P<query>.+_\d+)_(?P<kind>query|good|ok|junk)\.txt")


def read_ground_truth(
    path: str | Path, names: Sequence[str] | None = None, suffix: str = ""
) -> GroundTruth:
    """Read ground truth in any of the forms people have it in.

    path: a ``gnd_*.pkl`` or the same as JSON (``imlist``, ``qimlist``, ``gnd``, optionally
    ``landmarks``); a JSON file with ``database`` and ``queries`` that go by name; or a folder
    with the classic authors' ``<landmark>_<n>_{query,good,ok,junk}.txt``.
    names: the database pictures, needed by (and only used for) the classic text files, which
    list none. A picture they mention that is not among ``names`` is left out; ``note`` tells it.
    suffix: appended to every name, for files that leave out ``.jpg``.
    Raises RetrievalError for a file that is missing, damaged, or contradicts itself.
    """
    path = Path(path)
    if path.is_dir():
        if names is None:
            raise RetrievalError(
                f"{path} holds text files that list no database; say which pictures it has."
            )
        return _from_text_files(path, tuple(names))
    if path.suffix.lower() == ".pkl":
        rehearsal.rehearse(_from_pickle, path)
        return _from_pickle(path, suffix)
    try:
        data = files.read(path, MAX_BYTES)
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read: {error.strerror or error}.") from error
    return parse_ground_truth(data, str(path), suffix)


def _from_pickle(path: Path, suffix: str = "") -> GroundTruth:
    return _from_content(read_pickle(path), str(path), suffix)


def parse_ground_truth(data: bytes, name: str, suffix: str = "") -> GroundTruth:
    """``read_ground_truth`` of JSON in memory. name: of the file, for messages."""
    if len(data) > MAX_BYTES or data.count(b"[") + data.count(b"{") > MAX_LISTS:
        raise RetrievalError(
            f"{name} is too large for ground truth: bring a file with fewer queries."
        )
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RetrievalError(f"{name} is not readable JSON: {error}.") from error
    return _from_content(content, name, suffix)


def _from_content(content: Any, name: str, suffix: str) -> GroundTruth:
    """What a file holds, in one of the two forms with names. name: of the file, for messages."""
    try:
        if isinstance(content, dict) and "imlist" in content:
            return _from_gnd(content, suffix)
        if isinstance(content, dict) and "database" in content:
            return _from_named(content, suffix)
    except _Contradiction as error:
        raise RetrievalError(f"{name} is not usable ground truth: {error}.") from error
    raise RetrievalError(
        f"{name} is no ground truth: neither imlist, qimlist and gnd nor database and queries "
        "are in it."
    )


class _Contradiction(Exception):
    """What is wrong with the contents, to be completed with the name of the file."""


def _from_gnd(content: dict, suffix: str) -> GroundTruth:
    names = _names(content["imlist"], "imlist", suffix)
    query_names = _names(content.get("qimlist"), "qimlist", suffix, unique=False)
    entries = content.get("gnd")
    if not isinstance(entries, list) or len(entries) != len(query_names):
        raise _Contradiction("gnd does not have one entry for each name in qimlist")
    landmarks = content.get("landmarks")
    if isinstance(landmarks, dict):
        landmarks = [landmarks.get(name) for name in query_names]
    if not isinstance(landmarks, list) or len(landmarks) != len(query_names):
        landmarks = [None] * len(query_names)
    stems = None
    queries = []
    in_one_line = cache(one_line)  # many queries may have one long landmark
    _check_labels(entries)
    for name, entry, landmark in zip(query_names, entries, landmarks, strict=True):
        labels = {
            kind: _positions(entry[kind], len(names), name)
            for kind in LABELS
            if entry.get(kind) is not None
        }
        if "good" in entry:
            good = _positions(entry["good"], len(names), name)
            labels["ok"] = np.union1d(good, labels.get("ok", good))
        landmark = entry.get("landmark", landmark)
        if not isinstance(landmark, str) or not landmark:
            stems = stems or [_stem(name) for name in names]
            landmark = _landmark(name, labels, stems)
        queries.append(Query(name, _box(entry.get("bbx"), name), in_one_line(landmark), labels))
    return GroundTruth(names, tuple(queries))


def _from_named(content: dict, suffix: str) -> GroundTruth:
    """The form that names pictures instead of counting them: put it into the counted form."""
    names = _names(content["database"], "database", "")
    spellings = zip(content["database"], names, strict=True)
    position = {name: index for index, both in enumerate(spellings) for name in both}
    entries = content.get("queries", [])
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("image"), str) for entry in entries
    ):
        raise _Contradiction("every query needs an image")
    gnd = []
    _check_labels(entries)
    for entry in entries:
        if unknown := entry.keys() - KEYS:
            raise _Contradiction(
                f"{one_line(entry['image'], 100)} has {one_line(min(map(str, unknown)), 100)}; "
                f"a query may have {', '.join(KEYS)}"
            )
        counted = {"bbx": entry.get("bbox"), "landmark": entry.get("landmark")}
        for kind in (*LABELS, "good"):
            if kind in entry:
                try:
                    counted[kind] = [position[name] for name in entry[kind]]
                except (KeyError, TypeError) as error:
                    raise _Contradiction(
                        f"{one_line(entry['image'], 100)} has a {kind} picture that is not in the "
                        f"database: {one_line(str(error), 100)}"
                    ) from error
        gnd.append(counted)
    return _from_gnd(
        {"imlist": list(names), "qimlist": [entry["image"] for entry in entries], "gnd": gnd},
        suffix,
    )


def _from_text_files(folder: Path, names: tuple[str, ...]) -> GroundTruth:
    """The classic form (Philbin et al., CVPR 2007): four text files a query.

    The query file holds ``oxc1_all_souls_000013 136.5 34.1 648.5 955.7`` (Paris: no prefix),
    the other three files one name a line, all without ``.jpg``.
    """
    stems = {PurePosixPath(name).stem: index for index, name in enumerate(names)}
    times = Counter(PurePosixPath(name).stem for name in names)
    queries = []
    absent: set[str] = set()
    for key, kinds in _text_files(folder).items():
        missing = {"query", "good", "ok", "junk"} - set(kinds)
        if missing:
            raise RetrievalError(
                f"{folder} lacks {', '.join(f'{key}_{kind}.txt' for kind in sorted(missing))}: add "
                "them; a list may be empty."
            )
        stem, box, named = _read_text_files(kinds)
        if several := sorted(name for name in {stem}.union(*named.values()) if times[name] > 1):
            raise RetrievalError(
                f"{folder} labels {several[0]}, but several pictures are called so: rename them."
            )
        absent |= {name for name in named["good"] | named["ok"] if name and name not in stems}
        positions = {
            kind: np.array(sorted(stems[name] for name in listed if name in stems), dtype=np.int64)
            for kind, listed in named.items()
        }
        right = np.union1d(positions["good"], positions["ok"])
        labels = {"ok": right, "junk": positions["junk"]}
        name = names[stems[stem]] if stem in stems else f"{stem}.jpg"
        check_name(name)
        try:
            landmark = one_line(key.rpartition("_")[0])
            queries.append(Query(name, _box(box, name), landmark, labels))
        except _Contradiction as error:
            raise RetrievalError(f"{kinds['query']}: {error}.") from error
    if not queries:
        raise RetrievalError(
            f"{folder} holds no <landmark>_<n>_query.txt: add the text files of the queries."
        )
    note = (
        f"Right pictures in the text files that are not in the folder: {len(absent):,}. The scores "
        "leave them out."
        if absent
        else ""
    )
    return GroundTruth(names, tuple(queries), note)


def _text_files(folder: Path) -> dict[str, dict[str, Path]]:
    """The text files of the classic form in a folder: query → kind of file → path."""
    paths: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if (match := _TEXT_FILE.fullmatch(path.name)) and path.is_file():  # and no pipe
            paths.setdefault(match["query"], {})[match["kind"]] = path
    # The limit is for all files together: three of 32 MB with short lines took 2.4 GB.
    if sum(path.stat().st_size for kinds in paths.values() for path in kinds.values()) > MAX_BYTES:
        raise RetrievalError(
            f"The text files in {folder} are too large for ground truth: together they may have "
            f"{MAX_BYTES // 1_000_000} MB."
        )
    return paths


def _read_text_files(paths: Mapping[str, Path]) -> tuple[str, list[float], dict[str, set[str]]]:
    """The query's name and box, and the names in each list, of one query.

    paths: kind of file, query, good, ok or junk → path.
    """
    try:
        lines = {
            kind: files.read(path, MAX_BYTES).decode("utf-8-sig").split("\n")
            for kind, path in paths.items()
        }
        stem, *numbers = lines.pop("query")[0].split()
        box = [float(number) for number in numbers]
    except OSError as error:
        raise RetrievalError(f"{error.filename} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise RetrievalError(
            f"{paths['query']} must be a name and four numbers, x1 y1 x2 y2, in one line."
        ) from error
    named = {kind: {line.strip() for line in listed} for kind, listed in lines.items()}
    return stem.removeprefix("oxc1_"), box, named


def _check_labels(entries: list) -> None:
    """Count all labels before any are looked at: entries and lists may be the same ones again."""
    if len(entries) > MAX_QUERIES:
        raise _Contradiction(f"it has more than {MAX_QUERIES:,} queries")
    total = 0
    for entry in entries:
        if not isinstance(entry, dict):
            raise _Contradiction("an entry for a query is no dictionary")
        for kind in (*LABELS, "good"):
            labels = entry.get(kind)
            if not isinstance(labels, list | np.ndarray | None):
                raise _Contradiction("the labels of a query are not positions")
            if labels is not None:
                total += labels.size if isinstance(labels, np.ndarray) else len(labels)
        if total > MAX_LABELS:
            raise _Contradiction(f"it has more than {MAX_LABELS:,} labels")


def _names(values: Any, key: str, suffix: str, unique: bool = True) -> tuple[str, ...]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _Contradiction(f"{key} is no list of names")
    if sum(map(len, values)) + len(suffix) * len(values) > MAX_CHARACTERS:
        raise _Contradiction(f"the names in {key} are too long")
    names = tuple(value + suffix for value in values)
    try:
        for name in names:
            check_name(name)
    except RetrievalError as error:
        raise _Contradiction(str(error).rstrip(".")) from error
    names = tuple(map(plain_name, names))
    if unique and len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise _Contradiction(f"{key} has {twice} twice")
    return names


def _positions(values: Any, count: int, name: str) -> np.ndarray:
    try:
        array = _numbers(values)
        if array.size == 0:
            return np.zeros(0, np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iuf" or (array != array.round()).any():
            raise ValueError
        array = np.unique(array)
    except (ValueError, TypeError, OverflowError) as error:
        raise _Contradiction(f"the labels of {name} are not positions") from error
    # Before they become int64, in which 1e19 would be a large negative number.
    if array[0] < 0 or array[-1] >= count:
        raise _Contradiction(f"a label of {name} is outside the {count} database pictures")
    return array.astype(np.int64)


def _numbers(values: Any) -> np.ndarray:
    """An array of a list of numbers; lists in lists could be the same one many times over."""
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, list | tuple) or not all(isinstance(v, int | float) for v in values):
        raise ValueError
    return np.asarray(values)


def _box(value: Any, name: str) -> Box | None:
    if value is None:
        return None
    try:
        numbers = _numbers(value)
        box = tuple(map(float, numbers.ravel())) if numbers.size == 4 else ()
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise _Contradiction(f"the box of {name} is not four numbers") from error
    if box[0] >= box[2] or box[1] >= box[3]:
        raise _Contradiction(f"the box of {name} is empty or inverted")
    return box


def _landmark(name: str, labels: Mapping[str, np.ndarray], stems: Sequence[str]) -> str:
    """The landmark of a query: the commonest specific file name among its positives.

    Files are named after the words of a Flickr search, so oxford_002416 may show the Bodleian.
    """
    counts = Counter(stems[position] for kind in POSITIVE for position in labels.get(kind, ()))
    specific = [stem for stem, _ in counts.most_common() if stem not in _GENERIC]
    return (specific[0] if specific else _stem(name)).removeprefix("paris_")


def _stem(name: str) -> str:
    """The file's name without the number at its end."""
    stem = PurePosixPath(name).stem
    bare = stem.rstrip("0123456789")
    return bare[:-1] if bare != stem and bare.endswith(("_", "-")) else bare
