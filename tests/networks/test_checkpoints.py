import hashlib
import json
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrieval import methods
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints, weights

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
NETWORK = REFERENCE / "cirtorch-resnet18-gem-w.pth"


def refused(words, call, *arguments, **options):
    with pytest.raises(RetrievalError, match=words) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert text.endswith((".", "requirements.txt")) or "python -m retrieval" in text
    assert "\n" not in text


def test_every_method_has_an_embedded_default():
    for name, entry in methods.METHODS.items():
        record = checkpoints.find(name)
        assert record.id == entry.default
        assert record is checkpoints.of_method(name)[0]
        assert not record.address, "the default must work without a network"
        assert record.available
        assert len(record.sha256) == 64
        assert record.stands_in_for


def test_weights_come_encrypted_where_the_host_can():
    addresses = [record.address for record in checkpoints.REGISTRY.values() if record.address]
    assert addresses
    for address in addresses:
        assert address.startswith(("https://", "http://cmp.felk.cvut.cz/"))


def test_unknown_ids_and_files_are_refused():
    refused("Checkpoint gem-lite0 is for cnn-irwnha, not for sir", methods.load, "sir", "gem-lite0")
    refused("no checkpoint 'nothing' for sir: .*sir-lite0", methods.load, "sir", "nothing")
    refused("no checkpoint", methods.load, "sir", "x" * 300)
    refused("no checkpoint", methods.load, "sir", "a\0b")
    refused("no checkpoint", methods.load, "sir", "")
    refused("no checkpoint", methods.load, "sir", Path("/tmp"))
    refused("Unknown method 'surf'; there are: sir, delf, cnn-irwnha", methods.load, "surf")


def test_a_file_is_for_one_method_only(tmp_path):
    path = tmp_path / "network.pth"
    meta = {"architecture": "resnet18", "pooling": "gem"}
    torch.save({"meta": meta, "state_dict": {}}, path)
    refused("is a network for cnn-irwnha, not for sir", methods.load, "sir", path)
    torch.save({"meta": meta | {"method": "sir"}, "state_dict": {}}, path)
    refused("is a network for sir, not for delf", methods.load, "delf", path)
    refused("has no trunk", methods.load, "sir", path)


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_executes_nothing(tmp_path, zipped):
    mark = tmp_path / "mark"
    path = tmp_path / "network.pth"
    data = {"meta": {"architecture": "resnet18"}, "state_dict": {}, "x": Bomb(mark)}
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    refused("not a weights file that can be read safely", methods.load, "cnn-irwnha", path)
    assert not mark.exists()
    path.write_bytes(pickle.dumps(Bomb(mark)))
    refused("not a weights file that can be read safely", methods.load, "cnn-irwnha", path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists(), "the bomb itself works, or this test shows nothing"


def network(**changes):
    """The smallest file that passes for a network of cirtorch before its trunk is built."""
    meta = {"architecture": "resnet18", "pooling": "gem", "mean": [0.5] * 3, "std": [0.2] * 3}
    state = {"features.0.weight": torch.zeros(2), "pool.p": torch.full((1,), 3.0)}
    return {"meta": meta, "state_dict": state} | changes


def meta(**changes):
    return network(meta=network()["meta"] | changes)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (network()["state_dict"], "not a cirtorch network: it lacks meta or state_dict"),
        ([1, 2], "lacks meta or state_dict"),
        (torch.zeros(3), "lacks meta or state_dict"),
        (network(meta=[1]), "wrong meta or state_dict"),
        (network(state_dict=[torch.zeros(1)]), "wrong meta or state_dict"),
        (network(state_dict={"features.0.weight": 3}), "wrong meta or state_dict"),
        (network(state_dict={5: torch.zeros(1)}), "wrong meta or state_dict"),
        (network(state_dict={"pool.p": torch.tensor([float("nan")])}), "not numbers"),
        *(
            (
                network(state_dict={"features.0.weight": odd, "pool.p": odd}),
                "wrong meta or state_|safely",
            )
            for odd in (
                torch.zeros(3, 3).to_sparse(),
                torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
                torch.zeros(3).to(torch.float8_e4m3fn),
                torch.zeros(1).expand(10**12),
                torch.zeros(3, device="meta"),
                torch.zeros(3, dtype=torch.complex64),
                torch._neg_view(torch.zeros(3)),
            )
        ),
        (meta(architecture=None), "does not say its architecture and pooling"),
        (meta(pooling=3), "does not say its architecture and pooling"),
        (meta(mean=0.5), "mean and std"),
        (meta(mean=[0.5]), "mean and std"),
        (meta(mean=["a", "b", "c"]), "mean and std"),
        (meta(std=[0.0, 0.0, 0.0]), "mean and std"),
        (meta(std=[float("nan")] * 3), "mean and std"),
        (meta(architecture="resnet999"), "Unknown trunk 'resnet999'"),
        (network(), "do not fit this network: .* tensors are missing"),
    ],
)
def test_files_that_are_no_network_are_refused(tmp_path, data, words):
    path = tmp_path / "network.pth"
    torch.save(data, path)
    refused(words, methods.load, "cnn-irwnha", path)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_tensors_are_read_as_torch_reads_them(tmp_path, kind, new):
    numbers = torch.arange(24).to(getattr(torch, kind)).reshape(2, 3, 4)
    tensors = {
        "whole": numbers,
        "turned": numbers.permute(2, 0, 1),
        "part": numbers[1, 1:],
        "one": numbers[0, 0, 3],
        "none": numbers[:0],
        "again": numbers,
    }
    path = tmp_path / "network.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=new)
    read, expected = weights.read_tensors(path), torch.load(path)
    assert list(read) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(read[name], tensor)
        assert (read[name].dtype, read[name].stride()) == (tensor.dtype, tensor.stride())
    assert read["again"].data_ptr() == read["whole"].data_ptr()


def test_a_compressed_file_is_refused(tmp_path):
    """Two megabytes of zeros unpack to two gigabytes; torch packs nothing."""
    path = tmp_path / "bomb.pth"
    torch.save({"meta": {}, "state_dict": {"features.0.weight": torch.zeros(1000)}}, path)
    with zipfile.ZipFile(path) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert "state_dict" in torch.load(path), "torch reads it"
    refused("not a weights file that can be read safely", weights.read_tensors, path)


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_in_another_order_of_bytes_are_refused(tmp_path, zipped):
    """They would be read as other numbers."""
    path, other = tmp_path / "little.pth", tmp_path / "big.pth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    if zipped:
        with zipfile.ZipFile(path) as little, zipfile.ZipFile(other, "w") as big:
            for name in little.namelist():
                is_order = name.endswith("byteorder")
                big.writestr(name, b"big" if is_order else little.read(name))
    else:
        data = path.read_bytes()
        at = data.index(b"little_endian")
        at = data.index(b"\x88", at)  # True, in a pickle
        other.write_bytes(data[:at] + b"\x89" + data[at + 1 :])
    assert weights.read_tensors(path)["a"].tolist() == [1, 1]
    refused("not a weights file that can be read safely", weights.read_tensors, other)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "network.pth"
    torch.save(network(), path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"<html></html>", bytes(5000)):
        path.write_bytes(data)
        refused("network.pth is not a weights file", methods.load, "cnn-irwnha", path)


@pytest.mark.skipif(not NETWORK.is_file(), reason="the reference network is not here")
def test_a_network_of_cirtorch_is_described_by_its_meta(tmp_path):
    record = checkpoints.find("cnn-irwnha", NETWORK)
    assert record.id == "cirtorch-resnet18-gem-w"
    assert record.trunk == "resnet18"
    assert record.settings["size"] == 1024
    weights = checkpoints.load(record)
    assert weights.head["pool.p"] == pytest.approx(2.82, abs=0.01)
    assert weights.head["whiten.weight"].shape == (512, 512)
    assert all(key.startswith("features.") for key in weights.trunk)
    # The record was made from other bytes than the file now has.
    tampered = tmp_path / "network.pth"
    data = torch.load(NETWORK, weights_only=True)
    data["state_dict"]["pool.p"] += 1
    torch.save(data, tampered)
    refused("SHA-256", checkpoints.load, replace(record, file=tampered))
    tampered.unlink()
    refused("cannot be read: No such file", checkpoints.load, replace(record, file=tampered))


def test_tampered_embedded_weights_are_refused(tmp_path):
    record = checkpoints.find("sir")
    copy = tmp_path / "weights.pth"
    shutil.copy(record.path, copy)
    assert weights.read_tensors(copy, record.weights_sha256)
    with open(copy, "r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    refused("SHA-256", weights.read_tensors, copy, record.weights_sha256)


def rewritten(path, record, change):
    """A registered file with other tensors, and its record, which vouches for it."""
    data = torch.load(record.path, weights_only=True)
    change(data)
    torch.save(data, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(record, file=path, weights_sha256=digest)


@pytest.mark.parametrize("method", ["sir", "delf"])
def test_weights_that_do_not_fit_their_trunk_are_refused(tmp_path, method):
    record = checkpoints.find(method)
    path = tmp_path / "net.pth"
    good = {
        name: value
        for name, value in torch.load(record.path, weights_only=True)["state_dict"].items()
        if not name.startswith("features.")
    }
    matrices = [name for name in good if good[name].ndim == 2]
    assert len(matrices) == {"sir": 1, "delf": 3}[method]
    for name, value in good.items():
        bad = [None, value[:0]]
        bad += [value[:, 1:], value.T, value[..., None]] if name in matrices else [value[1:]]
        for other in bad:

            def change(data, name=name, other=other):
                data["state_dict"].pop(name)
                if other is not None:
                    data["state_dict"][name] = other

            changed = rewritten(path, record, change)
            refused("train them again", methods.load_record, changed)
    nan = rewritten(
        path, record, lambda data: next(iter(data["state_dict"].values())).fill_(torch.nan)
    )
    refused("not numbers", methods.load_record, nan)


def test_a_file_without_a_trunk_takes_that_of_the_registered_checkpoint(tmp_path):
    record = checkpoints.find("sir")
    path = tmp_path / "net.pth"
    assert methods.load_record(rewritten(path, record, lambda data: None))
    for trunk, words in [
        (None, "has no trunk"),
        ({"checkpoint": "/etc/passwd", "sha256": ""}, "none that is registered"),
        ({"checkpoint": "efficientnet-lite0", "sha256": "0" * 64}, "another efficientnet-lite0"),
    ]:
        changed = rewritten(
            path, record, lambda data, trunk=trunk: data["meta"].update(trunk=trunk)
        )
        refused(words, methods.load_record, changed)


def test_embedded_weights_have_what_their_records_state():
    for record in checkpoints.REGISTRY.values():
        if record.file is None:
            continue
        made = json.loads(record.file.with_suffix(".json").read_text("utf-8"))
        meta = torch.load(record.file, weights_only=True)["meta"]
        assert hashlib.sha256(record.file.read_bytes()).hexdigest() == record.sha256
        made.pop("note", None)  # what became known after the file was written
        assert meta["trained"] == made
        assert meta["method"] == record.method
        settings = {**record.settings, "trained_attention": True}
        if record.method == "cnn-irwnha":  # searched with larger pictures than it learned from
            assert settings.pop("size") > meta["settings"].pop("size")
        assert meta["settings"].items() <= settings.items()
        assert made["command"].startswith(f"python -m retrieval train {record.method} training")
        assert (made["pictures"], made["labels"]) == (4242, "landmark")
        assert "4,242 photographs" in record.trained_on or "the same as" in record.trained_on
        assert record.overlap.startswith("none")


def test_missing_weights_are_refused_with_the_command_that_downloads_them(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path))
    record = checkpoints.REGISTRY["resnet50-imagenet"]
    for name in (record.id, "delf-tfhub"):
        refused(f"download {name}", checkpoints.REGISTRY[name].require)
    record.path.parent.mkdir(parents=True)
    record.path.touch()
    assert record.available


def test_a_place_that_cannot_be_looked_into_holds_no_weights(monkeypatch):
    monkeypatch.setenv("RETRIEVAL_DATA", "/" + "d" * 300)  # an error, as without rights
    assert all(record.available == (not record.address) for record in checkpoints.REGISTRY.values())
    monkeypatch.setenv("TFHUB_CACHE_DIR", "/" + "d" * 300)
    refused("download delf-tfhub", checkpoints.REGISTRY["delf-tfhub"].require)
