"""Decoding of pictures in processes of their own.

Decoders are written in C. A picture of a stranger can make them compute for minutes, take gigabytes
or crash. Here only a process of its own ends, which has limits on time and memory. ``Decoder``
starts and ends it; ``main`` is what it runs.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from PIL import Image, ImageOps

from retrieval import memory, picture_files, processes
from retrieval.picture_files import PictureError

MIN_SIDE = 8  # pixels; smaller pictures leave a feature map without places to compare
MAX_SIDE = 65_000  # keypoints are stored as float16, which ends at 65 504
BAND = 4_000_000  # pixels that are converted and sent at once

# Bytes of memory: a decoder takes up to 20 a pixel, the picture 4, and the copy in RGB 4 more.
MEMORY, MEMORY_A_PIXEL, COPIES_OF_THE_FILE = 400_000_000, 32, 3
WAITING = 10  # on a busy machine, a picture may take so many times its seconds of computing
# Exit codes of a process that took too long: see ``_at_most``.
TOO_LONG = [-getattr(signal, name) for name in ("SIGPROF", "SIGALRM") if hasattr(signal, name)]


class Decoder:
    """A process that decodes one picture at a time, in the order in which threads ask.

    It is started with the first picture, and again after a picture that has ended it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()  # one for each thread; it is the first one's turn
        self._process: subprocess.Popen[bytes] | None = None

    def decode(
        self, data: bytes, seconds: float, request: dict[str, Any]
    ) -> tuple[Image.Image, tuple[int, int]]:
        """What ``decode`` returns or raises.

        seconds: of computing; neither these nor the memory are limited on Windows.
        request: the other arguments of ``decode``.
        Raises TimeoutError where it takes longer, and RetrievalError where no process can start.
        """
        with self._turn():
            process = self._started()
            questions, answers = processes.pipes(process)
            try:
                with contextlib.suppress(OSError):  # it ended: there will be no answer
                    send(questions, request | {"seconds": seconds}, data)
                answer = receive(answers)
                if "error" in answer:
                    raise PictureError(answer["error"])
                return receive_picture(answers, answer["picture"]), tuple(answer["size"])
            except PictureError:
                raise
            except (EOFError, ValueError) as error:
                processes.end(process)
                if process.returncode in TOO_LONG:
                    raise TimeoutError from error
                raise PictureError(
                    f"{request['name']} takes too much memory to read or breaks the program that "
                    "reads it; save it as a plain JPEG."
                ) from error
            except BaseException:  # what is left of the answer must not be taken for the next
                processes.end(process)
                raise

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        # A lock is not given in order: a thread with many pictures could get it each time.
        me = object()
        self._waiting.append(me)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting[0] is me)
            yield
        finally:
            with self._changed:
                self._waiting.remove(me)
                self._changed.notify_all()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            if self._process is not None:
                processes.end(self._process)
            self._process = processes.start(__name__)
        return self._process


def main() -> None:
    """Answer each picture on stdin with its pixels on stdout, until stdin ends."""
    memory.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the other process ends this one
    answers = processes.answers()
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener(thumbnails=False)
    with contextlib.suppress(EOFError):
        while True:
            request = receive(sys.stdin.buffer)
            data = sys.stdin.buffer.read(request.pop("bytes"))
            processes.limit_memory(
                MEMORY + MEMORY_A_PIXEL * request["max_pixels"] + COPIES_OF_THE_FILE * len(data)
            )
            try:
                with _at_most(request.pop("seconds")):
                    picture, size = decode(data, **request)
            except PictureError as error:
                send(answers, {"error": str(error)})
            else:
                send(answers, {"size": size, "picture": picture.size})
                for band in _bands(picture):
                    answers.write(band.tobytes())
                answers.flush()
                del picture
            del data  # not only when the next picture comes


def send(pipe: BinaryIO, message: dict[str, Any], data: bytes = b"") -> None:
    """Write a message, and the bytes that belong to it."""
    if data:
        message = message | {"bytes": len(data)}
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO) -> dict[str, Any]:
    """The message that ``send`` wrote. Raises EOFError where the other side has ended."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return json.loads(line)


def receive_picture(pipe: BinaryIO, size: tuple[int, int]) -> Image.Image:
    """The RGB picture of this (width, height) that follows a message.

    Raises EOFError where the other side ends before it is complete.
    """
    bands = ((top, _receive_band(pipe, size[0], rows)) for top, rows in _rows(*size))
    _, first = next(bands)
    if first.size == tuple(size):
        return first
    picture = Image.new("RGB", size)
    picture.paste(first)
    for top, band in bands:
        picture.paste(band, (0, top))
    return picture


def _receive_band(pipe: BinaryIO, width: int, rows: int) -> Image.Image:
    pixels = bytearray(3 * width * rows)
    if cast(io.BufferedReader, pipe).readinto(pixels) < len(pixels):
        raise EOFError
    return Image.frombytes("RGB", (width, rows), pixels)


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End the process where this computes for longer, or waits for ``WAITING`` times as long."""
    limits = {"ITIMER_PROF": seconds, "ITIMER_REAL": WAITING * seconds}
    timers = {getattr(signal, name): limits[name] for name in limits if hasattr(signal, name)}
    for timer, limit in timers.items():  # none on Windows
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)


def decode(
    data: bytes, name: str, max_pixels: int, side: int | None, formats: tuple[str, ...]
) -> tuple[Image.Image, tuple[int, int]]:
    """An upright RGB picture and the size (width, height) that the file states, upright too.

    name: what to call it in an error. max_pixels: pixels it may have. formats: Pillow's names of
    the formats that are read. side: where given, a picture about twice as large is enough.
    Raises PictureError for anything that is not a whole, reasonably sized picture.
    """
    try:
        held = picture_files.check_jpeg(data, name)
        picture_files.check_tiff(data, name)
        picture_files.check_heic(data, name, max_pixels)
        with warnings.catch_warnings():
            # Pillow warns of large pictures; our own limit below refuses them.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=formats) as picture:
                size = picture.size
                if side is not None:
                    picture.draft(None, (2 * side, 2 * side))
                _check_size(size if held else picture.size, name, max_pixels)
                picture_files.check_pieces(picture, len(data), name, max_pixels)
                picture_files.check_planes(picture, name)
                picture.load()
                stated = picture.size
                make_upright(picture)
                if picture.size != stated:
                    size = size[::-1]
                return _to_rgb(picture), size
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise picture_files.too_many_pixels(f"{name} has", max_pixels) from error
    except MemoryError as error:
        raise PictureError(
            f"{name} takes too much memory to read; save it as a plain JPEG."
        ) from error
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        raise PictureError(
            f"{name} is not a picture that can be read: it is damaged, cut off, or of another kind "
            f"than {', '.join(formats)}."
        ) from error


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise picture_files.too_many_pixels(f"{name} has {width} × {height} pixels,", max_pixels)
    if max(size) > MAX_SIDE:
        raise PictureError(f"{name} has {width} × {height} pixels; a side may have {MAX_SIDE}.")
    if min(size) < MIN_SIDE:
        raise PictureError(
            f"{name} has only {width} × {height} pixels; "
            f"at least {MIN_SIDE} × {MIN_SIDE} are needed."
        )


def make_upright(picture: Image.Image) -> None:
    keys = "exif", "Raw profile type exif"
    if any(len(picture.info.get(key) or b"") > picture_files.MAX_EXIF for key in keys):
        return
    # Damaged EXIF says nothing about the pixels, which are already decoded.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(picture, in_place=True)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB. Transparent parts become white; 16-bit grey keeps its full range.

    Goes band by band, so that no second copy of a large picture is needed on the way.
    """
    mode, (width, height) = picture.mode, picture.size
    scale = None
    if mode.startswith("I") or mode == "F":
        # Pillow's own conversion clips 16-bit values at 255; 16-bit files use the upper bits.
        high = max(_brightest(band) for band in _bands(picture))
        if mode == "F":
            top = max(high, 1)
        else:
            top = next((top for top in (255, 65535) if high <= top), high)
        scale = 255 / top
    layered = mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info
    result = Image.new("RGB", (width, height), "white")
    row = 0
    for band in _bands(picture):
        if scale is not None:
            band = band.convert("F").point(lambda value: value * scale).convert("L")
        elif layered:
            band = band.convert("RGBA")
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        result.paste(band.convert("RGB"), (0, row))
        row += band.height
    return result


def _brightest(grey: Image.Image) -> float:
    value = grey.convert("F").getextrema()[1]
    assert isinstance(value, float)  # of one channel
    return value


def _bands(picture: Image.Image) -> Iterator[Image.Image]:
    """The picture from top to bottom, a few million pixels at a time."""
    for top, rows in _rows(*picture.size):
        yield picture.crop((0, top, picture.width, top + rows))


def _rows(width: int, height: int) -> Iterator[tuple[int, int]]:
    """The first row of each band, and how many rows it has."""
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield top, min(rows, height - top)


if __name__ == "__main__":
    main()
