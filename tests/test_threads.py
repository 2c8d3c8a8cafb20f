import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval import threads

ROOT = Path(__file__).parents[1]
SHOW = "import json, os; import retrieval; print(json.dumps(dict(os.environ)))"


def environment(code=SHOW, **own):
    """What a fresh process has set after ``import retrieval``."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OMP_", "KMP_", "OPENBLAS_NUM", "TF_NUM"))
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=inherited | own,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_threads_sleep_and_are_as_many_as_the_cores():
    found = environment()
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["KMP_BLOCKTIME"] == "0"
    assert int(found["OMP_NUM_THREADS"]) == threads.usable_cores()
    assert found["OPENBLAS_NUM_THREADS"] == "1"  # whose threads never sleep


def test_a_setting_of_the_users_own_wins():
    found = environment(OMP_WAIT_POLICY="ACTIVE", OMP_NUM_THREADS="7")
    assert (found["OMP_WAIT_POLICY"], found["OMP_NUM_THREADS"]) == ("ACTIVE", "7")


def test_torch_and_faiss_take_the_number():
    code = (
        "import json; import retrieval; import torch, faiss; "
        "print(json.dumps([torch.get_num_threads(), faiss.omp_get_max_threads()]))"
    )
    assert environment(code, OMP_NUM_THREADS="1") == [1, 1]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_counts():
    code = (
        "import json, os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]); "
        "import retrieval; print(json.dumps(os.environ['OMP_NUM_THREADS']))"
    )
    assert environment(code) == "1"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "300000 100000\n"}, 3.0),
        ({"cpu.max": "max 100000\n"}, float("inf")),
        ({"cpu.max": "rubbish"}, float("inf")),
        ({"cpu.max": "100000 0\n"}, float("inf")),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_quota_of_the_control_group(files, quota, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    assert threads._quota() == quota
    assert 1 <= threads.usable_cores() <= max(1, quota + 1)


@pytest.mark.parametrize("text", ["abc", "0", "-3", ""])
def test_a_number_of_threads_that_is_none(text, monkeypatch):
    """With --ray it ended in a traceback."""
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads.stated_threads() == threads.usable_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert threads.stated_threads() == 3


def test_workers_share_the_cores(monkeypatch):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    try:
        found = []
        for workers in (1, 2, 3, 9):
            threads.share(workers)
            found.append(torch.get_num_threads())
        assert found == [4, 2, 1, 1]
    finally:
        torch.set_num_threads(before)
