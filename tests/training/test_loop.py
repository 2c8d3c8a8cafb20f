"""The loop and the journal on a problem that a page of paper can hold: one weight, one target."""

import csv
import io
import json
import os
import shutil
import zipfile

import pytest
import torch
from torch import nn

from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints
from retrieval.training import result
from retrieval.training.journal import Journal
from retrieval.training.loop import Settings, Stage, train_stage


class Line(Stage):
    """Bring ``weight`` to 3. Noise depends on the epoch alone."""

    name = "line"
    measure = "nearness"
    steps = 4

    def __init__(self, stop_at=None, best_at=None):
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.stop_at, self.best_at, self.epochs = stop_at, best_at, []

    def parameter_groups(self):
        return [{"params": self.module.parameters()}]

    def begin(self, epoch):
        self.epochs.append(epoch)
        self.generator = torch.Generator().manual_seed(epoch)

    def loss(self, step):
        if (self.epochs[-1], step) == self.stop_at:
            raise KeyboardInterrupt
        noise = 0.1 * torch.rand(1, generator=self.generator)
        return (self.module(torch.ones(1, 1)) - 3 + noise).square().mean()

    def validate(self):
        if self.best_at is not None:
            return 1.0 if self.epochs[-1:] == [self.best_at] else 0.0
        return -abs(float(self.module.weight.detach()) - 3)


def journal(folder, **identity):
    return Journal(folder / "net.pth", {"seed": 0, **identity})


def content(stage):
    return {"meta": {"trained": {"what": "a line"}}, "state_dict": stage.module.state_dict()}


def go(folder, stage, settings=None):
    settings = settings or Settings(epochs=6, rate=0.3)
    kept, rows = journal(folder), []
    train_stage(stage, settings, kept, rows)
    kept.write_network(content(stage))
    return rows


def files(folder):
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    del found["net.csv"]  # has the seconds in it
    return found


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_weights_that_are_infinite_in_half_precision_are_refused(value):
    tensors = {"features.0.weight": torch.full((2, 2), value)}
    with pytest.raises(RetrievalError, match="infinite or NaN in half precision"):
        result.file_content(checkpoints.REGISTRY["sir-lite0"], tensors, {})


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_the_loss_falls_and_the_curves_hold_every_epoch(tmp_path, optimiser):
    settings = Settings(epochs=6, rate={"adamw": 0.3, "sgd": 0.05}[optimiser], optimiser=optimiser)
    rows = go(tmp_path, Line(), settings)
    assert [row["epoch"] for row in rows] == list(range(7))
    assert rows[0]["loss"] is None
    assert rows[-1]["loss"] < 0.5 * rows[1]["loss"]
    with open(tmp_path / "net.csv") as file:
        read = list(csv.DictReader(file))
    assert [float(row["validation"]) for row in read] == [row["validation"] for row in rows]
    assert (tmp_path / "net.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "net.json").read_text()) == {"what": "a line"}


@pytest.mark.parametrize("stop_at", [(1, 0), (3, 2), (6, 3)])
def test_a_resumed_training_writes_the_same_bytes(tmp_path, stop_at):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    go(whole, Line())
    with pytest.raises(KeyboardInterrupt):
        go(broken, Line(stop_at))
    assert not (broken / "net.pth").exists()
    again = Line()
    go(broken, again)
    assert again.epochs[0] == stop_at[0], "finished epochs are not done again"
    assert files(broken) == files(whole)


def test_training_stops_early_and_keeps_the_best_epoch(tmp_path):
    stage = Line(best_at=2)
    weights = []
    real = stage.validate
    stage.validate = lambda: (weights.append(float(stage.module.weight.detach())), real())[1]
    rows = go(tmp_path, stage, Settings(epochs=20, rate=0.3, patience=3))
    assert stage.epochs == [1, 2, 3, 4, 5]
    assert [row["validation"] for row in rows] == [0, 0, 1, 0, 0, 0]
    assert float(stage.module.weight.detach()) == weights[2]


def test_without_epochs_the_module_is_unchanged(tmp_path):
    stage = Line()
    rows = go(tmp_path, stage, Settings(epochs=0, rate=0.3))
    assert [row["epoch"] for row in rows] == [0]
    assert float(stage.module.weight.detach()) == 0


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("what", ["loss", "weight"])
def test_an_infinite_loss_or_weight_stops_the_training(tmp_path, at, what):
    class Broken(Line):
        def loss(self, step):
            value = super().loss(step)
            return value * float("nan") if (self.epochs[-1], what) == (at, "loss") else value

        def validate(self):
            if what == "weight" and self.epochs[-1:] == [at]:
                with torch.no_grad():
                    self.module.weight.fill_(float("inf"))
            return super().validate()

    journal(tmp_path)  # of a training of yesterday
    out = tmp_path / "net.pth"
    out.write_bytes(b"the network of yesterday")
    with pytest.raises(RetrievalError, match=f"stopped in epoch {at}: .*lower --rate") as said:
        go(tmp_path, Broken())
    assert ("The state after epoch 2 is kept in" in str(said.value)) == (at == 3)
    assert out.read_bytes() == b"the network of yesterday"
    state = journal(tmp_path).load_state("line", 0)
    if at == 1:
        assert state is None
    else:
        assert len(state["rows"]) == at
        assert torch.isfinite(state["module"]["weight"]).all()


def test_the_state_of_another_training_is_refused(tmp_path):
    go(tmp_path, Line())
    with pytest.raises(RetrievalError, match="another training: pictures, seed differ"):
        journal(tmp_path, seed=1, pictures="others")


def test_a_file_of_another_training_of_the_same_shapes_is_refused(tmp_path):
    """It was taken: the network in the end was that of neither, and its record said seed 0."""
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        kept = journal(tmp_path / str(seed), seed=seed)
        train_stage(Line(), Settings(epochs=1), kept, [])
        kept.computed_once("features", lambda: torch.zeros(1), bool, 0)
    for name in ("line.state", "features"):
        shutil.copy(kept.folder / name, tmp_path / "0" / "net.pth.training" / name)
        with pytest.raises(RetrievalError, match=f"{name} is of another training or damaged"):
            journal(tmp_path / "0", seed=0)._read(name, 0)
    kept._lock.release()
    (kept.folder / "identity").unlink()
    with pytest.raises(RetrievalError, match="of another training or damaged"):
        journal(tmp_path / "1", seed=2).load_state("line", 0)


@pytest.mark.parametrize("name", ["identity", "line.state"])
@pytest.mark.parametrize("where", [0, 40, -1])
def test_a_damaged_state_is_refused(tmp_path, name, where):
    go(tmp_path, Line())
    path = tmp_path / "net.pth.training" / name
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(RetrievalError, match="damaged; choose another --out"):
        go(tmp_path, Line())
    path.write_bytes(b"")
    with pytest.raises(RetrievalError, match="damaged; choose another --out"):
        go(tmp_path, Line())


def test_a_state_that_torch_did_not_write_is_refused(tmp_path):
    """Even where its checksum is right."""
    journal = Journal(tmp_path / "net.pth", {})
    content = b"no state"
    digest = journal._digest("trunk.state", content)
    (journal.folder / "trunk.state").write_bytes(digest + content)
    with pytest.raises(
        RetrievalError,
        match=r"trunk\.state is of another training or damaged; choose another --out",
    ):
        journal.load_state("trunk", 0)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [],
        [{}],
        ({"epoch": 0},),
        lambda rows: rows[1:],
        lambda rows: [row | {"stage": "other"} for row in rows],
        lambda rows: [row | {"loss": 1.0} for row in rows],
        lambda rows: [row | {"validation": "0.5"} for row in rows],
        lambda rows: [row | {"rate": float("inf")} for row in rows],
    ],
)
def test_a_state_with_odd_epochs_is_refused(tmp_path, rows):
    """It may come with a stranger's network. It ended in a traceback."""
    go(tmp_path, Line())
    kept = journal(tmp_path)
    state = kept.load_state("line", 0)
    kept.save_state("line", state | {"rows": rows(state["rows"]) if callable(rows) else rows})
    with pytest.raises(RetrievalError, match="does not fit this training"):
        go(tmp_path, Line())


def test_a_state_of_links_and_pipes_is_refused(tmp_path):
    """It may come with a stranger's network: of /dev/zero it read until the memory was full."""
    folder, victim = tmp_path / "net.pth.training", tmp_path / "victim"
    victim.mkdir()
    (victim / "draft.new").write_text("precious")
    folder.symlink_to(victim)
    with pytest.raises(RetrievalError, match="delete it"):
        journal(tmp_path)
    folder.unlink()
    assert [path.name for path in victim.iterdir()] == ["draft.new"]
    folder.mkdir()
    (folder / "line.state").symlink_to("/dev/zero")
    with pytest.raises(RetrievalError, match="delete it"):
        journal(tmp_path)
    (folder / "line.state").unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "identity")
        with pytest.raises(RetrievalError, match="delete it"):
            journal(tmp_path)
        (folder / "identity").unlink()
    assert journal(tmp_path).load_state("line", 0) is None


def test_computed_once_computes_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": torch.arange(3)}

    for _ in range(2):
        found = journal(tmp_path).computed_once("x", compute, lambda stored: "x" in stored, 0)
        assert torch.equal(found["x"], torch.arange(3))
    assert len(calls) == 1
    with pytest.raises(RetrievalError, match="does not fit this training"):
        journal(tmp_path).computed_once("x", compute, lambda stored: "y" in stored, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept[0].pop("step"),
        lambda kept: kept[0].update(exp_avg=torch.zeros(7)),
        lambda kept: kept[0].update(exp_avg=torch.zeros(1).expand(10**10)),
        lambda kept: kept[0].update(exp_avg_sq="x"),
        lambda kept: kept.update({9: kept[0]}),
    ],
)
def test_a_state_of_another_optimiser_is_refused(tmp_path, change):
    """It ended in a traceback in the next step; one number that counts often filled the memory."""
    go(tmp_path, Line(), Settings(epochs=1, rate=0.3))
    kept = journal(tmp_path)
    state = kept.load_state("line", 0)
    change(state["optimiser"]["state"])
    kept.save_state("line", state)
    with pytest.raises(RetrievalError, match="choose another --out to begin again"):
        go(tmp_path, Line())


def test_settings_of_an_optimiser_are_those_of_this_training(tmp_path):
    go(tmp_path, Line(), Settings(epochs=1, rate=0.3))
    kept = journal(tmp_path)
    state = kept.load_state("line", 0)
    state["optimiser"]["param_groups"] = [{"params": "x", "betas": 3}]
    kept.save_state("line", state)
    go(tmp_path, Line())


def test_an_identity_of_a_stranger_is_refused(tmp_path):
    """It ended in a traceback where it was no dictionary of words."""
    kept = journal(tmp_path)
    kept.save_state("line", {})
    for identity in ([1], {1: "x", "seed": 5}, {"seed": torch.zeros(3)}):
        kept._training = b""
        kept._write("identity", identity)
        with pytest.raises(RetrievalError, match="is the state of another training"):
            journal(tmp_path)


def resume(folder):
    kept = journal(folder)
    kept.computed_once("features", lambda: {}, bool, 1000)
    kept.load_state("line", 1000)


@pytest.mark.parametrize("name", ["identity", "features", "line.state"])
def test_a_state_that_is_far_too_large_is_refused(tmp_path, name):
    """Of 1.5 GB of zeros, which pack into 1.5 MB, reading and its copies took 5 GB."""
    kept = journal(tmp_path)
    kept.save_state("line", {})
    with open(kept.folder / name, "wb") as file:
        file.truncate(10**12)  # on no disk
    with pytest.raises(RetrievalError, match="it has more than 10 MB; choose another --out"):
        resume(tmp_path)


def test_a_state_of_brackets_is_refused(tmp_path):
    """Of 30 MB of them, which pack into 30 kB, torch made 2.8 GB in minutes."""
    kept = journal(tmp_path)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02(" + b"]" * 5_000_000 + b"l.")
    content = packed.getvalue()
    (kept.folder / "line.state").write_bytes(kept._digest("line.state", content) + content)
    with pytest.raises(RetrievalError, match="of another training or damaged"):
        kept.load_state("line", 0)


def test_a_missing_folder_or_a_folder_as_the_file_is_refused(tmp_path):
    with pytest.raises(RetrievalError, match="no folder"):
        Journal(tmp_path / "nowhere" / "net.pth", {})
    with pytest.raises(RetrievalError, match="is a folder"):
        Journal(tmp_path, {})


@pytest.mark.parametrize("suffix", [".pth", ".csv", ".png", ".json"])
def test_files_that_are_not_of_this_training_stay(tmp_path, suffix):
    """One's own paris.json beside ``--out paris.pth`` was replaced; so was a paris.pth that was
    downloaded, or that the training starts from.
    """
    mine = tmp_path / f"net{suffix}"
    mine.write_text("mine")
    with pytest.raises(RetrievalError, match="would be replaced; move it"):
        Journal(tmp_path / "net.pth", {})
    if suffix != ".pth":
        with pytest.raises(RetrievalError, match="end the name with"):
            Journal(mine, {})
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    mine.rename(tmp_path / "moved")
    journal = Journal(tmp_path / "net.pth", {})
    mine.write_text("curves")
    del journal
    Journal(tmp_path / "net.pth", {})  # resumed


def test_a_full_disk_is_explained_and_leaves_no_file(tmp_path, monkeypatch):
    import os

    kept = journal(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RetrievalError, match="cannot be written: No space"):
        kept.save_state("line", {"x": 1})
    assert {path.name for path in kept.folder.iterdir()} == {"identity", "lock"}
