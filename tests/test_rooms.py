"""The rooms of the engine, lowest first: a lower one never imports a higher one."""

import ast
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "retrieval"
ROOMS = (
    "threads",  # how many threads libraries use, and how they wait
    "errors",  # the one error that a user can act on
    "text",  # of others, on one line; tables
    "hosts",  # names of this machine
    "request_limits",  # of headers, forms and chunks
    "cookies",  # the escapes in them
    "files",  # files that are whole or not there
    "memory",  # what becomes of freed memory
    "workers",  # heavy work, a few pieces at a time
    "picture_files",  # picture files, looked at before they are decoded
    "processes",  # of Python, that are ended with what they do
    "rehearsal",  # reads a stranger's file in one first
    "decoding",  # decodes them, in a process of its own
    "images",  # the only way in for pixels
    "collections",  # pictures by name, ground truth, downloads
    "networks",  # the registry of weights, their safe reading, trunks
    "methods",  # a picture becomes features
    "index",  # the features of a collection, on disk and searchable
    "ranking",  # features become a ranking
    "evaluation",  # rankings become scores
    "figures",  # what pages and command line draw
    "training",  # weights are learned
    "benchmarks",  # speed is measured
    "server",  # REST
    "cli",  # the command line
)


def room(path: Path) -> str:
    return path.relative_to(ENGINE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports anything from, in functions and for type hints too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "retrieval":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retrieval."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {
                name.name.split(".")[1] for name in node.names if name.name.startswith("retrieval.")
            }
    return found


def test_every_room_is_in_the_list():
    here = {room(path) for path in ENGINE.rglob("*.py")} - {"__init__", "__main__"}
    assert here == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_no_room_imports_a_higher_one(name):
    lower = set(ROOMS[: ROOMS.index(name) + 1])
    upwards = {
        f"{path.relative_to(ENGINE)} imports {other}"
        for path in ENGINE.rglob("*.py")
        if room(path) == name
        for other in imported_rooms(path) - lower
    }
    assert not upwards


def test_the_engine_knows_no_streamlit():
    visitors = ENGINE / "benchmarks" / "visitors.py"  # speaks its protocol, from outside
    for path in set(ENGINE.rglob("*.py")) - {visitors}:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("streamlit", "pages") for name in names), path
