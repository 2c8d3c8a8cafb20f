"""What an unfinished build leaves, damaged or made by a stranger."""

import json
import os
import zlib
from pathlib import Path

import pytest
from index_folders import Stopped, Stopping, build, same, snapshot
from stubs import Thumbnail, refused

from retrieval.collections import Collection
from retrieval.index import checks, journal, layout


def append(path, data):
    with open(path, "ab") as file:
        file.write(data)


def cut(path, count):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - count)


def line(**changes):
    """A line of a journal that says nothing of what it should, for no bytes at all."""
    return json.dumps({"name": "x.png", "bytes": 0, "crc32": 0} | changes).encode() + b"\n"


def endless(work, size):
    append(work / "journal.jsonl", line(bytes=size))
    os.truncate(work / "features.bin", 2**40)


def much(work):
    """Some kilobytes, packed, that say rightly what 100 GB of nothing are: six minutes."""
    entry = json.loads((work / "journal.jsonl").read_bytes().splitlines()[0])
    nothing = bytes(1_000_000)
    entry |= {"bytes": len(nothing), "crc32": zlib.crc32(nothing), "name": "x.png"}
    (work / "journal.jsonl").write_bytes((json.dumps(entry) + "\n").encode() * 100_000)
    os.truncate(work / "features.bin", 0)
    os.truncate(work / "features.bin", 10**11)


def change_last(work, cut=0, **changes):
    """Change what the last line of a journal says, or its features, with a checksum that fits."""
    *before, last = (work / "journal.jsonl").read_bytes().splitlines(keepends=True)
    entry = json.loads(last)
    data = (work / "features.bin").read_bytes()
    data = data[: len(data) - cut]
    size = entry["bytes"] - cut
    entry |= {"bytes": size, "crc32": zlib.crc32(data[len(data) - size :])} | changes
    (work / "journal.jsonl").write_bytes(b"".join(before) + json.dumps(entry).encode() + b"\n")
    (work / "features.bin").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda work: None, 3),
        (lambda work: change_last(work), 3),
        (lambda work: change_last(work, width="wide"), 4),
        (lambda work: change_last(work, height=0), 4),
        (lambda work: change_last(work, rows=None), 4),
        (lambda work: change_last(work, sha256=5), 4),
        (lambda work: change_last(work, reason=5), 4),
        (lambda work: change_last(work, cut=1), 4),
        (lambda work: change_last(work, cut=2), 4),
        (lambda work: append(work / "journal.jsonl", b'{"name": "sub/d.p'), 3),
        (lambda work: append(work / "journal.jsonl", b"\xff\0garbage\n[]\n"), 3),
        (lambda work: append(work / "journal.jsonl", b"[" * 100_000 + b"\n"), 3),
        (lambda work: append(work / "journal.jsonl", line(bytes=10**15)), 3),
        (lambda work: append(work / "journal.jsonl", line(bytes=10**40)), 3),
        (lambda work: append(work / "journal.jsonl", line(name=[])), 3),
        (lambda work: append(work / "journal.jsonl", line()), 3),
        (lambda work: append(work / "features.bin", b"half a feature"), 3),
        (lambda work: cut(work / "journal.jsonl", 5), 4),
        (lambda work: cut(work / "features.bin", 5), 4),
        (lambda work: (work / "features.bin").write_bytes(b"x" * 500), 5),
        (lambda work: (work / "features.bin").unlink(), 5),
        (lambda work: (work / "journal.jsonl").unlink(), 5),
        (lambda work: (work / "identity.json").write_text("{"), 5),
        (lambda work: (work / "identity.json").write_bytes(b"\xff"), 5),
        # A tar of a kilobyte brings a terabyte of nothing.
        (lambda work: os.truncate(work / "identity.json", 2**40), 5),
        (lambda work: os.truncate(work / "journal.jsonl", 2**40), 3),
        (lambda work: endless(work, -1), 3),
        (lambda work: endless(work, 2**39), 3),
        (much, 5),
        (lambda work: append(work / "journal.jsonl", line(name="a\0/b", sha256="", reason="")), 3),
        (
            lambda work: append(
                work / "journal.jsonl", line(name="\ud800/b", sha256="", reason="")
            ),
            3,
        ),
    ],
)
def test_a_damaged_journal_costs_no_more_than_its_end(photos, out, unfinished, damage, again):
    damage(unfinished)
    method = Thumbnail()
    resumed = build(photos, out, method)
    assert len(method.described) == again
    same(resumed, build(photos, out.with_name("fresh")))
    assert sorted(path.name for path in out.parent.iterdir()) == ["fresh", "one"]


def test_more_pictures_than_an_index_can_hold(photos, out, unfinished, monkeypatch):
    monkeypatch.setattr(checks, "MAX_IMAGES", 700)
    method = Thumbnail()
    refused("5 pictures are too many for one index", build, photos, out, method)
    assert not method.described
    monkeypatch.setattr(checks, "OWN_ENTRY", 0)
    refused("images.json .* is too large", build, photos, out, method)
    assert not out.exists()
    monkeypatch.undo()
    again = Thumbnail()
    assert len(build(photos, out, again)) == 5
    assert not again.described


@pytest.mark.parametrize("name", ["journal.jsonl", "features.bin"])
def test_stopped_and_damaged_twice(photos, out, unfinished, name):
    """What is written after the damage must be found again."""
    append(unfinished / name, b'{"name": "half a line')
    with pytest.raises(Stopped):
        build(photos, out, Stopping())
    append(unfinished / name, b"more garbage\n")
    method = Thumbnail()
    resumed = build(photos, out, method)
    assert len(method.described) == 1
    same(resumed, build(photos, out.with_name("fresh")))


def test_an_unfinished_build_of_folders_in_folders(photos, out):
    """A thousand of them could not be deleted, and made a traceback at the end of the build."""
    work = out.with_name("one.building")
    (work / Path(*["a"] * 201)).mkdir(parents=True)
    (work / "identity.json").write_text(json.dumps(layout.identity(Thumbnail())))
    refused("more than 200 folders inside each other", build, photos, out)


@pytest.mark.parametrize("name", ["journal.jsonl", "features.bin", "index", "index.old"])
def test_an_unfinished_build_of_links(photos, out, tmp_path, name):
    """A working folder may come with a stranger's index: nothing is written through its links."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    work = out.with_name("one.building")
    work.mkdir(parents=True)
    (work / "identity.json").write_text(json.dumps(layout.identity(Thumbnail())))
    (work / name).symlink_to(victim)
    refused("holds links or devices", build, photos, out)
    (work / name).unlink()
    os.mkfifo(work / name)
    refused("holds links or devices", build, photos, out)
    assert victim.read_text() == "precious"


def test_a_journal_of_millions_of_lines(photos, out, unfinished, monkeypatch):
    """3 MB, packed, computed for two minutes, 28 MB took 8.7 GB; what is there is kept."""
    monkeypatch.setattr(journal, "BESIDE", 20_000)
    path = unfinished / "journal.jsonl"
    skipped = [line(name=f"{number}.png", sha256="", reason="") for number in range(1000)]
    append(path, b"".join(skipped))
    before = path.read_bytes()
    refused("journal.jsonl is too long for so few pictures", build, photos, out)
    assert path.read_bytes() == before
    method = Thumbnail()
    path.write_bytes(before[: before.index(skipped[100])])
    assert len(build(photos, out, method)) == 5
    assert len(method.described) == 3


def test_a_journal_of_pictures_in_thousands_of_folders(photos, out, unfinished, monkeypatch):
    """A kilobyte, packed, of 100 names computed for 149 s, 400 filled more than 6 GB."""
    *_, last = (unfinished / "journal.jsonl").read_bytes().splitlines()
    entry = json.loads(last)
    features = (unfinished / "features.bin").read_bytes()[-entry["bytes"] :]
    for number in range(20):
        entry["name"] = f"{number}/{'a/' * 190}b.png"
        append(unfinished / "journal.jsonl", json.dumps(entry).encode() + b"\n")
        append(unfinished / "features.bin", features)
    asked = []
    check = Collection.check_folder
    monkeypatch.setattr(
        Collection, "check_folder", lambda *args: asked.append(args) or check(*args)
    )
    build(photos, out)
    assert len(asked) == 21  # the folder, and the first in it of each name: it is not there


def test_an_unfinished_build_that_is_a_link(photos, out, tmp_path):
    """All files of the folder that it led to were deleted, if there was an identity.json."""
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    for name in ("identity.json", "work.txt", "deep/more.txt"):
        (victim / name).write_text("precious")
    before = snapshot(victim)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name("one.building").symlink_to(victim)
    refused("one.building is a link", build, photos, out)
    assert snapshot(victim) == before


def test_lines_that_say_very_much(tmp_path):
    """They were kept as they are: of 20 MB, which pack into 50 kB, 0.7 GB."""
    line = {"name": "x.png", "sha256": "", "reason": "broken", "bytes": 0, "crc32": 0}
    (tmp_path / "identity.json").write_text("{}")
    content = json.dumps(line | {"width": [[]] * 1000, "more": [[]] * 1000}) + "\n"
    (tmp_path / "journal.jsonl").write_text(content)
    with journal.Journal(tmp_path, {}, 1) as found:
        assert found.entries.keys() == {"x.png"}
        assert found.entries["x.png"].keys() == {"name", "sha256", "bytes", "reason", "offset"}
