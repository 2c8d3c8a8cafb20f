"""Settings of Python's garbage collector, and of the memory allocator of glibc on Linux.

A network is faster where freed feature maps are kept for its next layer. A server should give back
to the system what thirty visitors used. The allocator's defaults do neither.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import Any

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# Where one of these is set, nothing is changed here.
_CHOSEN = {
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
}


def configure() -> None:
    """Give blocks of 8 MB back as soon as they are free, and keep few separate heaps.

    By default glibc keeps such blocks once it has seen one freed, in a heap for each of up to eight
    threads a core: a few large pictures decoded in several threads would fill the memory for good.
    """
    _set(_ARENA_MAX, 4)
    _set(_MMAP_THRESHOLD, 8 << 20)


def keep_feature_maps() -> None:
    """Keep freed feature maps for the next layer, up to 256 MB of them.

    By default glibc gives each back to the system and gets it again page by page, cleared: 5 % of
    the processor time of a ResNet-101 at 1024 px and a quarter of EfficientNet-Lite0's.
    """
    _set(_MMAP_THRESHOLD, 32 << 20)
    _set(_TRIM_THRESHOLD, 256 << 20)


def freeze_objects() -> None:
    """Collect garbage once, and leave what lives now out of later collections.

    Torch and a network are a quarter of a million objects that never go. Streamlit collects after
    every run of a page, which took 0.13 s with them and kept all other threads waiting.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return all that is free to the system. Takes 0.2 s: for when there is a pause."""
    freeze_objects()
    trim = getattr(_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(_library(), "mallopt", None)
    if mallopt is not None and not _CHOSEN & set(os.environ):
        mallopt(parameter, value)


def _library() -> Any:
    """The C library; None on other systems, where these numbers mean other things."""
    return ctypes.CDLL(None) if sys.platform == "linux" else None
