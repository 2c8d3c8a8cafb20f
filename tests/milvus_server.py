"""A real server of Milvus (``milvus-lite server``) on a port of its own, to talk to and to kill."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from retrieval.benchmarks.served import free_port
from retrieval.index import milvus
from retrieval.index.milvus import Address


def needed():
    """Skip where the client or the server is not installed."""
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")


def only_pauses_take_time(monkeypatch):
    """On the clock of ``milvus.call``, where they pass at once.

    Attempts at a server that refuses take none: one that took the rest of its time, as the machine
    stood still, would be one without an answer.
    """
    now = [time.monotonic()]

    def sleep(seconds):
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(milvus, "time", clock)


class Server:
    """host and port stay the same when it is started again, and so does what it stores."""

    def __init__(self, folder: Path):
        self.folder, self.port, self.process = folder, free_port(), None
        self.program = shutil.which("milvus-lite") or str(
            Path(sys.executable).with_name("milvus-lite")
        )

    def start(self):
        where = ["--data-dir", self.folder, "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [self.program, "server", *where],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return self

    def wait(self):
        """Until it takes connections."""
        for _ in range(600):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise AssertionError("milvus-lite did not start")

    def kill(self):
        self.send(signal.SIGKILL)
        self.process.wait()

    def send(self, number):
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitpid(self.process.pid, os.WUNTRACED)  # until it has stopped

    def address(self, name: str) -> Address:
        return Address("127.0.0.1", self.port, name)
