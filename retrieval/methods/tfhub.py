"""DELF out of a TensorFlow SavedModel with the signature of https://tfhub.dev/google/delf/1.

The pyramid, the attention, the suppression and the PCA are all in the module (Noh et al., ICCV
2017); here pictures go in and features come out in pixels of the original picture.

A SavedModel is a program. TensorFlow's own loader runs all of it, initialisers included, with
the rights of the user. Here only the part that leads from the signature's inputs to its outputs is
taken out of the file, it may consist of the operations in ``PURE`` and nothing else, and the
variables are read by us. Such a program can compute for ever, but it can neither read nor write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retrieval import images
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.methods.base import LocalFeatures, Method
from retrieval.networks import checkpoints

if TYPE_CHECKING:
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef

# Operations that turn tensors into tensors and reach nothing else: arithmetic, shapes, networks,
# resizing, loops and calls of functions made of the same.
PURE = frozenset(
    """
    Abs Add AddN AddV2 All Any ArgMax ArgMin Assert AvgPool BatchMatMul BatchMatMulV2 BatchMatMulV3
    BiasAdd BroadcastArgs BroadcastTo Bucketize Cast Ceil CheckNumerics ClipByValue Concat ConcatV2
    Const Conv2D CropAndResize Cumsum DepthwiseConv2dNative Div DivNoNan Elu EnsureShape Enter Equal
    Exit Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2
    FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual GuaranteeConst Identity IdentityN
    If InvertPermutation IsFinite IsInf IsNan L2Loss LRN LeakyRelu Less LessEqual LinSpace Log Log1p
    LogicalAnd LogicalNot LogicalOr LoopCond MatMul Max MaxPool MaxPoolV2 Maximum Mean Merge Min
    Minimum MirrorPad Mod Mul MulNoNan Neg NextIteration NoOp NonMaxSuppression NonMaxSuppressionV2
    NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NotEqual OneHot OnesLike Pack Pad
    PadV2 PartitionedCall Placeholder PlaceholderWithDefault Pow PreventGradient Prod Range Rank
    ReadVariableOp RealDiv Reciprocal RefEnter RefExit RefIdentity RefMerge RefNextIteration
    RefSwitch Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor
    ReverseSequence ReverseV2 Rint Round Rsqrt ScatterNd Select SelectV2 Selu Shape ShapeN Sigmoid
    Sign Size Slice Softmax Softplus Split SplitV Sqrt Square SquaredDifference Squeeze
    StatefulPartitionedCall StatelessIf StatelessWhile StopGradient StridedSlice Sub Sum Switch Tanh
    TensorArrayCloseV3 TensorArrayConcatV3 TensorArrayGatherV3 TensorArrayReadV3
    TensorArrayScatterV3 TensorArraySizeV3 TensorArraySplitV3 TensorArrayV3 TensorArrayWriteV3
    TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather
    TensorListGetItem TensorListLength TensorListReserve TensorListResize TensorListScatterV2
    TensorListSetItem TensorListStack Tile TopK TopKV2 Transpose TruncateDiv Unique Unpack
    VarHandleOp VarIsInitializedOp VariableV2 Where While Xdivy ZerosLike
    """.split()  # noqa: SIM905
)
VARIABLES = ("VarHandleOp", "VariableV2")
MAX_GRAPH = 500_000_000  # bytes of saved_model.pb; that of DELF has 0.6 MB beside its variables
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
        self.inputs, self.outputs, self.session = _open(path)

    def describe(self, picture: Image.Image, box: Box | None = None) -> LocalFeatures:
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
        name = self.checkpoint.id
        try:
            found = self.session.run(
                self.outputs, {self.inputs[key]: value for key, value in values.items()}
            )
            locations, descriptors = found["locations"], found["descriptors"]
            scales, scores = found["scales"].ravel(), found["scores"].ravel()
            fits = locations.shape == (len(scores), 2) and len(scales) == len(scores)
            fits = fits and descriptors.ndim == 2 and len(descriptors) == len(scores)
        except KeyError as error:
            raise RetrievalError(
                f"The SavedModel of {name} gives {', '.join(found)}, but no {error}."
            ) from error
        except Exception as error:  # TensorFlow raises many kinds
            raise RetrievalError(f"The SavedModel of {name} failed on this picture.") from error
        if not fits or not all(np.isfinite(one).all() for one in found.values()):
            raise RetrievalError(f"The SavedModel of {name} gives features that are none.")
        order = np.argsort(-scores, kind="stable")
        # (y, x) in pixels of the input → (x, y) in pixels of the original picture
        points = locations[order, ::-1] * [(right - left) / width, (bottom - top) / height]
        points += np.array([left, top])
        descriptors = descriptors[order]
        lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
        arrays = (points, scales[order], scores[order], descriptors / np.maximum(lengths, 1e-12))
        return LocalFeatures(*(array.astype(np.float32) for array in arrays))


def _open(path: Path):
    """The signature of a SavedModel: names of its inputs and outputs, and a session to run it in.

    Raises RetrievalError for files that are none, another signature, and operations that are not
    in ``PURE``. Nothing has been run by then.
    """
    tf = tensorflow()
    graph, signature = _read(path)
    inputs = {key: one.name for key, one in signature.inputs.items()}
    outputs = {key: one.name for key, one in signature.outputs.items()}
    if inputs.keys() != INPUTS:
        raise RetrievalError(
            f"The SavedModel {path} takes {', '.join(sorted(inputs))}; DELF of TF Hub takes "
            f"{', '.join(sorted(INPUTS))}."
        )
    needed = _needed(graph, [*inputs.values(), *outputs.values()])
    functions = needed.library.function
    inside = [node for one in functions for node in one.node_def]
    known = PURE | {one.signature.name for one in functions}
    refused = sorted({node.op for node in (*needed.node, *inside)} - known)
    if refused:
        raise RetrievalError(
            f"The SavedModel {path} is refused: it uses {', '.join(refused)}, and a feature "
            "extractor needs nothing but arithmetic."
        )
    try:
        with tf.Graph().as_default() as built:
            tf.import_graph_def(needed, name="")
            session = tf.compat.v1.Session(graph=built)
            _restore(tf, session, path, [node for node in needed.node if node.op in VARIABLES])
    except Exception as error:  # TensorFlow raises many kinds
        raise RetrievalError(f"{path} is not a SavedModel that can be used.") from error
    return inputs, outputs, session


def _read(path: Path):
    """The graph for serving in a SavedModel, and its signature 'default'."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        with open(path / "saved_model.pb", "rb") as file:
            model = SavedModel.FromString(file.read(MAX_GRAPH))
    except (OSError, DecodeError) as error:
        raise RetrievalError(f"{path} is not a SavedModel that can be read.") from error
    for meta in model.meta_graphs:
        # Modules of TF1 Hub are stored without a tag.
        if set(meta.meta_info_def.tags) <= {"serve"} and "default" in meta.signature_def:
            return meta.graph_def, meta.signature_def["default"]
    raise RetrievalError(f"The SavedModel {path} has no signature called default.")


def _needed(graph, tensors: list[str]):
    """The part of a graph that the tensors come from: those nodes and the functions they call."""
    nodes = {node.name: node for node in graph.node}
    functions = {one.signature.name: one for one in graph.library.function}
    found: dict[str, NodeDef] = {}
    calls: dict[str, FunctionDef] = {}
    waiting = [name.partition(":")[0] for name in tensors]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in found:
            found[name] = nodes[name]
            waiting += [one.lstrip("^").partition(":")[0] for one in nodes[name].input]
    inside = list(found.values())
    while inside:
        node = inside.pop()
        values = node.attr.values()
        called = {node.op, *(v.func.name for v in values)}
        called |= {one.name for v in values for one in v.list.func}
        for name in called:
            if name in functions and name not in calls:
                calls[name] = functions[name]
                inside += functions[name].node_def
    needed = type(graph)(versions=graph.versions)
    needed.node.extend(found.values())
    needed.library.function.extend(calls.values())
    for node in needed.node:
        node.attr.pop("_class", None)  # "beside that node", which may not be among them
        node.device = ""
    return needed


def _restore(tf, session, path: Path, variables: list) -> None:
    """Give the variables the values in the SavedModel's own checkpoint."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    if not variables:
        return
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    keys = {}  # TensorFlow 2 stores a variable under its place in the program
    if reader.has_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"):
        stored = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        keys = {one.full_name: one.checkpoint_key for n in stored.nodes for one in n.attributes}
    for node in variables:
        name = node.attr["shared_name"].s.decode() or node.name
        value = tf.compat.v1.placeholder(node.attr["dtype"].type)
        variable = session.graph.get_tensor_by_name(f"{node.name}:0")
        if node.op == "VarHandleOp":
            assign = tf.raw_ops.AssignVariableOp(resource=variable, value=value)
        else:
            assign = tf.raw_ops.Assign(ref=variable, value=value)
        session.run(assign, {value: reader.get_tensor(keys.get(name, name))})
