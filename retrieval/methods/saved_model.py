"""A SavedModel of TensorFlow with DELF's signature, run in a process of its own.

A SavedModel is a program. TensorFlow's own loader runs all of it, initialisers included, with
the rights of the user. Here only the part between the signature's inputs and outputs is used, it
may contain only the operations in ``PURE``, and our code reads the variables. Such a program can
neither read nor write files, but it can crash, compute for ever and fill the memory. So ``main``
runs it in a separate process: see ``tfhub``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from retrieval import files, processes
from retrieval.errors import RetrievalError

if TYPE_CHECKING:
    from tensorflow.core.framework.attr_value_pb2 import AttrValue
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef

# Operations that only compute tensors from tensors: arithmetic, shapes, networks, resizing, loops
# and calls of functions of such operations.
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
MAX_FEATURES = 20_000_000  # bytes; the reader needs up to 25 times as many. DELF's have 0.2 MB
INPUTS = {"image", "score_threshold", "image_scales", "max_feature_num"}
OUTPUTS = ("locations", "scales", "scores", "descriptors")


def main(path: Path, seconds: float, memory: int) -> None:
    """Open a SavedModel, then answer each picture on stdin with its features on stdout.

    The first answer is empty and says that it is open. Each further one has the arrays ``OUTPUTS``,
    or ``error``. seconds: the process ends when an answer takes longer. memory: bytes that the
    process may use.
    """
    answers = processes.answers()
    processes.limit_memory(memory)
    try:
        tensorflow()
        with _at_most(seconds):
            inputs, outputs, session = opened(path)
        send(answers, {})
    except (RetrievalError, ImportError) as error:
        send(answers, {"error": str(error)})
        return
    while (values := receive(sys.stdin.buffer)) is not None:
        with _at_most(seconds):
            try:
                feed = {inputs[key]: value for key, value in values.items()}
                features = session.run(outputs, feed)
                if any(array.dtype.kind not in "fiu" for array in features.values()):
                    raise ValueError("no numbers")
                if sum(array.nbytes for array in features.values()) > MAX_FEATURES:
                    raise ValueError("too many features")
                send(answers, features)
            except Exception:  # TensorFlow raises many kinds
                send(answers, {"error": f"The SavedModel {path} failed on this picture."})


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End the process where the block takes longer: TensorFlow cannot be interrupted."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def send(pipe: BinaryIO, arrays: Mapping[str, Any]) -> None:
    """Write arrays with their names. Raises ValueError for an array of objects."""
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    pipe.write(len(packed.getbuffer()).to_bytes(8))
    pipe.write(packed.getbuffer())
    pipe.flush()


def receive(pipe: BinaryIO) -> dict[str, np.ndarray] | None:
    """The arrays that ``send`` wrote, by name; None where the other process has ended."""
    size = pipe.read(8)
    data = pipe.read(int.from_bytes(size))
    if len(size) < 8 or len(data) < int.from_bytes(size):
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def tensorflow():
    """TensorFlow. It takes seconds the first time. Raises RetrievalError where it is missing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings about missing GPUs
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        raise RetrievalError(
            "A SavedModel needs TensorFlow, which is not installed here; for Python 3.14 there is "
            "none yet. Install the app with Python 3.13, or use another network."
        ) from error
    return tensorflow


def opened(path: Path):
    """The signature of a SavedModel: names of its inputs and outputs, and a session to run it in.

    Raises RetrievalError for other files, for another signature, and for operations that are not in
    ``PURE``. Except for reading the variables, nothing is run.
    """
    tf = tensorflow()
    graph, signature = _read(path)
    inputs = {key: tensor.name for key, tensor in signature.inputs.items()}
    if inputs.keys() != INPUTS:
        raise RetrievalError(
            f"The SavedModel {path} takes {', '.join(sorted(inputs))[:1000]}, not "
            f"{', '.join(sorted(INPUTS))}. Use that of TF Hub: python -m retrieval download "
            "delf-tfhub."
        )
    missing = [key for key in OUTPUTS if key not in signature.outputs]
    if missing:
        raise RetrievalError(
            f"The SavedModel {path} does not give {', '.join(missing)}. Use that of TF Hub: python "
            "-m retrieval download delf-tfhub."
        )
    outputs = {key: signature.outputs[key].name for key in OUTPUTS}
    needed, operations = _needed(graph, [*inputs.values(), *outputs.values()])
    refused = sorted(operations - PURE)
    if refused:
        raise RetrievalError(
            f"The SavedModel {path} is refused: it uses {', '.join(refused)[:1000]}, but a feature "
            "extractor may only compute. Use that of TF Hub: python -m retrieval download "
            "delf-tfhub."
        )
    try:
        with tf.Graph().as_default() as needed_graph:
            tf.import_graph_def(needed, name="")
            session = tf.compat.v1.Session(graph=needed_graph)
            _restore(tf, session, path, [node for node in needed.node if node.op in VARIABLES])
    except Exception as error:  # TensorFlow raises many kinds
        raise RetrievalError(
            f"{path} is not a SavedModel that can be used: use that of TF Hub, python -m retrieval "
            "download delf-tfhub."
        ) from error
    return inputs, outputs, session


def _read(path: Path):
    """The graph for serving in a SavedModel, and its signature 'default'."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        model = SavedModel.FromString(files.read(path / "saved_model.pb", MAX_GRAPH))
    except (OSError, DecodeError) as error:
        raise RetrievalError(
            f"{path} is not a SavedModel that can be read: its saved_model.pb is missing, damaged "
            "or too large. Download it again."
        ) from error
    for meta in model.meta_graphs:
        # Modules of TF1 Hub are stored without a tag.
        if set(meta.meta_info_def.tags) <= {"serve"} and "default" in meta.signature_def:
            return meta.graph_def, meta.signature_def["default"]
    raise RetrievalError(
        f"The SavedModel {path} has no signature called default. Use that of TF Hub: python -m "
        "retrieval download delf-tfhub."
    )


def _needed(graph, tensors: list[str]):
    """The part of a graph that computes the tensors: nodes, and the functions that they call.

    Also the names of all operations in it. A function that is called and not in the graph counts
    as an operation: TensorFlow would look up an operation of that name.
    """
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    needed_nodes: dict[str, NodeDef] = {}
    needed_functions: dict[str, FunctionDef] = {}
    names_to_visit = [name.partition(":")[0] for name in tensors]
    while names_to_visit:
        name = names_to_visit.pop()
        if name in nodes and name not in needed_nodes:
            needed_nodes[name] = nodes[name]
            names_to_visit += [source.lstrip("^").partition(":")[0] for source in nodes[name].input]
    nodes_to_visit = list(needed_nodes.values())
    operations: set[str] = set()
    while nodes_to_visit:
        node = nodes_to_visit.pop()
        called = {node.op, *_functions(node.attr.values())}
        operations |= called
        for name in called:
            if name in functions and name not in needed_functions:
                function = needed_functions[name] = functions[name]
                nodes_to_visit += function.node_def
                operations.update(_functions(a.default_value for a in function.signature.attr))
    needed = type(graph)(versions=graph.versions)
    needed.node.extend(needed_nodes.values())
    needed.library.function.extend(needed_functions.values())
    for node in needed.node:
        node.attr.pop("_class", None)  # "place beside node X", which may be left out
        node.device = ""
    return needed, operations - needed_functions.keys()


def _functions(values: Iterable[AttrValue]) -> Iterator[str]:
    """Names of the functions in attributes, and in the attributes of these functions."""
    for value in values:
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name
            yield from _functions(function.attr.values())


def _restore(tf, session, path: Path, variables: list) -> None:
    """Give the variables the values in the SavedModel's own checkpoint."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    if not variables:
        return
    if not all(file.is_file() for file in (path / "variables").iterdir()):
        raise OSError("a pipe, which has no end")
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    keys = {}  # full name of a variable → its name in the checkpoint, where TensorFlow 2 wrote it
    if reader.has_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"):
        stored = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        keys = {
            variable.full_name: variable.checkpoint_key
            for node in stored.nodes
            for variable in node.attributes
        }
    for node in variables:
        name = node.attr["shared_name"].s.decode() or node.name
        value = tf.compat.v1.placeholder(node.attr["dtype"].type)
        variable = session.graph.get_tensor_by_name(f"{node.name}:0")
        if node.op == "VarHandleOp":
            assign = tf.raw_ops.AssignVariableOp(resource=variable, value=value)
        else:
            assign = tf.raw_ops.Assign(ref=variable, value=value)
        session.run(assign, {value: reader.get_tensor(keys.get(name, name))})


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
