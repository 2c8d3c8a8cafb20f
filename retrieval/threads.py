"""How many threads numeric libraries use, and how those wait. Set before the libraries are loaded.

Torch, FAISS and MKL use OpenMP, whose threads by default keep a core busy for a while before they
sleep. Other programs lose that core: ``python -m retrieval bench threads`` measures how much. A
setting of the user's own always wins.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def configure() -> None:
    """Let idle threads sleep, and start no more of them than there are cores to use."""
    cores = str(usable_cores())
    for name, value in {
        "OMP_WAIT_POLICY": "PASSIVE",  # GNU's OpenMP, of the Linux wheels
        "KMP_BLOCKTIME": "0",  # milliseconds; LLVM's and Intel's, of macOS and Windows
        "OMP_NUM_THREADS": cores,  # MKL and FAISS follow it
        # NumPy's: its threads spin while they wait, whatever is set. Beside other work two of them
        # took 13 times the processor time of one for the geometry of a DELF query.
        "OPENBLAS_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": cores,
        "TF_NUM_INTEROP_THREADS": cores,
    }.items():
        os.environ.setdefault(name, value)


def share(workers: int) -> None:
    """Let torch use no more than its part of the cores in this thread, one of so many at work.

    Two searches at once with two threads each take a quarter more processor time than with one.
    """
    set_number = getattr(sys.modules.get("torch"), "set_num_threads", None)  # it may be loading
    if set_number is not None:
        set_number(max(1, stated_threads() // workers))


def stated_threads() -> int:
    """The threads that OMP_NUM_THREADS asks for; where that is no number, as OpenMP does, one for
    each core. Of a list, as "4,1", the first counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return (int(first) if first.isdecimal() else 0) or usable_cores()


def usable_cores() -> int:
    """Cores that this process may use: by its affinity and its control group, at least one."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota())))


def _quota() -> float:
    """Cores that the control group grants, a fraction at times; infinity without a limit."""
    try:
        granted, period = (CGROUP / "cpu.max").read_text().split()  # version 2: "50000 100000"
    except (OSError, ValueError):
        try:
            granted = (CGROUP / "cpu/cpu.cfs_quota_us").read_text()  # version 1; -1: no limit
            period = (CGROUP / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return math.inf
    try:
        share = int(granted) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return math.inf
    return share if share > 0 else math.inf
