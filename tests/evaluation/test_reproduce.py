"""From nothing to the report's table, on a tiny archive of the true layout and a local server."""

import functools
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from retrieval import cli
from retrieval.cli import index as index_command
from retrieval.collections import collection as collections
from retrieval.collections import downloads, transfer
from retrieval.evaluation import reproduce
from retrieval.index import finding, loading
from retrieval.networks import checkpoints

LANDMARKS = ("all_souls", "magdalen", "radcliffe_camera")
EACH = 4  # database pictures of each landmark; one more is a query of the first two


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves the folder ``served``; ``asked`` lists the paths."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http_server.serve_forever, args=(0.02,), daemon=True).start()
    http_server.root = f"http://127.0.0.1:{http_server.server_port}"
    http_server.folder, http_server.asked = folder, asked
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    for module in (finding, index_command):
        monkeypatch.setattr(module, "PRECOMPUTED", tmp_path / "precomputed")
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    yield http_server
    http_server.shutdown()
    http_server.server_close()


def photograph(landmark: int, view: int) -> bytes:
    """Coarse patches of the landmark under some noise of the view, and something in front."""
    patches = np.random.default_rng(landmark).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(patches).resize((160, 120), Image.NEAREST), np.int16)
    random = np.random.default_rng(1000 + view)
    noise = random.integers(-20, 20, picture.shape)
    picture[:40, :40] = np.kron(random.integers(0, 256, (4, 4, 3)), np.ones((10, 10, 1)))
    data = io.BytesIO()
    Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8)).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture
def roxford(server, monkeypatch):
    """``oxbuild_images-v1.tgz`` and ``gnd_roxford5k.pkl`` of the true form, but small."""
    database, files = [], {}
    for number, landmark in enumerate(LANDMARKS):
        for view in range(EACH):
            database.append(f"{landmark}_{view:06}")
            files[database[-1]] = photograph(number, view)
    queries = [f"{landmark}_{900 + number:06}" for number, landmark in enumerate(LANDMARKS[:2])]
    for number, name in enumerate(queries):
        files[name] = photograph(number, 900)
    truth = {"imlist": database, "qimlist": queries, "gnd": []}
    for number in range(2):
        own = np.arange(EACH * number, EACH * (number + 1))
        truth["gnd"].append({"bbx": [0.0, 0.0, 140.0, 110.0], "easy": own[:2],
                             "hard": own[2:3], "junk": own[3:]})  # fmt: skip
    (server.folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth))
    with tarfile.open(server.folder / "oxbuild_images-v1.tgz", "w:gz") as archive:
        for name in sorted(files):
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = len(files[name])
            archive.addfile(info, io.BytesIO(files[name]))
    entry = replace(collections._ENTRIES["roxford5k"], images=len(database), queries=2)
    monkeypatch.setitem(collections._ENTRIES, "roxford5k", entry)
    source = downloads.Source(
        (f"{server.root}/oxbuild_images-v1.tgz",), f"{server.root}/gnd_roxford5k.pkl", 1_000_000
    )
    monkeypatch.setitem(downloads.SOURCES, "roxford5k", source)


@pytest.fixture
def network(server, monkeypatch):
    """A file of cirtorch's form under the name and record of gl18-resnet152, but small."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[:-2])
    state = {f"features.{key}": value for key, value in net.state_dict().items()}
    state |= {"pool.p": torch.tensor([3.0]), "whiten.weight": torch.eye(512)}
    state["whiten.bias"] = torch.zeros(512)
    meta = {"architecture": "resnet18", "pooling": "gem", "whitening": True,
            "mean": [0.5] * 3, "std": [0.25] * 3}  # fmt: skip
    data = io.BytesIO()
    torch.save({"meta": meta, "state_dict": state}, data)
    digest = hashlib.sha256(data.getvalue()).hexdigest()
    name = f"gl18-tl-resnet152-gem-w-{digest[:7]}.pth"
    (server.folder / name).write_bytes(data.getvalue())
    record = replace(
        checkpoints.REGISTRY["gl18-resnet152"], trunk="resnet18", weights_sha256=digest[:7],
        address=f"{server.root}/{name}", mean=(0.5,) * 3, std=(0.25,) * 3,
    )  # fmt: skip
    monkeypatch.setitem(checkpoints.REGISTRY, record.id, record)
    return record


COMMAND = ["index", "roxford5k", "--method", "cnn-irwnha", "--checkpoint", "gl18-resnet152"]


def test_from_download_to_table(server, roxford, network, capsys):
    assert cli.main(["reproduce"]) == 0
    assert capsys.readouterr().out.count("nothing is measured here yet") == 2

    assert cli.main(COMMAND) == 0
    out = capsys.readouterr().out
    assert "gl18-resnet152: about 250 MB to " in out  # the size, before it is fetched
    assert "12 pictures in " in out
    where = finding.PRECOMPUTED / "roxford5k" / "gl18-resnet152"
    assert (where / "evaluation.json").is_file()
    assert [line.split() for line in out.splitlines() if line.startswith(("easy", "hard"))] == [
        ["easy", "2", "100.00", "100.00", "100.00", "100.00"],
        ["hard", "2", "100.00", "100.00", "100.00", "100.00"],
    ]

    asked = len(server.asked)
    assert cli.main(COMMAND) == 0  # nothing to do again
    assert len(server.asked) == asked
    capsys.readouterr()

    assert cli.main(["reproduce"]) == 0
    table = capsys.readouterr().out.split("oxford5k, mAP")[1].splitlines()
    (ours,) = [line.split() for line in table if "measured here" in line]
    assert ours == ["CNN-IRwNHA", "measured", "here", "gl18-resnet152", *["100.00"] * 3]
    (report,) = [line.split() for line in table if line.split()[:2] == ["CNN-IRwNHA", "report"]]
    assert report[-4:] == ["85.08", "68.65", "44.24", "unknown"]
    (authors,) = [
        line for line in table if "published" in line and "-152" in line and "Goo" in line
    ]
    assert authors.split()[-4:] == ["-", "68.70", "44.20", "unknown"]
    (later,) = [line.split() for line in table if line.startswith("DOLG")]
    assert any("have blurred faces" in line for line in table)
    assert later[-4:] == ["-", "82.37", "64.93", "yes"]  # it learned from GLDv2-clean


def test_interrupted_index_goes_on(server, roxford, network, monkeypatch, capsys):
    from retrieval.methods.gem import GeM

    described, describe = [], GeM._vectors

    def stop_at_five(self, inputs):
        if len(described) == 5:
            raise KeyboardInterrupt
        described.append(1)
        return describe(self, inputs)

    monkeypatch.setattr(GeM, "_vectors", stop_at_five)
    assert cli.main(COMMAND) == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(GeM, "_vectors", lambda *args: (described.append(1), describe(*args))[1])
    assert cli.main(COMMAND) == 0
    assert len(described) == 5 + 7 + 2  # each database picture once, then the queries


def test_oxford5k_takes_what_roxford5k_has(server, roxford, network, monkeypatch, capsys):
    """The classic collection is the same files: only those the revisited one lacks are new."""
    from retrieval.methods.gem import GeM

    assert cli.main(COMMAND) == 0
    with open(server.folder / "gnd_roxford5k.pkl", "rb") as file:
        truth = pickle.load(file)
    names = sorted([*truth["imlist"], *truth["qimlist"]])  # its queries are in its database
    gnd = [
        {"bbx": one["bbx"], "ok": np.array([names.index(truth["imlist"][n]) for n in one["easy"]]),
         "junk": np.array([names.index(own)])}
        for one, own in zip(truth["gnd"], truth["qimlist"], strict=True)
    ]  # fmt: skip
    classic = {"imlist": names, "qimlist": truth["qimlist"], "gnd": gnd}
    (server.folder / "gnd_oxford5k.pkl").write_bytes(pickle.dumps(classic))
    entry = replace(collections._ENTRIES["oxford5k"], images=len(names), queries=2)
    monkeypatch.setitem(collections._ENTRIES, "oxford5k", entry)
    source = replace(downloads.SOURCES["roxford5k"], ground_truth=f"{server.root}/gnd_oxford5k.pkl")
    monkeypatch.setitem(downloads.SOURCES, "oxford5k", source)
    described, vectors = [], GeM._vectors
    monkeypatch.setattr(GeM, "_vectors", lambda *args: (described.append(1), vectors(*args))[1])
    assert cli.main([COMMAND[0], "oxford5k", *COMMAND[2:]]) == 0
    assert len(described) == 2 + 2  # the two pictures that were queries only, then the queries
    found = loading.load(finding.PRECOMPUTED / "oxford5k" / "gl18-resnet152")
    theirs = loading.load(finding.PRECOMPUTED / "roxford5k" / "gl18-resnet152")
    for name in theirs.names:
        np.testing.assert_array_equal(
            found.features(found.positions[name]), theirs.features(theirs.positions[name])
        )
    assert "classic" in capsys.readouterr().out


def test_evaluation_missing_is_made_up_for(server, roxford, network, capsys):
    cli.main(COMMAND)
    where = finding.PRECOMPUTED / "roxford5k" / "gl18-resnet152"
    (where / "evaluation.json").unlink()
    capsys.readouterr()
    assert cli.main(["reproduce"]) == 0
    assert "measured here  gl18-resnet152" in capsys.readouterr().out
    assert (where / "evaluation.json").is_file()


def test_a_name_in_an_index_is_no_command_for_the_terminal(monkeypatch, capsys):
    line = reproduce.Line("SIR", reproduce.MEASURED, "\x1b[2Jnet", {})
    monkeypatch.setattr(reproduce, "table", lambda collection: [line])
    assert cli.main(["reproduce"]) == 0
    out = capsys.readouterr().out
    assert r"\x1b[2Jnet" in out
    assert "\x1b" not in out


def test_download_of_a_checkpoint(server, network, capsys):
    assert not network.available
    assert cli.main(["describe", "x.jpg", *COMMAND[2:], "--out", str(server.folder / "d.npz")]) == 1
    assert (
        "The weights of gl18-resnet152 are not on this machine (about 250 MB): "
        "python -m retrieval download gl18-resnet152" in capsys.readouterr().err
    )
    assert cli.main(["checkpoints"]) == 0
    assert "gl18-resnet152 (not here, about 250 MB)" in capsys.readouterr().out
    assert cli.main(["download", "gl18-resnet152"]) == 0
    assert network.available
    assert cli.main(["checkpoints"]) == 0
    assert "gl18-resnet152 (on disk)" in capsys.readouterr().out
    assert len(server.asked) == 1
    assert cli.main(["download", "gl18-resnet152"]) == 0
    assert len(server.asked) == 1


def test_weights_that_are_not_the_registered_ones(server, network, monkeypatch, capsys):
    wrong = replace(network, weights_sha256="0000000")
    monkeypatch.setitem(checkpoints.REGISTRY, wrong.id, wrong)
    assert cli.main(["download", wrong.id]) == 1
    assert "has SHA-256" in capsys.readouterr().err
    assert not wrong.available
    # The same when somebody puts another file in its place.
    wrong.path.parent.mkdir(parents=True, exist_ok=True)
    wrong.path.write_bytes(b"something else")
    assert cli.main(["describe", "x.jpg", *COMMAND[2:], "--out", str(server.folder / "d.npz")]) == 1
    assert "does not have the SHA-256 it should have" in capsys.readouterr().err


def test_download_of_a_saved_model(server, monkeypatch, tmp_path, capsys):
    def pack(name):
        with tarfile.open(server.folder / "delf.tar.gz", "w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))

    record = replace(checkpoints.REGISTRY["delf-tfhub"], address=f"{server.root}/delf.tar.gz?x=y")
    monkeypatch.setitem(checkpoints.REGISTRY, record.id, record)
    pack("something.txt")
    assert cli.main(["download", "delf-tfhub"]) == 1
    assert "holds no SavedModel" in capsys.readouterr().err
    assert not record.available
    pack("saved_model.pb")
    assert cli.main(["download", "delf-tfhub"]) == 0
    assert record.path == tmp_path / "data" / "checkpoints" / "delf-tfhub"
    assert (record.path / "saved_model.pb").read_bytes() == b"abc"
    assert len(record.sha256) == 64


def test_what_index_refuses(server, network, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["index", str(tmp_path), "--method", "sir"])
    assert "needs a place: --out INDEX" in capsys.readouterr().err
    sir = ["index", str(tmp_path), "--method", "sir", "--checkpoint", "gl18-resnet152"]
    assert cli.main([*sir, "--out", str(tmp_path / "i")]) == 1
    assert "gl18-resnet152 is for cnn-irwnha, not for sir" in capsys.readouterr().err
    assert server.asked == []
