"""Pictures in zips and object storage are indexed as those of a folder are."""

import io
import os
import pickle
import zipfile
from itertools import count
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import known_implementations
from PIL import Image
from stubs import Grid, Thumbnail, paint
from test_parts import contents, refused

from retrieval import cli, index
from retrieval.collections import open_collection
from retrieval.collections.remote import open_anywhere, zips
from retrieval.errors import RetrievalError
from retrieval.index import cluster
from retrieval.index.layout import Part

SECRET = "hunter2"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Nine pictures, of which two cannot be read, and files that are none."""
    root = tmp_path_factory.mktemp("remote") / "pictures"
    for seed, name in enumerate(["b.png", "a b.png", "B.PNG", "sub/c#1.png", "sub/d/ü?.png"]):
        paint(root / name, seed, (40 + seed, 30))
    Image.new("RGB", (70, 40), "grey").save(root / "blank.png")
    paint(root / "twin.png", 0, (40, 30))
    (root / "0 page.jpg").write_text("<html></html>")
    (root / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("notes")
    paint(root / ".hidden.png", 9)
    paint(root / ".cache" / "x.png", 9)
    return root


@pytest.fixture(scope="module")
def addresses(pictures, tmp_path_factory):
    """The pictures as a zip, in the memory of this process, and as a zip there."""
    packed = tmp_path_factory.mktemp("zip") / "pictures.zip"
    memory = fsspec.filesystem("memory")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(pictures.rglob("*"), reverse=True):
            if path.is_file():
                name = path.relative_to(pictures).as_posix()
                archive.write(path, name)
                memory.pipe_file(f"/bucket/pictures/{name}", path.read_bytes())
    memory.pipe_file("/bucket/pictures.zip", packed.read_bytes())
    memory.pipe_file("/bucket/pictures and more/z.png", b"not below pictures/")
    yield str(packed), "memory://bucket/pictures", "memory://bucket/pictures.zip"
    memory.rm("/bucket", recursive=True)


def alike(path):
    """Contents of an index, without where its pictures are."""
    found = contents(path)
    found["manifest.json"]["collection"].pop("folder", None)
    return found


@pytest.mark.parametrize("method", [Thumbnail, Grid])
def test_it_equals_the_index_of_the_folder(pictures, addresses, tmp_path, method):
    plain = index.build(open_collection(pictures), method(), tmp_path / "plain")
    assert len(plain) == 7
    assert len(plain.manifest["skipped"]) == 2
    for number, address in enumerate([*addresses, addresses[1] + "/", pictures.as_uri()]):
        collection = open_anywhere(address)
        index.build(collection, method(), tmp_path / f"{number}")
        assert alike(tmp_path / f"{number}") == alike(tmp_path / "plain")
    assert open_anywhere(pictures.as_uri()).root == pictures
    assert not open_anywhere(addresses[0]).has_pictures


def test_parts_equal_the_whole(pictures, addresses, tmp_path):
    index.build(open_collection(pictures), Thumbnail(), tmp_path / "plain")
    parts = []
    for number, address in enumerate(addresses, 1):
        parts.append(tmp_path / f"part {number}")
        index.build(open_anywhere(address), Thumbnail(), parts[-1], part=Part(number, 3))
    index.merge(parts, tmp_path / "merged")
    assert alike(tmp_path / "merged") == alike(tmp_path / "plain")


def test_only_what_changed_is_described_again(addresses, tmp_path):
    index.build(open_anywhere(addresses[0]), Thumbnail(), tmp_path / "out")
    method = Thumbnail()
    index.build(open_anywhere(addresses[1]), method, tmp_path / "out")
    assert method.described == []


def test_workers_of_ray_read_a_zip(pictures, addresses, tmp_path):
    pytest.importorskip("ray")
    describe = cluster.describer("local", Thumbnail)
    index.build(open_collection(pictures), Thumbnail(), tmp_path / "plain")
    index.build(open_anywhere(addresses[0]), Thumbnail(), tmp_path / "ray", describe=describe)
    assert alike(tmp_path / "ray") == alike(tmp_path / "plain")
    refused("There is nothing at memory://bucket/pictures",  # workers have a memory of their own
            index.build, open_anywhere(addresses[1]), Thumbnail(), tmp_path / "none",
            describe=describe)  # fmt: skip


def test_the_command(addresses, tmp_path, capsys):
    small = ["index", addresses[0], "--method", "cnn-irwnha", "--size", "64"]
    assert cli.main([*small, "--out", str(tmp_path / "zip")]) == 0
    assert "7 pictures in" in capsys.readouterr().out
    assert cli.main(["index", addresses[1], *small[2:], "--out", str(tmp_path / "memory")]) == 0
    assert contents(tmp_path / "zip") == contents(tmp_path / "memory")


def test_a_picture_is_damaged_in_the_zip(pictures, addresses, tmp_path):
    data = bytearray(Path(addresses[0]).read_bytes())
    with zipfile.ZipFile(addresses[0]) as archive:
        place = archive.getinfo("b.png").header_offset
    data[place + 60 : place + 80] = os.urandom(20)
    (tmp_path / "half.zip").write_bytes(data)
    made = index.build(open_anywhere(str(tmp_path / "half.zip")), Thumbnail(), tmp_path / "out")
    skipped = {entry["name"]: entry["reason"] for entry in made.manifest["skipped"]}
    assert skipped["b.png"] == "b.png cannot be read: it is damaged or gone."
    assert len(made) == 6


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a.png\\..\\..\\b.png", "inner.zip"])
def test_a_hostile_zip(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("fine.png", b"x")
        archive.writestr(name, b"x")
    refused("bad.zip is refused: ", open_anywhere, str(tmp_path / "bad.zip"))


def test_a_zip_of_many_files(tmp_path, monkeypatch, addresses):
    monkeypatch.setattr(zips, "MAX_FILES", 5)
    refused("more than 5 files", open_anywhere, addresses[0])


def test_long_folders_in_folders_in_a_zip(tmp_path, monkeypatch):
    """A list of 128 MB took 9 GB, as each folder of a path has a copy of those before it."""
    monkeypatch.setattr("retrieval.collections.archives.MAX_LETTERS", 100_000)
    with zipfile.ZipFile(tmp_path / "long.zip", "w") as archive:
        for number in range(10):
            archive.writestr("/".join([str(number), *["a" * 100] * 20, "a.png"]), b"x")
    refused("the names of its files are too long", open_anywhere, str(tmp_path / "long.zip"))
    with zipfile.ZipFile(tmp_path / "fine.zip", "w") as archive:
        for number in range(10):
            archive.writestr("/".join([*["a" * 100] * 20, f"{number}.png"]), b"x")
    assert len(open_anywhere(str(tmp_path / "fine.zip"))) == 10


def test_an_entry_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.images.MAX_BYTES", 3_000_000)
    paint(tmp_path / "a.png", 1)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.png", "a.png")
        archive.writestr("bomb.png", bytes(30_000_000))
    made = index.build(open_anywhere(str(tmp_path / "bomb.zip")), Thumbnail(), tmp_path / "out")
    assert [entry["name"] for entry in made.manifest["skipped"]] == ["bomb.png"]
    assert "larger than 3 MB" in made.manifest["skipped"][0]["reason"]


def test_no_zip_at_all(tmp_path):
    (tmp_path / "page.zip").write_text("<html></html>")
    refused("page.zip is damaged or not complete", open_anywhere, str(tmp_path / "page.zip"))


def test_storage_that_goes_away_stops_the_build(addresses, tmp_path, monkeypatch):
    """Else all other pictures would be listed as unreadable, and the index be a small one."""
    collection = open_anywhere(addresses[1])
    real = collection.place.files.open

    def away(path, mode):
        if path.endswith("b.png"):
            raise PermissionError(13, "Permission denied", f"?token={SECRET}")
        return real(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(collection.place.files, "open", away, raising=False)
        refused("memory://bucket/pictures cannot be read: Permission denied. .* is kept",
                index.build, collection, Thumbnail(), tmp_path / "out")  # fmt: skip
    made = index.build(collection, Thumbnail(), tmp_path / "out")
    assert len(made) == 7


def test_a_folder_that_cannot_be_listed_for_a_while(addresses, tmp_path, monkeypatch):
    """fsspec leaves it out without a word: its pictures were dropped as if they were deleted."""
    memory = type(fsspec.filesystem("memory"))
    listed = memory.ls

    def ls(self, path, *args, **options):
        if path.rstrip("/").endswith("/sub"):
            raise OSError(5, "Input/output error")
        return listed(self, path, *args, **options)

    def update():
        method = Thumbnail()
        built = index.build(open_anywhere(addresses[1]), method, tmp_path / "index")
        return len(built), len(method.described)

    first = update()
    with monkeypatch.context() as patch:
        patch.setattr(memory, "find", fsspec.AbstractFileSystem.find)  # as sftp, ftp, smb have it
        patch.setattr(memory, "ls", ls)
        refused("cannot be read: Input/output error", update)
    assert update() == (first[0], 0)


def test_a_folder_that_can_be_listed_and_not_entered(addresses, tmp_path, monkeypatch):
    """After ``chmod -R 644`` OpenSSH calls it empty: its pictures were dropped without a word."""
    memory = type(fsspec.filesystem("memory"))
    listed, known = memory.ls, memory.info

    def ls(self, path, *args, **options):
        return [] if path.rstrip("/").endswith("/sub") else listed(self, path, *args, **options)

    def info(self, path, **options):
        if "/sub/" in path:
            raise PermissionError(13, "Permission denied")
        return known(self, path, **options)

    def update():
        return len(index.build(open_anywhere(addresses[1]), Thumbnail(), tmp_path / "index"))

    update()
    with monkeypatch.context() as patch:
        patch.setattr(memory, "find", fsspec.AbstractFileSystem.find)
        patch.setattr(memory, "ls", ls)
        patch.setattr(memory, "info", info)
        refused("cannot be read: Permission denied", update)


PAGE = b"<!doctype html><title>Log in</title>"


@pytest.mark.parametrize("asked", [range(1, 5), range(3, 99), range(99)])
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("answer", [PAGE, FileNotFoundError()])  # as for 401 and 403
def test_a_server_that_refuses_pictures_for_a_while(tmp_path, asked, finished, answer):
    """Those that it did not send were dropped; with all, so was what an unfinished build had."""
    memory = fsspec.filesystem("memory")
    for seed in range(7):
        paint(tmp_path / f"{seed}.png", seed)
        memory.pipe_file(f"/moody/{seed}.png", (tmp_path / f"{seed}.png").read_bytes())

    def update(asked=(), stop=False):
        collection, method, requests = open_anywhere("memory://moody"), Thumbnail(), count()
        real = collection.place.open

        def moody(name):
            if next(requests) not in asked:
                return real(name)
            if isinstance(answer, bytes):
                return io.BytesIO(answer)
            raise answer

        def progress(done, total, name):
            if stop and done == 5:
                raise KeyboardInterrupt

        collection.place.open = moody
        built = index.build(collection, method, tmp_path / "index", progress)
        return len(built), len(method.described)

    if finished:
        update()
    else:
        with pytest.raises(KeyboardInterrupt):
            update(stop=True)
    if 98 in asked:
        refused("The pictures of moody cannot be read any more. .* is kept", update, asked)
    else:
        assert update(asked) == (7, 0 if finished else 2)
    assert update() == (7, 0 if finished or 98 not in asked else 2)
    memory.rm("/moody", recursive=True)


def test_a_picture_is_deleted_meanwhile(tmp_path):
    memory = fsspec.filesystem("memory")
    for seed in range(2):
        paint(tmp_path / f"{seed}.png", seed)
        memory.pipe_file(f"/short/{seed}.png", (tmp_path / f"{seed}.png").read_bytes())
    collection = open_anywhere("memory://short")
    memory.rm("/short/0.png")
    made = index.build(collection, Thumbnail(), tmp_path / "out")
    memory.rm("/short", recursive=True)
    assert [entry["name"] for entry in made.manifest["skipped"]] == ["0.png"]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (f"memory://me:{SECRET}@nowhere/x?key={SECRET}", "There is nothing at memory://nowhere/x"),
        (f"ftp://me:{SECRET}@127.0.0.1:1/x", "ftp://127.0.0.1:1/x cannot be read: "),
        (f"nosuch://me:{SECRET}@host/x", "fsspec cannot read nosuch:// addresses"),
        (f"memory://a::ftp://me:{SECRET}@host/x", "give one address"),
    ],
)
def test_addresses_that_cannot_be_read(address, sentence):
    with pytest.raises(RetrievalError, match=sentence) as caught:
        open_anywhere(address)
    assert SECRET not in str(caught.value)


def test_a_package_is_missing(monkeypatch):
    lacking = {"class": "nowhere.Nothing", "err": "Install nothingfs to access it"}
    monkeypatch.setitem(known_implementations, "nothing", lacking)
    refused("^nothing://bucket cannot be read here: Install nothingfs to access it",
            open_anywhere, f"nothing://me:{SECRET}@bucket")  # fmt: skip


def test_a_password_is_for_workers_only(tmp_path):
    """They are told it; an index and its readers are not."""
    memory = fsspec.filesystem("memory")
    paint(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"")
    for name in ("a.png", "b.png"):
        memory.pipe_file(f"/me:{SECRET}@host/{name}", (tmp_path / name).read_bytes())
    collection = pickle.loads(pickle.dumps(open_anywhere(f"memory://me:{SECRET}@host")))
    index.build(collection, Thumbnail(), tmp_path / "out")
    memory.rm(f"/me:{SECRET}@host", recursive=True)
    assert (collection.name, collection.names) == ("host", ("a.png", "b.png"))
    assert SECRET not in repr(collection)
    for file in (tmp_path / "out").iterdir():
        assert SECRET.encode() not in file.read_bytes()
