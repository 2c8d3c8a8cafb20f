"""The benchmarks of the running app and service give all their numbers; no time is asserted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval import cli
from retrieval.benchmarks import clients, process_status, served, start, visitors
from retrieval.errors import RetrievalError

STEPS = [
    "whole page",
    "answer, SIR",
    "answer, CNN-IRwNHA",
    "box drawn, CNN-IRwNHA",
    "answer, DELF",
    "result opened",
]


def test_two_visitors_take_every_step():
    found = visitors.measure(2, rest=0)
    assert not found.errors
    assert list(found.seconds) == STEPS
    assert all(len(seconds) == 2 for seconds in found.seconds.values())
    if sys.platform == "linux":
        assert found.peak >= found.before > 100e6


def test_two_clients_are_answered():
    with served.serving(served.SERVICE, "--port", "/health") as service:
        listed = clients._indexes(service)
        assert [title for _, title in listed][-1] == "CNN-IRwNHA"
        found = clients.measure(service, listed[-1][0], count=2, seconds=2)
    assert found.seconds
    assert found.health
    assert not found.errors
    assert found.lasted >= 2


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no Chromium on this machine")
def test_start_in_a_browser():
    pytest.importorskip("playwright")
    found = start.measure("cnn-irwnha", pause=0)
    assert 0 < found["server"] < found["title"] <= found["page"]
    assert found["answer"] > 0


def test_start_without_a_browser_names_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert cli.main(["bench", "start"]) == 1
    assert "Chromium" in capsys.readouterr().err


def test_a_command_that_does_not_start_is_an_error():
    nonsense = served.serving(("retrieval", "nonsense"), "--port", "/health")
    with pytest.raises(RetrievalError, match="does not start"):
        nonsense.__enter__()


def test_percentiles_are_between_the_two_nearest_values():
    assert served.percentile([3.0], 95) == 3.0
    assert served.percentile(list(range(101)), 95) == pytest.approx(95)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="measured as Linux tells it")
def test_memory_and_time_of_child_processes_count():
    child = "data = b'x' * 50_000_000; sum(range(10**7)); print(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"\n"
        one = served.Served(process, 0)
        assert one.memory() > process_status("VmRSS", process.pid) + 50_000_000
        assert one.peak() > process_status("VmHWM", process.pid) + 50_000_000
        assert one.processor() > 0.05
        process.communicate(b"\n")
