"""DELF out of a SavedModel with the signature of TF Hub's, built here. TensorFlow takes seconds.

Our reader runs a part of the file. It is held against tensorflow-hub, which runs all of it.
"""

import hashlib
import os
import shutil
import sys
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrieval import methods
from retrieval.errors import RetrievalError
from retrieval.methods import saved_model, tfhub
from retrieval.methods.saved_model import _needed, tensorflow
from retrieval.networks import checkpoints
from retrieval.workers import Workers, in_slow_workers

pytestmark = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)
CELL = 16  # pixels of a level that one feature averages


@pytest.fixture(scope="module")
def tf():
    return tensorflow()


@pytest.fixture(scope="module")
def saved(tf, tmp_path_factory):
    """Bright cells are the features: known places, scores and descriptors."""

    class Bright(tf.Module):
        def __init__(self):
            super().__init__()
            self.matrix = tf.Variable(np.eye(3, 40, dtype=np.float32) * 5)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, 3], tf.float32, name="image"),
                tf.TensorSpec([], tf.float32, name="score_threshold"),
                tf.TensorSpec([None], tf.float32, name="image_scales"),
                tf.TensorSpec([], tf.int32, name="max_feature_num"),
            ]
        )
        def extract(self, image, score_threshold, image_scales, max_feature_num):
            tf.debugging.assert_less_equal(image, 1.0)
            places, colours, scales = tf.zeros([0, 2]), tf.zeros([0, 3]), tf.zeros([0])
            for scale in image_scales:
                tf.autograph.experimental.set_loop_options(
                    shape_invariants=[
                        (places, tf.TensorShape([None, 2])),
                        (colours, tf.TensorShape([None, 3])),
                        (scales, tf.TensorShape([None])),
                    ]
                )
                size = tf.cast(tf.cast(tf.shape(image)[:2], tf.float32) * scale, tf.int32)
                cells = tf.nn.avg_pool2d(tf.image.resize(image[None], size), CELL, CELL, "VALID")[0]
                rows, columns = tf.meshgrid(
                    tf.range(tf.shape(cells)[0]), tf.range(tf.shape(cells)[1]), indexing="ij"
                )
                grid = tf.cast(tf.reshape(tf.stack([rows, columns], -1), [-1, 2]), tf.float32)
                places = tf.concat([places, (grid + 0.5) * CELL / scale], 0)
                colours = tf.concat([colours, tf.reshape(cells, [-1, 3])], 0)
                scales = tf.concat([scales, tf.fill([tf.shape(grid)[0]], scale)], 0)
            scores = 1000 * tf.reduce_mean(colours, 1)
            kept = tf.where(scores > score_threshold)[:max_feature_num, 0]
            return {
                "locations": tf.gather(places, kept),
                "scales": tf.gather(scales, kept),
                "scores": tf.gather(scores, kept)[:, None],  # as attention comes: (N, 1)
                "descriptors": tf.gather(colours, kept) @ self.matrix,
            }

    module = Bright()
    path = tmp_path_factory.mktemp("hub") / "bright"
    tf.saved_model.save(module, str(path), signatures={"default": module.extract})
    return path


@pytest.fixture
def picture():
    """400 × 300, black, with a red square around (296, 104) and a dimmer green one at (56, 216)."""
    picture = Image.new("RGB", (400, 300))
    picture.paste((255, 0, 0), (272, 80, 320, 128))
    picture.paste((0, 200, 0), (32, 192, 80, 240))
    return picture


def test_places_scores_and_descriptors(saved, picture):
    delf = methods.load("delf", saved, scales=[0.5, 1.0])
    assert delf.settings["min_score"] == 100.0
    assert delf.settings["keypoints"] == 1000
    found = delf.describe(picture)
    assert found.keypoints.dtype == found.descriptors.dtype == np.float32
    assert found.descriptors.shape == (len(found), 40)
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.shape == found.scales.shape == (len(found),)
    assert set(found.scales.tolist()) == {0.5, 1.0}
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-6)
    red = found.descriptors[:, 0] > 0.99
    green = found.descriptors[:, 1] > 0.99
    assert (red | green).all()
    assert red[0]  # the brighter first
    # (x, y), not (y, x): every keypoint lies on its square.
    assert (np.abs(found.keypoints[red] - [296, 104]).max(axis=1) <= 24).all()
    assert (np.abs(found.keypoints[green] - [56, 216]).max(axis=1) <= 24).all()
    assert len(delf.describe(Image.new("RGB", (400, 300)))) == 0


@pytest.mark.parametrize("size", [400, 200, 100])
def test_keypoints_of_crops_are_in_pixels_of_the_picture(saved, picture, size):
    delf = methods.load("delf", saved, size=size, scales=[2.0])
    box = (200, 20, 392, 180)
    found = delf.describe(picture, box)
    assert len(found)
    error = np.abs(found.keypoints - [296, 104]).max(axis=1)
    # Half the square and half a cell, which grows as the input shrinks.
    assert (error <= 24 + CELL / 4 * 400 / size).all()
    assert found.keypoints.mean(axis=0) == pytest.approx([296, 104], abs=6)


def test_settings_reach_the_module(saved, picture):
    few = methods.load("delf", saved, keypoints=3)
    assert len(few.describe(picture)) == 3
    none = methods.load("delf", saved, min_score=900.0)
    assert len(none.describe(picture)) == 0
    assert none.describe(picture).descriptors.shape == (0, 40)


def test_quick_searches_do_not_wait_for_a_module(saved, picture, monkeypatch):
    delf = methods.load("delf", saved, size=100, scales=[1.0])
    ask, slowly = delf.program.ask, []
    monkeypatch.setattr(
        delf.program, "ask", lambda values: slowly.append(in_slow_workers()) or ask(values)
    )
    quick = Workers(1, 9, slow=Workers(1, 9))
    assert len(quick.submit("a", lambda: delf.describe(picture)).result(60))
    assert slowly == [True]


def test_index_and_search(saved, picture, tmp_path):
    from retrieval import index as indexes
    from retrieval.collections import open_collection
    from retrieval.ranking.search import rank_picture

    folder = tmp_path / "pictures"
    folder.mkdir()
    picture.save(folder / "a.png")
    Image.new("RGB", (200, 200), "blue").save(folder / "b.png")
    delf = methods.load("delf", saved)
    index = indexes.build(open_collection(folder), delf, tmp_path / "index")
    assert index.manifest["checkpoint"] == {"id": "bright", "sha256": delf.checkpoint.sha256}
    ranking = rank_picture(index, methods.for_index(index, saved), picture)
    assert ranking.names[0] == "a.png"


def test_cache_of_tensorflow_hub(saved, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(RetrievalError, match="python -m retrieval download delf-tfhub"):
        methods.load("delf", "delf-tfhub")
    (tmp_path / "cache").mkdir()
    name = hashlib.sha1(b"https://tfhub.dev/google/delf/1").hexdigest()
    (tmp_path / "cache" / name).symlink_to(saved)
    assert checkpoints.REGISTRY["delf-tfhub"].available
    assert len(methods.load("delf", "delf-tfhub").describe(picture))


def test_other_signatures_are_refused(tf, tmp_path):
    class Other(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8, name="input_image")])
        def extract(self, input_image):
            return {"boxes": tf.cast(input_image, tf.float32)}

    module = Other()
    tf.saved_model.save(module, str(tmp_path / "other"), signatures={"default": module.extract})
    with pytest.raises(RetrievalError, match="takes input_image, not image"):
        methods.load("delf", tmp_path / "other")
    with pytest.raises(
        RetrievalError, match="works with DELF only, not with sir: use --method delf"
    ):
        methods.load("sir", tmp_path / "other")


SIGNATURE = {
    "image": ([None, None, 3], "float32"),
    "score_threshold": ([], "float32"),
    "image_scales": ([None], "float32"),
    "max_feature_num": ([], "int32"),
}


def save_1(tf, path, main_op=None):
    """A module as TensorFlow 1 saves it, like that of DELF: one feature, its place a variable."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs = {
            key: tf.compat.v1.placeholder(kind, shape, key)
            for key, (shape, kind) in SIGNATURE.items()
        }
        place = tf.compat.v1.get_variable("place", initializer=[[30.0, 40.0]], use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        outputs = {
            "locations": place + 0 * inputs["score_threshold"],
            "scales": inputs["image_scales"][:1],
            "scores": tf.reduce_max(inputs["image"])[None],
            "descriptors": tf.one_hot([7], 40),
        }
        builder = tf.compat.v1.saved_model.Builder(str(path))
        info = tf.compat.v1.saved_model.build_tensor_info
        signature = tf.compat.v1.saved_model.build_signature_def(
            {key: info(value) for key, value in inputs.items()},
            {key: info(value) for key, value in outputs.items()},
        )
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"default": signature}, main_op=main_op and main_op()
        )
        builder.save()
    return path


def test_without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it was not installed
    with pytest.raises(RetrievalError, match=r"needs TensorFlow.* with Python 3\.13"):
        tensorflow()


def test_a_module_of_tensorflow_1(tf, picture, tmp_path):
    found = methods.load("delf", save_1(tf, tmp_path / "old"), scales=[0.5, 1.0]).describe(picture)
    np.testing.assert_allclose(found.keypoints, [[40, 30]])  # (x, y)
    assert found.scores.tolist() == [1.0]
    assert found.scales.tolist() == [0.5]
    assert found.descriptors[0, 7] == 1


@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
def test_numbers_are_those_of_tensorflow_hub(tf, saved, picture):
    import tensorflow_hub as hub

    delf = methods.load("delf", saved, scales=[0.5, 1.0], size=400)
    expected = hub.load(str(saved)).signatures["default"](
        image=tf.constant(np.asarray(picture, np.float32) / 255),
        score_threshold=tf.constant(100.0),
        image_scales=tf.constant([0.5, 1.0]),
        max_feature_num=tf.constant(1000),
    )
    order = np.argsort(-expected["scores"].numpy().ravel(), kind="stable")
    found = delf.describe(picture)
    np.testing.assert_allclose(found.keypoints, expected["locations"].numpy()[order, ::-1])
    np.testing.assert_allclose(found.scores, expected["scores"].numpy()[order, 0], rtol=1e-6)


def spy(tf, path, extract):
    """A SavedModel of DELF's signature whose function is ``extract(image)``."""

    class Spy(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec(shape, kind, name=key) for key, (shape, kind) in SIGNATURE.items()
            ]
        )
        def extract(self, image, score_threshold, image_scales, max_feature_num):
            found = tf.cast(extract(image), tf.float32)
            return dict.fromkeys(("locations", "scales", "scores", "descriptors"), found)

    module = Spy()
    tf.saved_model.save(module, str(path), signatures={"default": module.extract})
    return path


def test_graphs_that_touch_files_are_refused(tf, tmp_path):
    mark = tmp_path / "mark"

    def printed(image):
        tf.print("written", output_stream=f"file://{mark}")
        return image

    def read(image):
        lines = tf.data.TextLineDataset("/etc/hostname")
        return lines.reduce(0, lambda count, line: count + tf.strings.length(line))

    def written(image):
        tf.raw_ops.SaveV2(
            prefix=str(mark), tensor_names=["a"], shape_and_slices=[""], tensors=[image]
        )
        return image

    def in_a_branch(image):
        return tf.cond(tf.size(image) > 0, lambda: printed(image), lambda: image)

    def by_python(image):
        return tf.py_function(lambda x: x, [image], tf.float32)

    for number, (attack, name) in enumerate(
        (
            (lambda image: tf.io.read_file("/etc/hostname"), "ReadFile"),
            (printed, "PrintV2"),
            (in_a_branch, "PrintV2"),
            (read, "TextLineDataset"),
            (written, "SaveV2"),
            (by_python, "EagerPyFunc"),
            (lambda image: tf.raw_ops.RestoreV2(
                prefix="/etc/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
            )[0], "RestoreV2"),
        )
    ):  # fmt: skip
        path = spy(tf, tmp_path / str(number), attack)
        with pytest.raises(RetrievalError, match=rf"refused: it uses .*\b{name}\b"):
            saved_model.opened(path)
        assert not mark.exists()
    (path / "saved_model.pb").write_bytes(b"<html>")
    with pytest.raises(RetrievalError, match="SavedModel that can be read"):
        saved_model.opened(path)


@pytest.mark.parametrize("place", ["branch", "handed on", "default"])
def test_operations_in_place_of_functions(tf, tmp_path, place):
    """TensorFlow made WriteFile of a branch that calls a function of this name: a file was written.

    Names are looked for wherever TensorFlow takes them from.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    def extract(image):
        return tf.cond(tf.size(image) > 0, lambda: image, lambda: image * 2)

    path = spy(tf, tmp_path / "spy", extract)
    saved_model.opened(path)
    model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    functions = model.meta_graphs[0].graph_def.library.function
    nodes = [node for one in functions for node in one.node_def if node.op == "StatelessIf"]
    for branch in (node.attr["then_branch"].func for node in nodes):
        if place == "branch":
            branch.name = "WriteFile"
        elif place == "handed on":
            branch.attr["a"].func.name = "WriteFile"
        else:
            called = next(one for one in functions if one.signature.name == branch.name)
            called.signature.attr.add(name="a", type="func").default_value.func.name = "WriteFile"
    (path / "saved_model.pb").write_bytes(model.SerializeToString())
    with pytest.raises(RetrievalError, match="refused: it uses WriteFile,"):
        saved_model.opened(path)


def test_long_names(tf, tmp_path):
    """Refused in full, an operation of 200 MB took 2.4 GB outside of the process for it."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel()
    graph = model.meta_graphs.add()
    graph.graph_def.node.add(name="a", op="Q" * 5000)
    for key in saved_model.INPUTS:
        graph.signature_def["default"].inputs[key].name = "a"
    for key in saved_model.OUTPUTS:
        graph.signature_def["default"].outputs[key].name = "a"
    for words in ("uses Q{1000},", "takes Q{1000}, not "):
        (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
        with pytest.raises(RetrievalError, match=words):
            saved_model.opened(tmp_path)
        graph.signature_def["default"].inputs["Q" * 5000].name = "a"


def test_initialisers_are_not_run(tf, picture, tmp_path):
    mark = tmp_path / "mark"
    path = save_1(tf, tmp_path / "old", lambda: tf.io.write_file(str(mark), "written"))
    assert len(methods.load("delf", path).describe(picture)) == 1
    assert not mark.exists()
    tf.saved_model.load(str(path))
    assert mark.exists(), "the attack itself works, or this test shows nothing"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes on Windows")
def test_a_pipe_among_the_variables(saved, tmp_path):
    """A reader of it would wait for ever."""
    path = shutil.copytree(saved, tmp_path / "module")
    os.mkfifo(path / "variables" / "variables.data-00001-of-00002")
    with pytest.raises(RetrievalError, match="is not a SavedModel that can be used"):
        saved_model.opened(path)


def test_features_that_are_none(tf, picture, tmp_path):
    class Few(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec(shape, kind, name=key) for key, (shape, kind) in SIGNATURE.items()
            ]
        )
        def extract(self, image, score_threshold, image_scales, max_feature_num):
            return {"locations": image, "scales": image, "scores": image}

    module = Few()
    tf.saved_model.save(module, str(tmp_path / "few"), signatures={"default": module.extract})
    with pytest.raises(RetrievalError, match="does not give descriptors"):
        saved_model.opened(tmp_path / "few")


def test_a_module_that_gives_more_than_it_was_asked_for(tf, picture, tmp_path):
    class Many(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec(shape, kind, name=key) for key, (shape, kind) in SIGNATURE.items()
            ]
        )
        def extract(self, image, score_threshold, image_scales, max_feature_num):
            found = tf.ones([5000, 2]) * tf.reduce_max(image)
            return dict.fromkeys(("locations", "descriptors"), found) | dict.fromkeys(
                ("scales", "scores"), found[:, 0]
            )

    module = Many()
    tf.saved_model.save(module, str(tmp_path / "many"), signatures={"default": module.extract})
    assert len(methods.load("delf", tmp_path / "many", keypoints=20).describe(picture)) == 20


def test_a_module_that_never_ends_or_takes_the_memory(tf, tmp_path, monkeypatch):
    """Only its own process ends, and the next picture gets a new one."""
    monkeypatch.setattr(tfhub, "PATIENCE", 5)
    monkeypatch.setattr(tfhub, "MEMORY", 3_000_000_000)

    def endless(image):  # it takes minutes, so that this test ends also where nobody ends it
        return tf.while_loop(lambda n: n < 1.6e7, lambda n: [n + 1.0], [tf.reduce_max(image)])[0]

    def large(image):
        rows = tf.cast(tf.reduce_max(image) * 1e6, tf.int32)
        return tf.reduce_sum(tf.fill([rows, 40_000], 1.0))

    wrong = (
        (lambda image: tf.zeros([1, 2]), "gives no valid features"),
        (lambda image: tf.reshape(image, [1, 2, 3]), "failed on this picture"),
        # 30 MB. Of 99 MB of small integers, 2.2 GB were made outside of the process.
        (lambda image: tf.tile(image, [16, 16, 1]), "failed on this picture"),
        (large, "failed on this picture|was ended"),
        (endless, "was ended: it crashed, or took more than"),
    )

    def extract(image):
        def chosen(number):
            one = partial(wrong[number][0], image)
            if number == len(wrong) - 1:
                return one()
            here = tf.reduce_max(image) * 255 < 10 * number + 5
            return tf.cond(here, one, partial(chosen, number + 1))

        return chosen(0)

    delf = methods.load("delf", spy(tf, tmp_path / "wrong", extract))
    for number, (_, words) in [*enumerate(wrong), (0, wrong[0])]:
        with pytest.raises(RetrievalError, match=words):
            delf.describe(Image.new("RGB", (60, 40), (10 * number, 0, 0)))


def test_descriptors_without_numbers(tmp_path, monkeypatch, picture):
    """FAISS divided by their length, which ended the command."""
    (tmp_path / "saved_model.pb").touch()
    shapes = {"locations": (3, 2), "scales": 3, "scores": 3, "descriptors": (3, 0)}
    outputs = {key: np.ones(shape) for key, shape in shapes.items()}
    program = SimpleNamespace(path=tmp_path, ask=lambda values: outputs)
    monkeypatch.setattr(tfhub, "_program", lambda path, sha256: program)
    with pytest.raises(RetrievalError, match="gives no valid features"):
        methods.load("delf", tmp_path).describe(picture)


def test_functions_that_call_nobody(tf):
    """The time does not grow with the square of their number, a minute for a million bytes."""
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph = GraphDef()
    for number in range(40_000):
        graph.library.function.add().signature.name = f"f{number}"
        graph.node.add(name=f"{number}", op="NoOp", input=[f"{max(number - 1, 0)}"])
    graph.node[7].op = "f8"
    needed, operations = _needed(graph, ["39999:0"])
    assert len(needed.node) == 40_000
    assert operations == {"NoOp"}
    assert [one.signature.name for one in needed.library.function] == ["f8"]
