"""Pictures that are small as files: what they cost is bounded."""

import functools
import io
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attack import pictures
from PIL import Image

from retrieval import decoding, images, picture_files, processes, workers
from retrieval.benchmarks import process_status

MEASURE = """
import contextlib, sys, time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from retrieval import images

def read(_):
    images.read(Path(sys.argv[1]), max_pixels=images.visitors_limit()).thumbnail((64, 64))

def memory():  # in MB: of this process and of those that decode
    total = 0
    children = (one for file in Path("/proc/self/task").glob("*/children")
                for one in file.read_text().split())
    for process in ["self", *children]:
        with contextlib.suppress(OSError):  # it has ended
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                total += int(line.split()[1]) if line.startswith("VmRSS") else 0
    return total // 1024

most = 0
with ThreadPoolExecutor(4) as pool:
    reading = [pool.submit(read, number) for number in range(4)]
    while wait(reading, 0.01).not_done:
        most = max(most, memory())
for one in reading:
    one.result()
print(most, memory())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux tells it")
def test_four_large_pictures_at_once(tmp_path):
    path = tmp_path / "white.webp"
    path.write_bytes(pictures.plain_webp(3499))
    assert path.stat().st_size < 100
    command = [sys.executable, "-c", MEASURE, path]
    root = Path(images.__file__).parents[1]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    most, rest = map(int, run.stdout.split())
    # Four decoders at once would take 770 MB.
    assert most < 600, "MB: two decoders of 250, and pictures that are not yet small"
    assert rest < 150, "MB: what is freed goes back to the system"


@pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux tells it")
def test_a_file_that_is_no_picture_is_not_kept():
    """Each decoder kept one of 190 MB until the next picture came, long after the visitor left."""
    decoder, large = decoding.Decoder(), bytes(100_000_000)
    request = {"name": "x", "max_pixels": 1, "side": None, "formats": images.FORMATS}
    try:
        with pytest.raises(images.PictureError, match="is not a picture"):
            decoder.decode(large, 10, request)
        for _ in range(100):
            resident = process_status("VmRSS", decoder._process.pid)
            if resident < len(large):
                break
            time.sleep(0.1)  # it answers first
        assert resident < len(large)
    finally:
        processes.end(decoder._process)


def test_visitors_have_a_lower_limit(monkeypatch, tmp_path):
    path = tmp_path / "white.png"
    path.write_bytes(pictures.encode(Image.new("1", (5100, 5100)), "PNG"))
    with pytest.raises(images.PictureError, match="more than the 25 megapixels allowed"):
        images.read(path, max_pixels=images.visitors_limit())
    monkeypatch.setenv(images.MEGAPIXELS, "30")
    assert images.read(path, max_pixels=images.visitors_limit()).size == (5100, 5100)
    monkeypatch.setenv(images.MEGAPIXELS, "many")
    with pytest.raises(images.RetrievalError, match="a whole number from 1 to 999"):
        images.visitors_limit()


def test_a_thumbnail_of_a_large_jpeg_is_decoded_small():
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (1600, 1000), "red")
    data = pictures.encode(wide, "JPEG", exif=exif)
    small, size = images.thumbnail(data, 100, max_pixels=500_000)
    assert size == (1000, 1600), "upright, as it is stated"
    assert max(small.size) == 100
    assert small.getpixel((30, 50))[0] > 240
    with pytest.raises(images.PictureError, match="megapixels"):
        images.read(data, max_pixels=500_000)
    with pytest.raises(images.PictureError, match="megapixels"):
        images.thumbnail(pictures.encode(wide, "PNG"), 100, max_pixels=500_000)


def test_many_scans():
    for scans in (3, 20):
        assert images.read(pictures.many_scans(scans)).size == (1000, 1000)
    data = pictures.many_scans(4000)
    assert len(data) < 300_000
    with pytest.raises(images.PictureError, match="unusual number of parts"):
        images.read(data)


def test_scans_behind_a_marker_without_a_length():
    """They are counted: half a megabyte of them takes a decoder minutes."""
    data = pictures.markers_without_length(pictures.many_scans(20))
    assert images.read(data).size == (1000, 1000)
    with pytest.raises(images.PictureError, match="unusual number of parts"):
        images.read(pictures.markers_without_length(pictures.many_scans(40)))


def test_filling_bytes():
    """They are looked through once: 80 kB took 18 s when the time grew with their square."""
    data = pictures.many_scans(3)
    filled = data[:2] + b"\xff" * 2_000_000 + b"\0" + data[2:]
    assert not picture_files.check_jpeg(b"\xff\xd8" + b"\xff" * 2_000_000 + b"\0", "x")
    assert picture_files.check_jpeg(filled, "x") == picture_files.check_jpeg(data, "x")


def fractions(count, tag):
    """Metadata of one tag with so many fractions, each of which would become an object."""
    head = struct.pack("<2sHLH", b"II", 42, 8, 1) + struct.pack("<HHLL", tag, 5, count, 26)
    return head + bytes(4) + b"\1" * (8 * count)


def test_many_fractions_in_metadata():
    """Metadata are limited: 30 MB of fractions take Pillow 0.9 GB and 7 s."""
    count = picture_files.MAX_EXIF // 8 + 1
    for kind in ("PNG", "WEBP"):
        data = io.BytesIO()
        Image.new("RGB", (64, 32)).save(data, kind, exif=b"Exif\0\0" + fractions(count, 274))
        with Image.open(data) as picture:
            decoding.make_upright(picture)
            assert not hasattr(picture, "_exif") or not picture._exif  # nobody looked at them
    turned = pictures.overlapping_values(1, 8)
    assert images.read(pictures.metadata_as_text(b"Exif\0\0" + turned)).size == (32, 64)
    large = b"Exif\0\0" + turned + bytes(picture_files.MAX_EXIF)
    assert images.read(pictures.metadata_as_text(large)).size == (64, 32)
    with pytest.raises(images.PictureError, match="unusual number of pieces"):
        images.read(fractions(picture_files.MAX_PIECES + 1, 282))
    data = io.BytesIO()
    Image.new("RGB", (64, 32)).save(data, "JPEG")
    segment = b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)
    whole = data.getvalue()
    assert images.read(whole[:2] + 3 * segment + whole[2:]).size == (64, 32)
    with pytest.raises(images.PictureError, match="unusual number of parts"):
        images.read(whole[:2] + 70 * segment + whole[2:])


def test_scans_are_counted_in_the_picture_only():
    """A thumbnail in it, and a film behind it, are no scans of it."""
    exif = Image.Exif()
    exif[0x010E] = b"\xff\xda" * 500
    data = pictures.encode(Image.new("RGB", (16, 16)), "JPEG", exif=exif)
    assert data.count(b"\xff\xda") > 500
    assert images.read(data + b"\xff\xda" * 500).size == (16, 16)


def test_many_empty_parts(monkeypatch):
    with pytest.raises(images.PictureError, match="unusual number of parts"):
        images.read(pictures.many_comments(20_000))
    assert images.read(pictures.many_comments(500)).size == (16, 16)
    data = pictures.many_chunks(200_000)
    monkeypatch.setattr(images, "SECONDS", 0.05)
    with pytest.raises(images.PictureError, match=r"takes more than 0\.051 s to read"):
        images.read(data, max_pixels=10_000)
    assert images.read(io.BytesIO(pictures.many_chunks(10))).size == (16, 16)


def test_a_progressive_thumbnail_is_no_way_around_the_limit():
    """The decoder would hold all of it, at full size, to give a small copy."""
    for large in (
        pictures.encode(Image.new("RGB", (1600, 1000)), "JPEG", progressive=True),
        pictures.one_colour_first(1200),
    ):
        assert images.thumbnail(large, 100)[0].width == 100
        with pytest.raises(images.PictureError, match="megapixels"):
            images.thumbnail(large, 100, max_pixels=500_000)


def test_a_tiff_in_very_many_tiles():
    assert images.read(pictures.many_tiles(40, 30)).size == (40, 30)
    with pytest.raises(images.PictureError, match="unusual number of pieces"):
        images.read(pictures.many_tiles(1000, 501))


def test_a_tiff_with_a_large_tile():
    assert images.read(pictures.large_tile(128)).size == (64, 64)
    with pytest.raises(images.PictureError, match="A tile of The picture has 1000 × 1000 pixels"):
        images.read(pictures.large_tile(1000), max_pixels=500_000)


def test_a_tiff_whose_tiles_are_much_larger_than_itself():
    """They are limited, as no other picture is decoded meanwhile: 40 kB take three minutes."""
    assert images.read(pictures.tall_tiles(2, 16)).size == (32, 8)
    with pytest.raises(images.PictureError, match="pieces that would take long"):
        images.read(pictures.tall_tiles(20, 15_000), max_pixels=1_000_000)


def test_a_tiff_of_the_same_piece_again_and_again():
    assert images.read(pictures.one_piece_of_a_file(20, 20)).size == (320, 16)
    with pytest.raises(images.PictureError, match="pieces that would take long"):
        images.read(pictures.one_piece_of_a_file(20, 100_000))


def test_a_heic_of_many_pictures_with_the_same_metadata():
    """Copies are counted, as each picture is given one: 10 MB take more than 6 GB."""
    pytest.importorskip("pillow_heif")
    assert images.read(pictures.shared_metadata(3, 100_000)).size == (64, 64)
    with pytest.raises(images.PictureError, match="unusual number of pictures"):
        images.read(pictures.shared_metadata(100, 6_000_000))
    head = pictures.shared_metadata(1, 2000)
    with pytest.raises(images.PictureError, match="unusual number of pictures"):
        images.read(head[:28] + struct.pack(">L4s", 8, b"free") * 2000 + head[28:])


TURNED, CUT = b"\0\0\0\x09irot\1", b"\0\0\0\x28clap" + struct.pack(">8L", 64, 1, 64, 1, 0, 1, 0, 1)


def test_a_heic_that_is_turned_or_copied_many_times():
    """Pixels are counted each time they are touched: 4 kB can take 36 s."""
    pytest.importorskip("pillow_heif")
    for changes, copies in (([], 0), ([TURNED], 0), ([TURNED] * 3, 3)):
        assert images.read(pictures.heic(128, changes, copies)).size == (128, 128)
    for changes, copies in (([TURNED] * 40, 0), ([TURNED] * 4, 10), ([], 40)):
        with pytest.raises(images.PictureError, match="unusual number of pictures"):
            images.read(pictures.heic(128, changes, copies), max_pixels=128 * 128)


def test_a_heic_of_which_a_small_part_is_cut_out():
    """A tile counts as a whole, as it is decoded as a whole: 15 kB for 64 × 64 pixels take 2 GB."""
    pytest.importorskip("pillow_heif")
    data = pictures.heic(1024, [CUT])
    assert images.read(data).size == (64, 64)
    with pytest.raises(images.PictureError, match="A picture in The picture has more than"):
        images.read(data, max_pixels=1_000_000)


def grid(rows, columns, side):
    return struct.pack(">4BLL", 0, 1, rows - 1, columns - 1, side, side)


def test_a_heic_that_uses_one_tile_many_times():
    """All tiles count, as all are decoded, also those that do not fit: 4 kB can take 6 s."""
    pytest.importorskip("pillow_heif")
    few = pictures.heic_of_two(128, b"grid", grid(2, 2, 128), 4)
    assert images.read(few, max_pixels=128 * 128).size == (128, 128)
    many = pictures.heic_of_two(128, b"grid", grid(3, 3, 128), 9)
    with pytest.raises(images.PictureError, match="unusual number of pictures"):
        images.read(many, max_pixels=128 * 128)


def test_a_heic_that_is_laid_out_of_others():
    """Such pictures are refused, as their canvas may have any size: 462 bytes can take 1.6 GB."""
    pytest.importorskip("pillow_heif")
    canvas = struct.pack(">2B4H4L", 0, 1, 0, 0, 0, 65535, 8000, 8000, 0, 0)
    with pytest.raises(images.PictureError, match="laid out of several"):
        images.read(pictures.heic_of_two(64, b"iovl", canvas))


def test_a_heic_whose_metadata_are_a_part_of_the_file_many_times():
    """They are counted: 10 MB can take 3.5 GB."""
    pytest.importorskip("pillow_heif")
    exif = (struct.pack(">L", 6) + b"Exif\0\0").ljust(1_000_000, b"z")
    assert images.read(pictures.heic_of_two(64, b"Exif", exif, times=2)).size == (64, 64)
    with pytest.raises(images.PictureError, match="unusual number of pictures"):
        images.read(pictures.heic_of_two(64, b"Exif", exif * 10, times=32))


def test_a_heic_with_a_film():
    """Films are refused: the decoder makes an object for each frame stated, 2.3 GB for 3 kB."""
    pytest.importorskip("pillow_heif")
    with pytest.raises(images.PictureError, match="holds a film as well"):
        images.read(pictures.heic(128, []) + pictures.film(5_000_000))


def test_a_small_picture_in_a_large_file_is_not_sent_as_it_is():
    data = pictures.encode(Image.new("RGB", (64, 48)), "JPEG")
    padded = data[:2] + (b"\xff\xe5\xff\xff" + bytes(65533)) * 40 + data[2:]
    assert images.as_jpeg(data, 480)[0] == data
    assert len(images.as_jpeg(padded, 480)[0]) < 2000


def test_metadata_behind_the_end_are_not_read_in_this_process(monkeypatch):
    """Pillow reads on there: 3.9 MB of small parts kept the app at work for seconds."""
    data = pictures.encode(Image.new("RGB", (64, 48)), "JPEG")
    part = b"\xff\xe1\x00\x0eExif\0\0" + bytes(6)
    opened, whole = [], Image.open
    monkeypatch.setattr(
        Image, "open", lambda *args, **rest: opened.append(1) or whole(*args, **rest)
    )
    assert images.as_jpeg(data, 480)[0] == data
    assert opened
    opened.clear()
    with pytest.raises(images.PictureError):  # the decoder finds nothing before the end
        images.as_jpeg(data[:2] + b"\xff\xd9" + 1000 * part + data[2:], 480)
    assert not opened


def test_values_of_metadata_that_overlap():
    """With Pillow 12.3 such a TIFF of 240 kB took 3.8 GB: this is why an older one is not taken."""
    data = pictures.overlapping_values(5000, 60_000)
    exif = b"Exif\0\0" + data
    decode = functools.partial(
        decoding.decode, name="x", max_pixels=images.MAX_PIXELS, side=None, formats=images.FORMATS
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(images.PictureError, match="not a picture"):
        decode(data)
    for kind in ("PNG", "WEBP", "JPEG"):
        picture = Image.new("RGB", (64, 32))
        assert decode(pictures.encode(picture, kind, exif=exif))[0].size == (32, 64)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"


HOSTILE = """
import ctypes, threading
from retrieval import decoding

whole = decoding.decode
decoding.decode = lambda data, **rest: CASES.get(data, whole)(data, **rest)
decoding.WAITING = 2

def compute(data, **rest):
    while True:
        pass

CASES = {
    b"crash": lambda data, **rest: ctypes.string_at(0),
    b"memory": lambda data, **rest: bytearray(10_000_000_000),
    b"slow": compute,
    b"stuck": lambda data, **rest: threading.Event().wait(60),
}
decoding.main()
"""
GOOD = pictures.encode(Image.new("RGB", (16, 16)), "PNG")


@pytest.fixture
def hostile(monkeypatch, tmp_path):
    """New decoders, which do all that some bytes say."""
    (tmp_path / "hostile.py").write_text(HOSTILE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr(decoding, "__name__", "hostile")
    decoders = [decoding.Decoder() for _ in range(3)]
    for name, decoder in zip(("_collections", "_visitors", "_slow"), decoders, strict=True):
        monkeypatch.setattr(images, name, decoder)
    monkeypatch.setattr(images, "_took_long", deque())
    yield
    for decoder in decoders:
        if decoder._process:
            processes.end(decoder._process)


@pytest.mark.parametrize("of_visitor", [False, True])
def test_what_happens_to_a_decoder_happens_in_a_process_of_its_own(hostile, of_visitor):
    """One that crashes or fills the memory takes nothing with it, and the next picture is read."""
    for data, words in ((b"crash", "or breaks the program"), (b"memory", "too much memory")):
        with pytest.raises(images.PictureError, match=words):
            images.read(data, of_visitor=of_visitor)
        assert images.read(GOOD, of_visitor=of_visitor).size == (16, 16)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="time is not limited on Windows")
@pytest.mark.parametrize("of_visitor", [True, False])
def test_a_picture_that_takes_long_keeps_no_others_waiting(hostile, monkeypatch, of_visitor):
    """Nine seconds of each visitor who sent such pictures were nine seconds of all others.

    So were they of one in a collection, which a client of the service asked for again and again.
    """
    monkeypatch.setattr(images, "SECONDS", 30.0)  # the others need less, also on a busy machine
    monkeypatch.setattr(images, "QUICK_SECONDS", 0.2)
    monkeypatch.setattr(images, "PIXELS_A_SECOND", 10 * images.MAX_PIXELS)
    quick, limits = images._visitors if of_visitor else images._collections, []
    decode = quick.decode
    monkeypatch.setattr(quick, "decode", lambda *a: limits.append(a[1]) or decode(*a))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(images.read, b"slow", of_visitor=of_visitor)
        while not images._slow._process:
            time.sleep(0.01)
        try:
            assert images.read(GOOD, of_visitor=True).size == (16, 16)
            assert images.read(GOOD).size == (16, 16)
            assert not slow.done()
        finally:
            images._slow._process.kill()
        with pytest.raises(images.PictureError, match="or breaks the program"):
            slow.result()
    assert set(limits) == {0.2}, "else the quick decoder is busy until the last limit"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="time is not limited on Windows")
def test_a_picture_that_took_long_is_not_tried_as_a_quick_one_again(hostile, monkeypatch):
    """To show one and to search with it kept the decoder of quick ones busy three times."""
    monkeypatch.setattr(images, "SECONDS", 0.5)
    monkeypatch.setattr(images, "PIXELS_A_SECOND", 10 * images.MAX_PIXELS)
    tried = []
    decode = images._visitors.decode
    monkeypatch.setattr(images._visitors, "decode", lambda *a: tried.append(a[0]) or decode(*a))
    for data in (b"slow", b"slow", bytes(bytearray(b"slow"))):
        with pytest.raises(images.PictureError, match="to read; save it as a plain JPEG"):
            images.read(data, of_visitor=True)
    assert images.read(GOOD, of_visitor=True).size == (16, 16)
    assert tried == [b"slow", GOOD]


def test_pictures_of_slow_searches_keep_no_quick_decoder_busy(hostile, monkeypatch):
    """A quick search waited for those of nine searches with LighterGlue: 5 s, now 3 s."""
    quick = images._visitors.decode
    monkeypatch.setattr(
        images._visitors,
        "decode",
        lambda *a: quick(*a) if workers.in_quick_workers() else pytest.fail("it is a slow search"),
    )
    queue = workers.Workers(1, 10, workers.Workers(1, 10))

    def search():
        size = images.read(GOOD, of_visitor=True).size
        workers.move_to_slow_workers()  # and begin again
        return size

    assert queue.submit("visitor", search).result(60) == (16, 16)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="time is not limited on Windows")
def test_what_computes_for_ever_is_ended():
    code = (
        "from retrieval import decoding\n"
        "decoding.WAITING = 1000\n"
        "with decoding._at_most(0.2):\n"
        "    while True: pass"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=processes.ROOT, timeout=60)
    assert done.returncode == -signal.SIGPROF


def test_a_decoder_that_waits_for_ever_is_given_up(hostile, monkeypatch):
    monkeypatch.setattr(images, "SECONDS", 0.5)
    monkeypatch.setattr(images, "PIXELS_A_SECOND", 10 * images.MAX_PIXELS)
    with pytest.raises(images.PictureError, match="to read; save it as a plain JPEG"):
        images.read(b"stuck", of_visitor=True)
    assert images.read(GOOD, of_visitor=True).size == (16, 16)


def test_pictures_are_decoded_in_the_order_in_which_they_come():
    """Who has many gets no second turn before those who wait for their first."""
    decoder, order = decoding.Decoder(), []

    def decode(number):
        with decoder._turn():
            order.append(number)

    with ThreadPoolExecutor(5) as pool:
        with decoder._turn():
            end = time.monotonic() + 60
            for number in range(5):
                pool.submit(decode, number)
                while len(decoder._waiting) < number + 2:
                    assert time.monotonic() < end
                    time.sleep(0.001)
        decode("again")
    assert order == [0, 1, 2, 3, 4, "again"]
