"""Weights files that are small: what they cost is bounded, before anything of them is called."""

import collections
import io
import os
import pickle
import re
import resource
import struct
import tracemalloc
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from attack import pickled
from torchvision.models import resnet18, vgg11

from retrieval import methods
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints, weights

META = {"architecture": "resnet18", "pooling": "gem"}


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/version", "3\n")
    return file.getvalue()


TEXT = pickled.text("x" * 100_000) + pickled.text("latin1") + b"\x86q\0"
ENCODE = b"c_codecs\nencode\n"
HASHED = 2**61 - 1  # Python hashes a number as its rest after division by this
PAIRS = b"]q\0(" + (pickled.text("a") + b"K\1\x86") * 10_000 + b"e"


def refused(path, most):
    """most: kB that the refusal may take at its peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RetrievalError, match="not a weights file that can be read safely"):
        weights.read_tensors(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < most, "kB"


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\nbytearray\n" + number(2**31 - 1) + b"\x85R.",
        b"c_codecs\nencode\n"
        + b"X"
        + struct.pack("<I", 6000)
        + "水火".encode() * 1000
        + pickled.text("punycode")
        + b"\x86R.",
        b"(" + TEXT + (ENCODE + b"h\0R") * 5000 + b"t.",
        PAIRS + b"(" + b"ccollections\nOrderedDict\nh\0\x85R" * 100 + b"t.",
        # A list of numbers that was gone through at every call: 5 MB took 20 minutes.
        b"ctorch._utils\n_rebuild_parameter\nq\1("
        + b"K\1" * 10_000
        + b"tq\0]("
        + b"h\1h\0R" * 99
        + b"e.",
        b"cnumpy\ndtype\n" + pickled.text("V2000000000") + b"\x85R.",
        # A kind of number that is a list: written out, it takes half a gigabyte.
        pickled.text("x" * 100) + b"q\1" + b"](h\1h\1h\1eq\1" * 14 + b"cnumpy\ndtype\nh\1\x85R.",
        # A key is hashed: 40 tuples in one another took for ever.
        b"}" + pickled.shared_tuples(12) + b"K\1s.",
        b"ctorch\nFloatTensor\n" + number(2**30) + b"\x85R.",
        # Keys of one hash: each is compared with all before.
        b"}("
        + b"".join(b"\x8a\x0a" + (n * HASHED).to_bytes(10, "little") + b"N" for n in range(1, 2000))
        + b"u.",
        # An array of objects, whose addresses in memory are the bytes that follow.
        b"cnumpy\nndarray\n("
        + number(1)
        + b"\x85"
        + pickled.text("O")
        + ENCODE
        + pickled.text("A" * 8)
        + pickled.text("latin1")
        + b"\x86RtR.",
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_what_torch_would_call(tmp_path, content, old):
    path = tmp_path / "network.pth"
    content = b"\x80\2" + content
    head = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {}))
    path.write_bytes(head + content + b"\x80\2]." if old else zipped(content))
    refused(path, most=100_000)


DTYPE = b"cnumpy\ndtype\n" + pickled.text("f8") + b"\x89\x88\x87R"
FIELDS = b"}" + pickled.text("a") + DTYPE + number(10**8) + b"\x86s"


def array_of_type(sub, names, fields, flags):
    """A weights file with a numpy array of four numbers, whose type says this of itself."""
    least = number(-1)
    state = b"K\3" + pickled.text("<") + sub + names + fields + least + least + number(flags)
    raw = ENCODE + pickled.text("A" * 32) + pickled.text("latin1") + b"\x86R"
    kind = ENCODE + pickled.text("b") + pickled.text("latin1") + b"\x86R"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + kind + b"\x87R"
    array += b"(K\1K\4\x85" + DTYPE + b"(" + state + b"tb\x89" + raw + b"tb"
    return zipped(b"\x80\2" + array + b".")


def test_an_array_of_a_plain_type_is_read(tmp_path):
    path = tmp_path / "network.pth"
    path.write_bytes(array_of_type(b"N", b"N", b"N", 0))
    assert weights.read_tensors(path).shape == (4,)


@pytest.mark.parametrize(
    ("sub", "names", "fields", "flags"),
    [
        (b"N", b"N", b"N", 63),  # numbers are objects: numpy broke down, anywhere later
        (b"N", pickled.text("a") + b"\x85", FIELDS, 0),  # 100 MB behind the array
        (DTYPE + number(10**6) + b"\x85\x86", b"N", b"N", 0),  # each is a million numbers
    ],
)
def test_an_array_of_another_type_is_refused(tmp_path, sub, names, fields, flags):
    path = tmp_path / "network.pth"
    path.write_bytes(array_of_type(sub, names, fields, flags))
    refused(path, most=20_000)


def arrays_of_same_bytes(count):
    """A weights file with so many arrays of the same 8000 bytes."""
    raw = ENCODE + pickled.text("A" * 8000) + pickled.text("latin1") + b"\x86R"
    kind = ENCODE + pickled.text("b") + pickled.text("latin1") + b"\x86R"
    begin = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + kind + b"\x87R"
    arrays = (begin + b"(K\1M\xe8\3\x85" + DTYPE + b"\x89h\1tb" for _ in range(count))
    return zipped(b"\x80\2](" + raw + b"q\1" + b"".join(arrays) + b"e.")


def test_many_arrays_of_the_same_bytes_are_refused(tmp_path):
    """Each gets a copy: a thousand of a megabyte would take a gigabyte."""
    path = tmp_path / "network.pth"
    path.write_bytes(arrays_of_same_bytes(1))
    assert [one.shape for one in weights.read_tensors(path)[1:]] == [(1000,)]
    path.write_bytes(arrays_of_same_bytes(60))
    refused(path, most=100_000)


def test_one_tensor_under_many_names(tmp_path):
    """Each of them would become a copy: 0.5 MB took 3.7 GB."""
    path = tmp_path / "network.pth"
    value = torch.zeros(50_000, dtype=torch.float16)
    torch.save({"meta": META, "state_dict": {f"{n}": value for n in range(50)}}, path)
    with pytest.raises(RetrievalError, match="the same weights under several names"):
        weights.read_cirtorch(path)
    apart = {f"{n}": value.clone() for n in range(50)}
    torch.save({"meta": META, "state_dict": apart}, path)
    assert len(weights.read_cirtorch(path).head) == 50


def test_two_lists_of_files_in_one_zip(tmp_path):
    """Python finds the list before the end, torch where it is said to be: there it was packed."""
    plain, packed = io.BytesIO(), io.BytesIO()
    big = bytes(30_000_000)
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\2N.")
        archive.writestr("x/version", "3\n")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("x/data.pkl", b"\x80\2" + pickled.text(big.decode()) + b".")
        archive.writestr("x/version", "3\n")
    first, second = packed.getvalue(), plain.getvalue()
    place = struct.unpack("<I", first[-6:-2])[0]
    size = struct.unpack("<I", second[-10:-6])[0]
    listed = second[-22 - size : -22]
    end = second[-22:-6] + struct.pack("<I", place) + b"\0\0"
    path = tmp_path / "network.pth"
    path.write_bytes(first[:-22] + second[: -22 - size] + listed + end)
    refused(path, most=20_000)


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"mean": [1e19] * 3}, "are not three numbers each"),
        ({"mean": [10**400] * 3}, "wrong meta or state_dict"),
        ({"settings": [1]}, "must be a dictionary"),
        ({"whitening": torch.zeros(0)}, "wrong meta or state_dict"),
        ({"local_whitening": torch.zeros(2)}, "wrong meta or state_dict"),
        ({"trained": collections.Counter}, "Who has the network can save it again"),
    ],
)
def test_what_a_network_says_of_itself(tmp_path, meta, words):
    path = tmp_path / "network.pth"
    torch.save({"meta": META | meta, "state_dict": {"a": torch.zeros(2)}}, path)
    with pytest.raises(RetrievalError, match=words):
        checkpoints.find("cnn-irwnha", path)


@pytest.mark.parametrize("value", [float("nan"), {"a": {}}, torch.zeros(1), "\ud800"])
def test_settings_that_no_method_has(tmp_path, value):
    """They came into the manifest of an index, which was made for hours and could not be kept."""
    path = tmp_path / "network.pth"
    torch.save({"meta": META | {"settings": {"size": 64, "x": value}}, "state_dict": {}}, path)
    with pytest.raises(RetrievalError, match="CNN-IRwNHA has no setting x"):
        methods.load("cnn-irwnha", path)


def test_what_networks_are_made_of_is_read(tmp_path):
    import numpy as np

    path = tmp_path / "network.pth"
    parameter = torch.nn.Parameter(torch.rand(3))
    learned = {"m": np.arange(3.0), "P": np.eye(3, dtype=np.float32), "n": np.float64(2.5)}
    state = collections.OrderedDict(a=torch.rand(2).half(), b=parameter)
    for new in (True, False):
        torch.save(
            {"meta": META | {"Lw": learned}, "state_dict": state},
            path,
            _use_new_zipfile_serialization=new,
        )
        found = weights.read_cirtorch(path)
        assert np.array_equal(found.meta["Lw"]["m"], np.arange(3.0))
        assert found.meta["Lw"]["n"] == 2.5
        assert np.array_equal(found.head["b"], parameter.detach().numpy())
    assert re.match("PK", path.read_bytes()[:2].decode("latin1")) is None


def test_a_terabyte_of_nothing(tmp_path):
    """A tar of 502 bytes lays 5 GB on the disk, which took 8.9 GB of memory."""
    path = tmp_path / "net.pth"
    torch.save({"meta": META, "state_dict": {}}, path)
    os.truncate(path, 2**40)
    with pytest.raises(RetrievalError, match=r"net.pth is refused: weights have at most 1 GB"):
        methods.load("cnn-irwnha", path)
    module = tmp_path / "module"
    (module / "assets").mkdir(parents=True)
    (module / "saved_model.pb").touch()
    (module / "assets" / "nothing").touch()
    os.truncate(module / "assets" / "nothing", 2**40)
    with pytest.raises(RetrievalError, match=r"module is refused: weights have at most 1 GB"):
        methods.load("delf", module)


def test_a_module_of_folders_in_folders(tmp_path):
    """A thousand of them made a traceback."""
    (tmp_path / "module" / Path(*["a"] * 201)).mkdir(parents=True)
    (tmp_path / "module" / "saved_model.pb").touch()
    with pytest.raises(RetrievalError, match="module cannot be read: it has more than 200 folders"):
        methods.load("delf", tmp_path / "module")


def test_a_module_whose_variables_are_a_link(tmp_path):
    """They were in no checksum, so an index could not tell one network from another."""
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "saved_model.pb").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "module" / "variables").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RetrievalError, match="variables is a link to a folder"):
        methods.load("delf", tmp_path / "module")


def test_a_gigabyte_of_nothing(tmp_path, monkeypatch):
    """8 kB on the disk: 1.9 GB of zeros in half precision behind the trunk took 6.9 GB."""
    path, size = tmp_path / "net.pth", 50_000_000
    with open(path, "wb") as file:
        file.seek(size)
        file.write(b"x")
    with pytest.raises(RetrievalError, match=r"net.pth is refused: parts of it were never written"):
        methods.load("cnn-irwnha", path)
    state = {"whiten.weight": torch.ones(size // 2, dtype=torch.float16)}
    monkeypatch.setattr(weights, "MAX_HEAD", size // 2 - 1)
    for new in (True, False):
        torch.save({"meta": META, "state_dict": state}, path, _use_new_zipfile_serialization=new)
        tracemalloc.start()
        with pytest.raises(RetrievalError, match="layers after the trunk"):
            weights.read_cirtorch(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.5 * size


def test_layers_that_give_very_many_numbers(tmp_path):
    """They are computed at each place of a picture: 18 MB of weights took over 9 GB."""
    path = tmp_path / "net.pth"
    content = torch.load(checkpoints.REGISTRY["delf-lite0"].path, weights_only=False)
    for layer, count, words in (
        ("attention.conv1", 4097, "attention.conv1.weight of the weights gives 4,097 numbers"),
        ("attention.conv2", 2, "attention.conv2.weight gives one number, not 2"),
        ("pca", 4097, "pca.components of the weights gives 4,097 numbers"),
    ):
        weight = f"{layer}.components" if layer == "pca" else f"{layer}.weight"
        inputs = content["state_dict"][weight].shape[1]
        state = content["state_dict"] | {
            weight: torch.zeros(count, inputs),
            f"{layer}.bias": torch.zeros(count),
        }
        if layer == "attention.conv1":
            state["attention.conv2.weight"] = torch.zeros(1, count)
        torch.save(content | {"state_dict": state}, path)
        with pytest.raises(RetrievalError, match=words):
            methods.load("delf", path)


@pytest.mark.parametrize(("name", "most"), [("vgg11", 4), ("resnet18", 8)])
def test_large_networks_take_fewer_pixels(tmp_path, name, most):
    """A picture of 16 megapixels took over 9 GB with VGG, and 4.1 GB with ResNet-50."""
    path = tmp_path / "net.pth"
    if name == "vgg11":
        features = vgg11(weights=None, init_weights=False).features
    else:
        features = torch.nn.Sequential(*list(resnet18(weights=None).children())[:-2])
    values = {f"features.{key}": value for key, value in features.state_dict().items()}
    state = {key: value.nan_to_num(0, 1, -1) for key, value in values.items() if value.ndim}
    torch.save({"meta": META | {"architecture": name}, "state_dict": state}, path)
    methods.load("cnn-irwnha", path, size=1024, scales=[1.0, 2**0.5, 2**-0.5])
    with pytest.raises(RetrievalError, match=f"more than {most} megapixels at all scales"):
        methods.load("cnn-irwnha", path, size=2900)


def test_what_a_network_says_of_itself_that_python_cannot_write_out(tmp_path):
    """Numbers of 5000 digits, and lists in lists in lists."""
    nested: object = "x"
    for _ in range(100):
        nested = [nested]
    for said in (10**5000, nested):
        for meta in ({"trained": {"collection": said}}, {"settings": {"size": said}}):
            torch.save({"meta": META | meta, "state_dict": {}}, tmp_path / "net.pth")
            with pytest.raises(RetrievalError, match=r"wrong meta or state_dict|read safely"):
                methods.load("cnn-irwnha", tmp_path / "net.pth")


@pytest.mark.parametrize("times", [10, 17])
def test_a_network_that_says_the_same_again_and_again(tmp_path, times):
    """2 kB: written out, as its description is, they are megabytes; with long texts gigabytes."""
    said: object = "x" * 10
    for _ in range(times):
        said = [said, said]
    for meta in ({"trained": {"collection": said}}, {"settings": {"size": said}}):
        torch.save({"meta": META | meta, "state_dict": {}}, tmp_path / "net.pth")
        with pytest.raises(RetrievalError, match="wrong meta") if times > 10 else nullcontext():
            checkpoints.find("cnn-irwnha", tmp_path / "net.pth")


def test_what_a_network_says_is_not_nested_in_parts(tmp_path):
    """Each part was met at the top first, and the whole could not be written in an error."""
    meta = pickled.text("architecture") + pickled.text("resnet18")
    meta += pickled.text("pooling") + pickled.text("gem") + pickled.text("method")
    meta += b"j" + struct.pack("<I", 5000)
    content = pickled.nested_by_parts(5000) + b"0}(" + pickled.text("parts") + b"h\0"
    content += pickled.text("meta") + b"}(" + meta + b"u" + pickled.text("state_dict") + b"}u."
    path = tmp_path / "network.pth"
    path.write_bytes(zipped(b"\x80\2" + content))
    with pytest.raises(RetrievalError, match="not a weights file that can be read safely"):
        checkpoints.find("cnn-irwnha", path)


def test_tensors_without_numbers_and_with_a_side_beyond_all_files(tmp_path):
    path = tmp_path / "network.pth"
    torch.save({"meta": META, "state_dict": {"pool.p": torch.empty(0, 2**62)}}, path)
    with pytest.raises(RetrievalError, match="not a weights file that can be read safely"):
        checkpoints.find("cnn-irwnha", path)
    torch.save({"meta": META, "state_dict": {"pool.p": torch.empty(0, 2)}}, path)
    assert weights.read_cirtorch(path).head["pool.p"].shape == (0, 2)


@pytest.mark.parametrize("key", ["checkpoint", "sha256"])
def test_a_trunk_that_is_called_by_an_array(tmp_path, key):
    path = tmp_path / "network.pth"
    trunk = {"checkpoint": "gem-lite0", "sha256": "0"} | {key: np.zeros(2)}
    torch.save({"meta": META | {"trunk": trunk}, "state_dict": {}}, path)
    with pytest.raises(RetrievalError, match="names none that is registered"):
        methods.load("cnn-irwnha", path)


@pytest.mark.parametrize("method", ["values", "items", "keys"])
def test_dictionaries_that_hide_what_they_hold(tmp_path, method):
    state = collections.OrderedDict({"whiten.weight": torch.zeros(1).expand(10**12)})
    setattr(state, method, collections.OrderedDict)
    path = tmp_path / "network.pth"
    torch.save({"meta": META, "state_dict": state}, path)
    with pytest.raises(RetrievalError, match="not a weights file that can be read safely"):
        weights.read_cirtorch(path)


def test_attributes_that_torch_writes(tmp_path):
    path = tmp_path / "network.pth"
    state = torch.nn.Linear(2, 2).state_dict()
    assert vars(state).keys() == {"_metadata"}
    torch.save({"meta": META, "state_dict": state}, path)
    assert weights.read_cirtorch(path).head.keys() == {"weight", "bias"}


def test_what_trainings_keep_beside_the_network(tmp_path):
    """cirtorch keeps the state of the optimizer, whose keys are numbers; old ones are addresses."""
    path = tmp_path / "model_best.pth.tar"
    layer = torch.nn.Linear(2, 2)
    layer(torch.ones(2)).sum().backward()
    optimizer = torch.optim.Adam(layer.parameters())
    optimizer.step()
    kept = {"epoch": 3, "optimizer": optimizer.state_dict(), "old": {2**47: torch.ones(1)}}
    torch.save({"meta": META, "state_dict": layer.state_dict()} | kept, path)
    assert weights.read_cirtorch(path).head.keys() == {"weight", "bias"}
    assert weights.read_tensors(path)["optimizer"]["state"].keys() == {0, 1}
    torch.save({"meta": META | {"settings": {1: 2}}, "state_dict": {}}, path)
    with pytest.raises(RetrievalError, match="wrong meta"):
        weights.read_cirtorch(path)
