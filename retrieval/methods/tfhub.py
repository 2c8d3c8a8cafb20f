"""DELF out of a TensorFlow SavedModel with the signature of https://tfhub.dev/google/delf/1.

The pyramid, the attention, the suppression and the PCA are all in the module (Noh et al., ICCV
2017); here pictures go in and features come out in pixels of the original picture.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from retrieval import images
from retrieval.errors import RetrievalError
from retrieval.methods.base import LocalFeatures, Method
from retrieval.networks import checkpoints

# A SavedModel is a graph that TensorFlow runs. These operations reach beyond tensors, and no
# feature extractor needs them.
REFUSED = {
    "ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc",
    "LoadAndRemapMatrix", "LoadLibrary",
}  # fmt: skip
INPUTS = {"image", "score_threshold", "image_scales", "max_feature_num"}


def tensorflow():
    """TensorFlow, after torchvision: the other way round, triton crashes the process.

    Every path to TensorFlow goes through here. It takes seconds the first time.
    """
    import torchvision  # noqa: F401

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings about missing GPUs
    import tensorflow

    return tensorflow


class HubDELF(Method):
    """DELF as its authors published it."""

    name = "delf"
    title = "DELF"
    kind = "local"
    # The scales as the module's page states them; min_score is its ``score_threshold``.
    defaults = {
        "size": 1024,
        "scales": [0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0],
        "keypoints": 1000,
        "min_score": 100.0,
    }

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings):
        super().__init__(checkpoint, **settings)
        path = checkpoint.require()
        checkpoint.sha256  # noqa: B018  refuses what is not the registered file
        self.tf = tensorflow()
        _check_graph(path)
        # Modules of TF1 Hub are stored without a tag, and the loader wants to be told.
        tags = [] if (path / "tfhub_module.pb").is_file() else None
        try:
            # The variables live as long as the module does.
            self.module = self.tf.saved_model.load(str(path), tags=tags)
            self.extract = self.module.signatures["default"]
            inputs = set(self.extract.structured_input_signature[1])
        except Exception as error:  # TensorFlow raises many kinds
            raise RetrievalError(f"{path} is not a SavedModel that can be used.") from error
        if inputs != INPUTS:
            raise RetrievalError(
                f"The SavedModel {path} takes {', '.join(sorted(inputs))}; DELF of TF Hub takes "
                f"{', '.join(sorted(INPUTS))}."
            )

    def describe(self, picture, box=None):
        # The module normalises for itself: pixels go in as 0 to 1, (H, W, 3).
        pixels = self._input(picture, box)[0].permute(1, 2, 0).numpy()
        height, width = pixels.shape[:2]
        left, top, right, bottom = (0, 0, *picture.size)
        if box is not None:
            left, top, right, bottom = map(round, images.check_box(box, picture.size))
        constant = self.tf.constant
        found = self.extract(
            image=constant(np.ascontiguousarray(pixels)),
            score_threshold=constant(float(self.settings["min_score"])),
            image_scales=constant(np.float32(self.settings["scales"])),
            max_feature_num=constant(int(self.settings["keypoints"])),
        )
        found = {name: value.numpy() for name, value in found.items()}
        try:
            locations, descriptors = found["locations"], found["descriptors"]
            scales, scores = found["scales"].ravel(), found["scores"].ravel()
        except KeyError as error:
            raise RetrievalError(
                f"The SavedModel of {self.checkpoint.id} gives {', '.join(found)}, but no {error}."
            ) from error
        order = np.argsort(-scores, kind="stable")
        # (y, x) in pixels of the input → (x, y) in pixels of the original picture
        points = locations[order, ::-1] * [(right - left) / width, (bottom - top) / height]
        points += np.array([left, top])
        descriptors = descriptors[order]
        lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
        arrays = (points, scales[order], scores[order], descriptors / np.maximum(lengths, 1e-12))
        return LocalFeatures(*(array.astype(np.float32) for array in arrays))


def _check_graph(path: Path) -> None:
    """Refuse a graph that touches files or calls Python."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise RetrievalError(f"{path} is not a SavedModel that can be read.") from error
    for graph in (meta.graph_def for meta in model.meta_graphs):
        nodes = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
        refused = sorted({node.op for node in nodes} & REFUSED)
        if refused:
            raise RetrievalError(f"The SavedModel {path} is refused: it uses {', '.join(refused)}.")
