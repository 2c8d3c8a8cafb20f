"""Every trainer, killed on its way: the same command goes on to the same bytes."""

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from retrieval.errors import RetrievalError
from retrieval.training.journal import Journal

PROGRAM = """
import sys
from pathlib import Path
from retrieval.collections import open_collection
from retrieval.networks.records import SETTINGS
from retrieval.training import delf, loop, pairs, photographs, siamese, sir

method, folder, out = sys.argv[1:]
photographs.MIN_HELD_OUT_PICTURES, pairs.SIZE, pairs.KEYPOINTS = 3, 64, 128
SETTINGS[method]["size"] = 64
if method == "sir":
    sir.DIMENSIONS, sir.BATCH = 64, 8
    settings = loop.Settings(epochs=40, rate=1e-3, patience=40)
elif method == "delf":
    delf.SIZE = delf.MAX_SIZE = 96
    delf.PCA_SIZES, delf.HIDDEN_UNITS = (96,), 16
    settings = delf.Settings(epochs=3, steps=2, batch=4, trunk="correspondences")
else:
    siamese.MIN_PAIRS, siamese.DIMENSIONS = 10, 16
    settings = siamese.Settings(epochs=3, size=64, tuples=4, pairs="labels")
trainer = {"sir": sir, "delf": delf, "cnn-irwnha": siamese}[method]
trainer.train(open_collection(folder), Path(out), settings=settings)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
@pytest.mark.parametrize(
    ("method", "state"), [("sir", "layer"), ("delf", "attention"), ("cnn-irwnha", "trunk")]
)
def test_a_killed_training_goes_on_to_the_same_bytes(landmarks, tmp_path, method, state):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, method, str(landmarks.root)]
    root = Path(__file__).parents[2]
    killed, whole = tmp_path / "killed.pth", tmp_path / "whole.pth"
    start = partial(subprocess.Popen, cwd=root, env=environment)
    with start([*command, str(whole)]) as beside:  # on another core
        process = start([*command, str(killed)])
        kept = tmp_path / "killed.pth.training" / f"{state}.state"
        while not kept.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
        assert start([*command, str(killed)]).wait() == 0
    assert beside.returncode == 0
    assert killed.read_bytes() == whole.read_bytes()


def test_half_written_files_of_a_kill_are_deleted(tmp_path):
    Journal(tmp_path / "network.pth", {})
    left = [
        tmp_path / "network.pth.12.new",
        tmp_path / "network.csv.12.new",
        tmp_path / "network.pth.training" / "stage.state.12.new",
    ]
    others = [tmp_path / "other.pth.12.new", tmp_path / "network.v2.pth.12.new"]
    for path in (*left, *others):
        path.write_bytes(b"half")
    Journal(tmp_path / "network.pth", {})
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_a_journal_without_state_may_become_that_of_another_training(tmp_path):
    Journal(tmp_path / "network.pth", {"pictures": 1})
    Journal(tmp_path / "network.pth", {"pictures": 2}).save_state("stage", {})
    with pytest.raises(RetrievalError, match="pictures differ"):
        Journal(tmp_path / "network.pth", {"pictures": 1})


def test_of_two_trainings_with_one_network_only_the_first_writes(tmp_path):
    first = Journal(tmp_path / "network.pth", {"seed": 0})
    half = tmp_path / "network.pth.12.new"  # which the first is writing just now
    half.write_bytes(b"half")
    with ThreadPoolExecutor(1) as elsewhere:
        for seed in (0, 1):
            other = elsewhere.submit(Journal, tmp_path / "network.pth", {"seed": seed})
            with pytest.raises(RetrievalError, match="Another training is writing to"):
                other.result()
    assert half.exists()
    first.save_state("stage", {})
    # In a notebook, where the first was interrupted and its traceback is shown, it goes on.
    assert Journal(tmp_path / "network.pth", {"seed": 0}).load_state("stage", 0) == {}
    with pytest.raises(RetrievalError, match="seed differ"):
        Journal(tmp_path / "network.pth", {"seed": 1})


def test_a_state_that_was_compressed_by_somebody_else(tmp_path):
    """torch unpacks it: 10 MB became 10 GB."""
    journal = Journal(tmp_path / "network.pth", {"seed": 0})
    journal.save_state("stage", {"weights": torch.zeros(100_000)})
    path = tmp_path / "network.pth.training" / "stage.state"
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(path.read_bytes()[32:])) as state,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in state.infolist():
            archive.writestr(entry.filename, state.read(entry))
    content = packed.getvalue()
    path.write_bytes(journal._digest("stage.state", content) + content)
    with pytest.raises(RetrievalError, match="of another training or damaged"):
        journal.load_state("stage", 0)
