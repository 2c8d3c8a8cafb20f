"""Freed memory goes back to the system where the C library can be told."""

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
