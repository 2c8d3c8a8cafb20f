"""Freed memory goes back to the system where the C library can be told, and garbage is found."""

import gc
import subprocess
import sys
import weakref

import pytest

from retrieval import memory

SCRIPT = """
from retrieval import memory
memory.configure()
memory.keep_feature_maps()

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024

pieces = [bytearray(1 << 20) for _ in range(200)]
full = resident()
del pieces
kept = resident()
memory.give_back()
print(full, kept, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_kept_for_the_next_layer_and_given_back_in_a_pause():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    full, kept, after = map(int, run.stdout.split())
    assert full - kept < 100, "feature maps of the next layer find their memory there"
    assert full - after > 180


class Circle:
    def __init__(self):
        self.self = self


def test_what_was_set_aside_is_collected_the_next_time():
    gc.disable()
    try:
        old, young = Circle(), Circle()
        memory.freeze_objects()
        new, gone = Circle(), [weakref.ref(old), weakref.ref(young)]
        gone.append(weakref.ref(new))
        del old, new
        gc.collect()  # as Streamlit does: it must not look at what was set aside
        assert [one() is None for one in gone] == [False, False, True]
        memory.freeze_objects()
        assert [one() is None for one in gone] == [True, False, True]
    finally:
        gc.enable()
        gc.unfreeze()
