"""``download commons`` as a new user runs it, against a server that answers as Commons does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commons_site import serving

from retrieval import cli, images
from retrieval.collections import data_folder, open_collection
from retrieval.collections.commons import PRESETS

REPOSITORY = Path(__file__).parents[2]
TOWN = sorted((REPOSITORY / "precomputed" / "town" / "images").iterdir())
CONTACT = ("--contact", "me@example.org")


@pytest.fixture
def site(monkeypatch, tmp_path):
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "data"))
    with serving(monkeypatch) as site:
        yield site


def add(site, category, count):
    """Rendered pictures, as the network would take random patches for one photograph."""
    for _ in range(count):
        data = TOWN[29 * len(site.files) % len(TOWN)].read_bytes()
        site.add(category, data=data, size=images.read(data).size)


def test_from_a_category_to_a_search_with_credits(site, tmp_path, capsys):
    for category in ("Radcliffe Camera", "Magdalen College, Oxford"):
        add(site, category, 5)
    out, index = tmp_path / "oxford", tmp_path / "index"
    command = [
        "download", "commons", "--category", "Category:Radcliffe_Camera",
        "--category", "Magdalen College, Oxford", "--per", "4", "--depth", "0",
        "--out", str(out), *CONTACT,
    ]  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "Up to 8 photographs" in said
    assert f"6 photographs and 2 queries in {out}" in said
    assert f"python -m retrieval index {out} --method cnn-irwnha --out INDEX" in said
    quick = ["--method", "cnn-irwnha", "--size", "64"]
    assert cli.main(["index", str(out), *quick, "--out", str(index)]) == 0
    found = open_collection(out)
    asked = found.path(found.queries[0].name)
    capsys.readouterr()
    assert cli.main(["search", str(index), str(asked), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert {row["name"] for row in results} == set(found.names)
    figure = tmp_path / "matches.svg"
    other = found.path(found.names[0])
    assert cli.main(["plot", "matches", str(asked), str(other), "--out", str(figure)]) == 0
    drawn = figure.read_text("utf-8")
    for name in (asked.name, other.name):
        pageid = name.rpartition("_")[2].removesuffix(".jpg")
        assert f"P{pageid}, CC BY-SA 4.0" in drawn


def test_a_preset_goes_to_its_place(site, capsys):
    for category in PRESETS["oxford"][:2]:
        add(site, category, 3)
    assert cli.main(["download", "commons", "--preset", "oxford", *CONTACT]) == 0
    said = capsys.readouterr().out
    assert "Up to 660 photographs" in said
    assert "index oxford-commons --method cnn-irwnha\n" in said
    found = open_collection("oxford-commons")
    assert found.root == data_folder() / "oxford-commons"
    assert (len(found), len(found.queries), len(found.credits)) == (4, 2, 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["commons"], "name a --preset or a --category"),
        (["commons", "--category", "x"], "--out FOLDER"),
        (["commons", "--preset", "oxford", "--category", "x"], "--out FOLDER"),
        (["roxford5k", "--per", "3"], "these options are for: download commons"),
        (["commons", "--preset", "rome"], "invalid choice"),
    ],
)
def test_wrong_usage(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["download", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_without_a_contact(site, tmp_path, capsys):
    words = ["commons", "--category", "Tower", "--out", str(tmp_path / "out")]
    assert cli.main(["download", *words]) == 1
    assert "whom to write to" in capsys.readouterr().err
    assert site.asked == []


def test_killed_and_started_again(site, tmp_path):
    """A process of its own, killed hard while it waits for its sixth picture."""
    add(site, "Tower", 12)
    program = (
        "import sys; from retrieval import cli; from retrieval.collections.commons import choice;"
        "from retrieval.collections.commons import site;"
        f"site.API, choice.MEDIA, site.PAUSE = '{site.root}/w/api.php', '{site.root}/', 0;"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [
        sys.executable, "-c", program, "download", "commons", "--category", "Tower",
        "--depth", "0", "--per", "12", "--out", str(tmp_path / "out"), *CONTACT,
    ]  # fmt: skip
    site.hold_after = 5
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    assert site.held.wait(120)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    site.hold_after = None
    site.go_on.set()
    assert not (tmp_path / "out" / "ground_truth.json").exists()
    first = set(site.pictures_asked())
    assert len(first) == 6
    site.asked.clear()
    subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)
    assert len(site.asked) == len(site.pictures_asked()) == 7  # the sixth again, and the others
    assert len(open_collection(tmp_path / "out").credits) == 12
