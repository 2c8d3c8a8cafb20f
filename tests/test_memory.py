"""Freed memory goes back to the system where the C library can be told, and garbage is found."""

import subprocess
import sys

import pytest

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


def test_what_was_set_aside_is_collected_the_next_time():
    """In a process of its own: threads of other tests may collect or set aside at the same time."""
    script = """
import gc, weakref
from retrieval import memory

class Circle:
    def __init__(self):
        self.self = self

gc.disable()
old, young = Circle(), Circle()
memory.freeze_objects()
new, gone = Circle(), [weakref.ref(old), weakref.ref(young)]
gone.append(weakref.ref(new))
del old, new
gc.collect()  # as Streamlit does: it must not look at what was set aside
print([one() is None for one in gone])
memory.freeze_objects()
print([one() is None for one in gone])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[False, False, True]", "[True, False, True]"]
