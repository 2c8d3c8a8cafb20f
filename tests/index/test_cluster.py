"""A build with workers of Ray is the build of one machine. Skipped where there is no Ray."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from stubs import Grid, Thumbnail, paint
from test_parts import contents, refused

from retrieval import cli, index
from retrieval.collections import open_collection
from retrieval.index import cluster

ray = pytest.importorskip("ray")


class Fatal(Thumbnail):
    """Its worker dies at a picture of this width: once, or each time."""

    def __init__(self, width, once=None):
        super().__init__()
        self.width, self.once = width, once

    def describe(self, picture, box=None):
        if picture.width == self.width and (self.once is None or not os.path.exists(self.once)):
            if self.once is not None:
                Path(self.once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().describe(picture, box)


class Numbered(Thumbnail):
    """Leaves a file with the number of its process for each picture."""

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)

    def describe(self, picture, box=None):
        with open(self.folder / str(os.getpid()), "a") as file:
            file.write(f"{picture.width}\n")
        return super().describe(picture, box)


@pytest.fixture(scope="module")
def local():
    """Ray with two workers, once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "usable_cores", lambda: 2)
        with cluster._connected("local"):
            yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty pictures, of which three cannot be read and one has no local features."""
    root = tmp_path_factory.mktemp("ray") / "pictures"
    for seed in range(16):
        paint(root / f"{seed:02}.png", seed, (40 + seed, 30))
    Image.new("RGB", (70, 40), "grey").save(root / "blank.png")
    (root / "00 page.jpg").write_text("<html></html>")
    (root / "08 half.png").write_bytes((root / "08.png").read_bytes()[:900])
    (root / "12 empty.png").write_bytes(b"")
    return root


def build(pictures, out, load, **options):
    method = load()
    describe = cluster.describer("local", load)
    return index.build(open_collection(pictures), method, out, describe=describe, **options)


# Before Ray is started, which it then is for all that follow


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999"])
def test_there_is_no_cluster(pictures, tmp_path, address):
    describe = cluster.describer(address, Thumbnail)
    refused(f"Ray cannot be reached at {address}",
            index.build, open_collection(pictures), Thumbnail(), tmp_path / "out",
            describe=describe)  # fmt: skip


def test_an_address_for_clients():
    refused("run this command on a machine of the cluster", cluster.describer,
            "ray://127.0.0.1:10001", Thumbnail)  # fmt: skip


def test_there_is_no_ray(monkeypatch, pictures, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(cluster.RetrievalError, match=r'not installed: pip install "ray>=2.59,<3"'):
        build(pictures, tmp_path / "out", Thumbnail)


def test_a_ray_that_does_not_start(monkeypatch, pictures, tmp_path):
    """On a busy machine Ray gave up, with a traceback."""

    def init(*args, **options):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    refused(
        "Ray does not start on this machine: run the same command again",
        lambda: build(pictures, tmp_path / "out", Thumbnail),
    )


def test_a_ray_that_starts_the_second_time(monkeypatch):
    """It gave up after 30 s, and who ran the command again had an index."""
    started = []

    def init(*args, **options):
        started.append(args)
        if len(started) == 1:
            raise RuntimeError("Timed out waiting for file gcs_server_port")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with cluster._connected("local"):
        assert started == [("local",)] * 2


def test_a_ray_that_asks_nobody_for_a_token(monkeypatch, pictures, tmp_path):
    monkeypatch.setattr(ray, "__version__", "2.58.0")
    with pytest.raises(cluster.RetrievalError, match="lets everybody in"):
        build(pictures, tmp_path / "out", Thumbnail)


# With two workers


@pytest.mark.parametrize("method", [Thumbnail, Grid])
def test_it_equals_the_build_of_one_machine(local, pictures, tmp_path, method):
    calls = []
    progress = lambda *call: calls.append(call)  # noqa: E731
    made = build(pictures, tmp_path / "ray", method, progress=progress)
    index.build(open_collection(pictures), method(), tmp_path / "plain")
    assert len(made) == 17
    assert len(made.manifest["skipped"]) == 3
    assert contents(tmp_path / "ray") == contents(tmp_path / "plain")
    assert [call[:2] for call in calls] == [(done, 20) for done in range(1, 21)]
    assert {name for *_, name in calls} == set(open_collection(pictures).names)


def test_both_workers_work_and_only_on_what_is_new(local, pictures, tmp_path):
    (tmp_path / "seen").mkdir()
    load = partial(Numbered, tmp_path / "seen")
    build(pictures, tmp_path / "out", load)
    seen = {path.name: path.read_text().split() for path in (tmp_path / "seen").iterdir()}
    assert len(seen) == 2
    assert str(os.getpid()) not in seen
    widths = sorted(int(width) for one in seen.values() for width in one)
    assert widths == [*range(40, 56), 70]
    for path in (tmp_path / "seen").iterdir():
        path.unlink()
    build(pictures, tmp_path / "out", load)
    assert list((tmp_path / "seen").iterdir()) == []


def test_a_worker_dies(local, pictures, tmp_path):
    load = partial(Fatal, 47, str(tmp_path / "died"))
    build(pictures, tmp_path / "ray", load)
    assert (tmp_path / "died").exists()
    index.build(open_collection(pictures), Thumbnail(), tmp_path / "plain")
    assert contents(tmp_path / "ray") == contents(tmp_path / "plain")


def test_a_worker_dies_each_time_and_the_build_goes_on(local, pictures, tmp_path):
    refused("died 4 times at the same pictures; it may lack memory. Finished pictures are kept",
            build, pictures, tmp_path / "out", partial(Fatal, 54))  # fmt: skip
    method = Thumbnail()
    index.build(open_collection(pictures), method, tmp_path / "out")
    assert 0 < len(method.described) < 17
    index.build(open_collection(pictures), Thumbnail(), tmp_path / "plain")
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")


def test_other_weights_on_a_worker(local, pictures, tmp_path):
    describe = cluster.describer("local", partial(Thumbnail, size=5))
    refused("has other weights or settings than this machine",
            index.build, open_collection(pictures), Thumbnail(), tmp_path / "out",
            describe=describe)  # fmt: skip


def test_a_worker_without_the_pictures(local, pictures, tmp_path):
    collection = replace(open_collection(pictures), root=tmp_path / "not mounted")
    describe = cluster.describer("local", Thumbnail)
    refused("A worker of Ray does not find .*not mounted",
            index.build, collection, Thumbnail(), tmp_path / "out", describe=describe)  # fmt: skip


def test_a_bug_is_no_sentence(local, pictures, tmp_path):
    with pytest.raises(ray.exceptions.RayTaskError, match="KeyError"):
        build(pictures, tmp_path / "out", Broken)


class Broken(Thumbnail):
    def describe(self, picture, box=None):
        raise KeyError("a bug")


def test_the_command(local, folder, tmp_path):
    small = ["index", str(folder), "--method", "cnn-irwnha", "--size", "64"]
    assert cli.main([*small, "--out", str(tmp_path / "ray"), "--ray", "local"]) == 0
    assert cli.main([*small, "--out", str(tmp_path / "plain")]) == 0
    assert contents(tmp_path / "ray") == contents(tmp_path / "plain")


KILLED = """
import os, sys, time
sys.path[:0] = {path!r}
from test_cluster import Thumbnail, build
class Slow(Thumbnail):
    def describe(self, picture, box=None):
        if picture.width == 50:
            time.sleep(60)
        return super().describe(picture, box)
def progress(done, total, name):
    if done == 6:
        print("six are done", flush=True)
from pathlib import Path
build(Path({pictures!r}), {out!r}, Slow, progress=progress)
"""


def test_the_driver_is_killed(pictures, tmp_path):
    """Ray goes with it, and a build on this machine alone takes over."""
    here = Path(__file__).parent
    path = [str(here), str(here.parent), str(here.parents[1])]
    script = KILLED.format(path=path, pictures=str(pictures), out=str(tmp_path / "out"))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"six are done\n"
        finally:
            process.send_signal(signal.SIGKILL)
    method = Thumbnail()
    index.build(open_collection(pictures), method, tmp_path / "out")
    assert len(method.described) <= 17 - 3, "six are done, of which three at most are no pictures"
    index.build(open_collection(pictures), Thumbnail(), tmp_path / "plain")
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")


MOMENTS = range(1, 20, 2)  # pictures that are done, of twenty


@pytest.mark.long
def test_workers_are_killed_at_ten_moments(local, pictures, tmp_path):
    index.build(open_collection(pictures), Thumbnail(), tmp_path / "plain")
    for moment in MOMENTS:
        seen = tmp_path / f"seen {moment}"
        seen.mkdir()
        killed = []

        def progress(done, total, name, moment=moment, seen=seen, killed=killed):
            if done == moment:
                killed.extend(int(path.name) for path in seen.iterdir())
                for worker in killed:
                    os.kill(worker, signal.SIGKILL)

        build(pictures, tmp_path / f"{moment}", partial(Numbered, seen), progress=progress)
        assert killed
        assert contents(tmp_path / f"{moment}") == contents(tmp_path / "plain")


RESTARTED = """
import os, sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from test_cluster import Thumbnail, build
class Slow(Thumbnail):
    def describe(self, picture, box=None):
        time.sleep(0.1)
        return super().describe(picture, box)
def progress(done, total, name):
    print(done, flush=True)
build(Path({pictures!r}), {out!r}, Slow, progress=progress)
"""


@pytest.mark.long
def test_the_driver_is_killed_at_ten_moments(pictures, tmp_path):
    """Of one build, which each driver takes over from the one before."""
    here = Path(__file__).parent
    path = [str(here), str(here.parent), str(here.parents[1])]
    script = RESTARTED.format(path=path, pictures=str(pictures), out=str(tmp_path / "out"))
    start = [sys.executable, "-c", script]
    for moment in MOMENTS:
        with subprocess.Popen(start, stdout=subprocess.PIPE) as process:
            try:
                for line in process.stdout:
                    if int(line) == moment:
                        break
                else:
                    raise AssertionError("the driver ended by itself")
            finally:
                process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    subprocess.run(start, stdout=subprocess.DEVNULL, check=True)
    index.build(open_collection(pictures), Thumbnail(), tmp_path / "plain")
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
