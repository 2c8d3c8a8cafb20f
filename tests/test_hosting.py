"""What is needed to put the app online, as far as it can be checked without a host."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from retrieval.benchmarks.served import free_port

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".streamlit" / "Dockerfile").read_text("utf-8")
STEPS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n", "", TEXT).splitlines()
    if line.strip() and not line.startswith("#")
]


def step(name):
    """The arguments of the only instruction of that name."""
    (found,) = [arguments for instruction, arguments in STEPS if instruction == name]
    return found


def requirements(text):
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_image_installs_what_ci_installs_but_for_the_tests(tmp_path):
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    commands = next(run.split(" && ") for name, run in STEPS if name == "RUN")
    writing = [one for one in commands if ">" in one and not one.strip().startswith("pip")]
    subprocess.run(["bash", "-ec", "\n".join(writing)], cwd=tmp_path, check=True)
    app, torch = (requirements((tmp_path / f"{name}.txt").read_text()) for name in ("app", "torch"))
    every = requirements((ROOT / "requirements.txt").read_text())
    assert app == every[: len(app)]
    assert {re.split(r"[<>=]", line)[0] for line in every[len(app) :]} >= {"ruff", "mypy"}
    assert [line.split(">")[0] for line in torch] == ["torch", "torchvision"]
    assert set(torch) < set(app)
    installed = [one.split() for one in commands if one.strip().startswith("pip install")]
    assert [one[-1] for one in installed] == ["torch.txt", "app.txt"]
    # Only PyTorch's own two come from PyTorch's index.
    assert ["--index-url" in one for one in installed] == [True, False]


def test_the_image_runs_as_a_visitor_and_holds_no_secrets():
    names = [name for name, _ in STEPS]
    assert step("USER") != "root"
    assert "RUN" not in names[names.index("USER") :]
    sources = {part for name, one in STEPS if name == "COPY" for part in one.split()[:-1]}
    assert "." not in sources
    assert not {".streamlit", ".streamlit/secrets.toml"} & sources


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The folder that the image's COPY lines make."""
    here = tmp_path_factory.mktemp("image")
    for name, one in STEPS:
        if name == "COPY":
            source, target = one.split()
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, here / target)
            else:
                file = here / target / source if target.endswith(("/", ".")) else here / target
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, file)
    return here


@pytest.mark.parametrize("path", ["", "demo/images"])
def test_the_health_check_hears_the_app(copied, tmp_path, path):
    port = str(free_port())
    serve, ask = (
        json.loads(one[one.index("[") :].replace("8501", port))
        for one in (step("CMD"), step("HEALTHCHECK"))
    )
    environment = os.environ | {"HOME": str(tmp_path), "STREAMLIT_SERVER_BASE_URL_PATH": path}
    log = tmp_path / "log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", *serve],
            cwd=copied,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        ask = [sys.executable, *ask[1:]]
        tries = 120
        while tries and subprocess.run(ask, env=environment, stderr=subprocess.DEVNULL).returncode:
            tries -= 1
            time.sleep(0.5)
        assert tries, "the health check never succeeded"
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}").read()
        assert b"streamlit" in page.lower()
    finally:
        server.terminate()
        server.wait(30)
    assert subprocess.run(ask, env=environment, stderr=subprocess.DEVNULL).returncode
    # It asked nobody on the internet for its own address.
    assert f"http://localhost:{port}" in log.read_text()
    assert "xternal" not in log.read_text()


def test_the_copied_folder_is_enough_to_search(copied, tmp_path):
    visit = (
        "from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file('app.py', default_timeout=300)\n"
        "app.query_params.update(collection='town', query='priory_013.jpg', method='sir')\n"
        "app.run()\n"
        "assert not app.exception, app.exception\n"
        "assert not app.error, app.error\n"
        "print(app.markdown[1].value)\n"
    )
    environment = os.environ | {"RETRIEVAL_DATA": str(tmp_path), "PYTHONPATH": str(copied)}
    run = subprocess.run(
        [sys.executable, "-c", visit], cwd=copied, env=environment, capture_output=True, text=True
    )
    assert run.stdout.splitlines()[-1:] == ["# Search by example"], run.stdout + run.stderr
