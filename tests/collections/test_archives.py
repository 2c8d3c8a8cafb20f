import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile

import pytest

from retrieval.collections.archives import unpack
from retrieval.errors import RetrievalError

LIMITS = {"max_bytes": 100_000, "max_files": 20}
GOOD = {"a.jpg": b"one", "sub/b.jpg": b"two" * 1000, "notes.txt": b"text"}


def zipped(files, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = zipfile.ZipInfo()
            info.filename = name  # as given: the constructor would tidy it up
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return buffer.getvalue()


def tarred(files, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def refused(data, tmp_path, words, **limits):
    """Unpacking must fail with a sentence containing ``words`` and leave nothing anywhere."""
    box = tmp_path / "box"
    box.mkdir(exist_ok=True)
    with pytest.raises(RetrievalError, match=words) as caught:
        unpack(io.BytesIO(data), box / "into", **{**LIMITS, **limits})
    assert list(box.iterdir()) == []
    assert str(caught.value).endswith(".")
    empty = box / "empty"
    empty.mkdir()
    with pytest.raises(RetrievalError):
        unpack(io.BytesIO(data), empty, **{**LIMITS, **limits})
    assert list(empty.iterdir()) == []
    empty.rmdir()


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w")])
def test_unpacks_everything_below_the_folder(pack, tmp_path):
    paths = unpack(io.BytesIO(pack(GOOD)), tmp_path / "into", **LIMITS)
    assert [path.relative_to(tmp_path / "into").as_posix() for path in paths] == list(GOOD)
    assert [path.read_bytes() for path in paths] == list(GOOD.values())


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_other_suffixes_hidden_files_and_mac_folders_are_left_out(pack, tmp_path):
    files = dict.fromkeys(["A.JPG", "b.txt", ".c.jpg", "__MACOSX/d.jpg", ".git/e.jpg"], b"x")
    paths = unpack(io.BytesIO(pack(files)), tmp_path, **LIMITS, suffixes={".jpg"})
    assert paths == [tmp_path / "A.JPG"]
    assert list(tmp_path.iterdir()) == paths


def test_from_a_path(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(GOOD))
    assert len(unpack(tmp_path / "a.zip", tmp_path / "into", **LIMITS)) == 3
    with pytest.raises(RetrievalError, match=r"missing\.zip could not be unpacked: No such file"):
        unpack(tmp_path / "missing.zip", tmp_path / "other", **LIMITS)


def test_only_into_an_empty_folder_and_what_is_there_survives(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(RetrievalError, match="not an empty folder"):
        unpack(io.BytesIO(zipped(GOOD)), tmp_path, **LIMITS)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "sub/../../evil.jpg",
        "/tmp/evil.jpg",
        "\\evil.jpg",
        "..\\evil.jpg",
        "C:\\evil.jpg",
        "c:evil.jpg",
        "sub/..",
        "a/\\../../evil.jpg",
    ],
)
def test_paths_that_leave_the_folder(pack, name, tmp_path):
    refused(pack([("good.jpg", b"x"), (name, b"x")]), tmp_path, "outside the folder")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_tar_links_and_devices(kind, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    refused(buffer.getvalue(), tmp_path, "a link or a device")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_zip_links_and_devices(mode, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused(buffer.getvalue(), tmp_path, "a link or a device")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_nested_archives_duplicates_and_conflicts(pack, tmp_path):
    refused(pack({"a.jpg": b"x", "more.ZIP": b"PK"}), tmp_path, "another archive in it")
    refused(pack([("a.jpg", b"x"), ("./a.jpg", b"y")]), tmp_path, "twice")
    refused(pack([("a.jpg", b"x"), ("a.jpg/b.jpg", b"y")]), tmp_path, "as a folder")
    refused(pack([("a.jpg/b.jpg", b"x"), ("a.jpg", b"y")]), tmp_path, "twice")
    refused(pack({"/".join("abcdefghijklmnopqrstuvwxyz" * 2): b"x"}), tmp_path, "inside each other")
    for name in ("照" * 100 + ".jpg", "照" * 100 + "/deep/a.jpg"):  # Windows allows such names
        refused(pack({name: b"x"}), tmp_path, f"'{'照' * 30}' is too long for this disk")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_limits_are_exact(pack, tmp_path):
    files = {f"{i}.jpg": bytes(1000) for i in range(5)}
    assert len(unpack(io.BytesIO(pack(files)), tmp_path / "a", max_bytes=5000, max_files=5)) == 5
    refused(pack(files), tmp_path, "larger than", max_bytes=4999)
    refused(pack(files), tmp_path, "more than 4 files", max_files=4)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_announced_bomb(pack, tmp_path):
    refused(pack({"a.jpg": bytes(50_000_000)}), tmp_path, "larger than")


def test_zip_that_lies_about_its_size(tmp_path):
    data = bytearray(zipped({"a.jpg": bytes(10_000_000)}))
    central = data.rindex(b"PK\1\2")
    data[22:26] = data[central + 24 : central + 28] = struct.pack("<I", 10)
    refused(bytes(data), tmp_path, "damaged|larger than")


def test_tar_bomb_in_what_is_left_out(tmp_path):
    bomb = tarred({"a.jpg": b"x", "b.txt": bytes(50_000_000)})
    refused(bomb, tmp_path, "larger than", suffixes={".jpg"})


def test_tar_header_that_announces_gigabytes(tmp_path):
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 8_000_000_000
    refused(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), tmp_path, "no sensible size|damaged")


def test_chain_of_long_names(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 0
    refused(info.tobuf(tarfile.GNU_FORMAT) * 5000 + bytes(1024), tmp_path, "no sensible size")


def test_encrypted_zip(tmp_path):
    data = bytearray(zipped({"a.jpg": b"x"}))
    data[6] |= 1
    data[data.rindex(b"PK\1\2") + 8] |= 1
    refused(bytes(data), tmp_path, "encrypted")


def test_unusual_compression(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jpg", b"x" * 100)
    refused(buffer.getvalue(), tmp_path, "other than deflate")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"\x1f\x8b",
        b"<html>no</html>" * 100,
        bytes(2000),
        gzip.compress(b"", mtime=0),  # the test is called by it: two processes have to agree
        gzip.compress(b"no tar" * 500, mtime=0),
    ],
)
def test_not_an_archive(data, tmp_path):
    refused(data, tmp_path, "damaged|neither a zip nor a tar")


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w")])
def test_nothing_wanted(pack, tmp_path):
    refused(pack(GOOD), tmp_path, r"no files ending in \.png", suffixes={".png"})
    refused(zipped({}), tmp_path, "no files")
    refused(zipped({"": b"x"}), tmp_path, "damaged")


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w")])
def test_truncated_anywhere(pack, tmp_path):
    noise = random.Random(0).randbytes
    data = pack({f"{i}.jpg": noise(700) for i in range(4)})
    # The very last blocks of a plain tar are padding that nobody misses.
    end = len(data) - (9000 if data[:2] not in (b"PK", b"\x1f\x8b") else 0)
    for length in range(1, min(end, len(data)), 37):
        refused(data[:length], tmp_path, "damaged|neither")


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w")])
def test_flipped_bytes_never_get_out_of_the_folder(pack, tmp_path):
    """Whatever a damaged archive does, it is unpacked whole, or refused in a sentence."""
    random_ = random.Random(1)
    data = pack(GOOD)
    for turn in range(300):
        broken = bytearray(data)
        for _ in range(random_.randint(1, 4)):
            broken[random_.randrange(min(len(broken), 4000))] = random_.randrange(256)
        box = tmp_path / str(turn)
        box.mkdir()
        try:
            paths = unpack(io.BytesIO(bytes(broken)), box / "into", **LIMITS)
        except RetrievalError:
            assert list(box.iterdir()) == []
        else:
            assert [path.name for path in box.iterdir()] == ["into"]
            assert all(path.is_file() and not path.is_symlink() for path in paths)


def test_full_disk_leaves_nothing(tmp_path):
    class Full(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 600:
                raise OSError(28, "No space left on device")
            return super().read(size)

    with pytest.raises(RetrievalError, match="No space left on device"):
        unpack(Full(tarred(GOOD, "w")), tmp_path / "into", **LIMITS)
    assert list(tmp_path.iterdir()) == []
