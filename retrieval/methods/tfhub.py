"""DELF out of a TensorFlow SavedModel with the signature of https://tfhub.dev/google/delf/1.

The pyramid, the attention, the suppression and the PCA are all in the module (Noh et al., ICCV
2017). This class gives it pictures and maps its features to pixels of the original picture. The
module runs in a process of its own, see ``saved_model``: if it computes for ever, fills the memory
or crashes, only that process ends. (TensorFlow and torch in one process would also crash if
TensorFlow is loaded before triton.)
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval import images, processes, workers
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.methods import saved_model
from retrieval.methods.base import LocalFeatures, Method
from retrieval.networks import checkpoints

PATIENCE = 600  # seconds for one picture, and to open the module
MEMORY = 6_000_000_000  # bytes that the process may have, 0.8 GB of them TensorFlow


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
        self.program = _program(checkpoint.require().resolve(), checkpoint.sha256)

    def describe(self, picture: Image.Image, box: Box | None = None) -> LocalFeatures:
        workers.move_to_slow_workers()  # the module may take as long as PATIENCE
        # The module normalises for itself: pixels go in as 0 to 1, (H, W, 3).
        pixels = self._input(picture, box)[0].permute(1, 2, 0).numpy()
        height, width = pixels.shape[:2]
        left, top, right, bottom = images.cut_out(box, picture.size)
        values = {
            "image": np.ascontiguousarray(pixels),
            "score_threshold": self.settings["min_score"],
            "image_scales": self.settings["scales"],
            "max_feature_num": self.settings["keypoints"],
        }
        outputs = self.program.ask(values)
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            locations, scales, scores, descriptors = (
                outputs[key].astype(np.float32) for key in saved_model.OUTPUTS
            )
        scales, scores = scales.ravel(), scores.ravel()
        if (
            locations.shape != (len(scores), 2)
            or descriptors.ndim != 2
            or not descriptors.shape[1]  # FAISS would divide by it and crash
            or not len(scales) == len(scores) == len(descriptors)
            or not all(
                np.isfinite(array).all() for array in (locations, scales, scores, descriptors)
            )
        ):
            raise RetrievalError(
                f"The SavedModel {self.program.path} gives no valid features. Use that of TF Hub: "
                "python -m retrieval download delf-tfhub."
            )
        # A module may give more than it was asked for.
        order = np.argsort(-scores, kind="stable")[: self.settings["keypoints"]]
        # (y, x) in pixels of the input → (x, y) in pixels of the original picture
        points = locations[order, ::-1] * [(right - left) / width, (bottom - top) / height]
        points += np.array([left, top])
        descriptors = descriptors[order]
        lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
        arrays = (points, scales[order], scores[order], descriptors / np.maximum(lengths, 1e-12))
        return LocalFeatures(*(array.astype(np.float32) for array in arrays))


class Program:
    """A SavedModel in a process of its own, which ends with this object."""

    def __init__(self, path: Path):
        """Raises RetrievalError for a SavedModel that cannot be used."""
        self.path = path
        self.turn = threading.Lock()
        self._start()

    def ask(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs of the module for these inputs, by name.

        Raises RetrievalError where it fails, or where the process had to be ended.
        """
        with self.turn:
            if self.process.poll() is not None:
                self._start()
            with contextlib.suppress(BrokenPipeError):
                saved_model.send(processes.pipes(self.process)[0], values)
            return self._answer()

    def _start(self) -> None:
        self.process = processes.start(
            saved_model.__name__, str(self.path), str(PATIENCE), str(MEMORY)
        )
        weakref.finalize(self, processes.end, self.process)
        self._answer()

    def _answer(self) -> dict[str, np.ndarray]:
        answer = saved_model.receive(processes.pipes(self.process)[1])
        if answer is None:
            processes.end(self.process)
            raise RetrievalError(
                f"The SavedModel {self.path} was ended: it crashed, or took more than "
                f"{PATIENCE / 60:.0f} minutes or {MEMORY / 1e9:.0f} GB. Try a smaller size, or use "
                "that of TF Hub: python -m retrieval download delf-tfhub."
            )
        if "error" in answer:
            raise RetrievalError(str(answer["error"]))
        return answer


# The settings of a method go in with each picture: those that differ in them share the process.
_program = functools.lru_cache(maxsize=1)(lambda path, sha256: Program(path))
