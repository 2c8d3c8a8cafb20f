"""Many connections: those that are open, and those that broke and may come back."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.runtime.memory_session_storage import MemorySessionStorage

from pages.parts import connections

ROOT = Path(__file__).parents[2]


def test_sessions_away_outlast_hundreds_of_others(monkeypatch):
    """130 connections, opened and closed, took the pictures of visitors whose telephone slept."""
    monkeypatch.setattr(MemorySessionStorage, "save", MemorySessionStorage.save)  # undone later
    connections.allow_many()
    storage = MemorySessionStorage()
    for number in range(1000):
        storage.save(SimpleNamespace(session=SimpleNamespace(id=f"{number}")))
    assert storage.get("0").session.id == "0"


SHOWN = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from streamlit.testing.v1 import AppTest
assert not AppTest.from_file("app.py", default_timeout=60).run().exception
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_app_may_have_as_many_files_open_as_the_system_allows():
    """A thousand requests, begun and not ended, kept everybody out for as long as they stayed."""
    resource = pytest.importorskip("resource")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    ran = subprocess.run(
        [sys.executable, "-c", SHOWN], cwd=ROOT, capture_output=True, text=True, check=True
    )
    now = min(most, connections.MOST_OPEN) if most > 0 else connections.MOST_OPEN
    assert ran.stdout.split("\n")[-2] == str((now, most))
