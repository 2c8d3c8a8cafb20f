"""``bench extract``: our extraction beside a plain loop of PyTorch, on the same pictures."""

from __future__ import annotations

import copy
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn

from retrieval import images, methods
from retrieval.methods.gem import GeM
from retrieval.networks import checkpoints
from retrieval.networks.records import IMAGENET_MEAN, IMAGENET_STD

SIZE = 1024
PICTURES, ROUNDS = 3, 2
BATCH = 8
MIN_COSINE = 0.9999


def extract() -> dict:
    """Seconds a picture (median) of the plain loop and of ours, decoding included.

    The plain loop is what the reference does: batches of one, default memory layout, batch norms
    that are not folded, decoding before computing. It runs in a process without our settings of
    threads. Ours is what ``index.build`` does. They take turns, so that other work slows both. The
    network is the first on disk, else a ResNet-101 with random weights, which is as fast.

    Returns ``network``, its name; ``plain`` and ``ours``, seconds; ``ratio``; ``cosine``, the least
    of two descriptors of a picture; ``work``, GFLOP a picture; ``threads``. ``processor_plain``,
    ``processor_ours``: seconds of processor time, which other work disturbs least. ``peak``: GFLOP
    a second of processor time that this machine reaches. ``engines``: name → seconds of the trunk
    alone, None where an engine is not installed.
    """
    pictures = [_jpeg(seed) for seed in range(PICTURES)]
    times: dict[str, list[tuple[float, float]]] = {"plain": [], "ours": []}
    cosines, peak = [], 0.0
    with (
        _network_file() as path,
        ProcessPoolExecutor(1, get_context("spawn"), _load_plain, (path,)) as plain_process,
    ):
        method = methods.load("cnn-irwnha", path, size=SIZE, scales=[1.0])
        assert isinstance(method, GeM)
        for _ in range(ROUNDS):
            peak = max(peak, _peak_gflops())
            expected, plain_times = plain_process.submit(_run_plain, pictures).result()
            times["plain"] += plain_times
            descriptors, our_times = _timed(method.describe(p) for p in _read_ahead(pictures))
            times["ours"] += our_times
            cosines += [float(a @ b) for a, b in zip(expected, descriptors, strict=True)]
        engines = _engines(method.trunk)
    medians = {}
    for name, pairs in times.items():
        clock, processor = zip(*pairs, strict=True)
        medians[name] = statistics.median(clock)
        medians[f"processor_{name}"] = statistics.median(processor)
    return {
        "network": f"{method.checkpoint.title} ({method.checkpoint.id})",
        **medians,
        "ratio": medians["plain"] / medians["ours"],
        "cosine": min(cosines),
        "peak": peak,
        "work": _gflop(method.checkpoint.trunk),
        "threads": torch.get_num_threads(),
        "engines": engines,
    }


def run() -> int:
    """The command: print the times. Returns the exit code, 1 where the descriptors differ."""
    measured = extract()
    print(f"{measured['network']}, {SIZE}×{SIZE * 3 // 4} pixels, {measured['threads']} threads")
    print(f"this machine reaches {measured['peak']:.0f} GFLOP a second of processor time")
    for name, label in (("plain", "plain loop"), ("ours", "ours")):
        processor = measured[f"processor_{name}"]
        share = measured["work"] / processor / measured["peak"]
        print(
            f"{label:11} {measured[name]:7.3f} s a picture; {processor:.3f} s of processor time, "
            f"{share:.0%} of what the machine reaches"
        )
    ratio = measured["processor_plain"] / measured["processor_ours"]
    print(f"ratio {measured['ratio']:.2f}, of processor time {ratio:.2f}")
    print(f"least cosine of the descriptors {measured['cosine']:.6f}")
    print("the trunk alone:")
    for name, spent in measured["engines"].items():
        print(f"{name:14}" + (f"{spent:7.3f} s a picture" if spent else "not installed"))
    alone, together = _seconds_alone_and_batched()
    print(
        f"gem-lite0, pictures of 352×264: {1000 * alone:.1f} ms each alone, {1000 * together:.1f} "
        f"ms in batches of {BATCH}"
    )
    return 0 if measured["cosine"] >= MIN_COSINE else 1


def _timed(
    results: Iterable[np.ndarray],
) -> tuple[list[np.ndarray], list[tuple[float, float]]]:
    """The results of an iterator, and for each the seconds by the clock and of the processor."""
    collected, seconds = [], []
    before = time.perf_counter(), time.process_time()
    for result in results:
        now = time.perf_counter(), time.process_time()
        collected.append(result)
        seconds.append((now[0] - before[0], now[1] - before[1]))
        before = now
    return collected, seconds


def _read_ahead(pictures: list[bytes]) -> Iterator[Image.Image]:
    """Pictures, decoded in another thread while the ones before are described."""
    with ThreadPoolExecutor(1) as reader:
        yield from reader.map(images.read, pictures)


class _PlainLoop:
    """The network of a cirtorch file as its authors run it: one picture at a time."""

    def __init__(self, path: Path):
        weights = checkpoints.load(checkpoints.find("cnn-irwnha", path))
        assert not isinstance(weights.trunk, nn.Module)  # it is a file
        self.features = _torchvision_trunk(weights.meta["architecture"])
        state = {key.partition(".")[2]: value for key, value in weights.trunk.items()}
        self.features.load_state_dict(state)
        self.features.eval()
        self.meta = weights.meta
        self.p = float(weights.head["pool.p"][0])
        self.whiten = [
            torch.from_numpy(weights.head[f"whiten.{key}"]) for key in ("weight", "bias")
        ]

    @torch.no_grad()
    def describe(self, data: bytes) -> np.ndarray:
        """The descriptor (D,) of a picture file."""
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        x = torchvision.transforms.functional.to_tensor(picture)
        x = torchvision.transforms.functional.normalize(x, self.meta["mean"], self.meta["std"])
        x = self.features(x[None])
        x = F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), x.shape[2:]).pow(1 / self.p).flatten(1)
        x = F.linear(x / (x.norm(dim=1) + 1e-6), *self.whiten)
        return (x / (x.norm(dim=1) + 1e-6))[0].numpy()


_plain: _PlainLoop  # in the process of the plain loop


def _load_plain(path: Path) -> None:
    global _plain
    _plain = _PlainLoop(path)


def _run_plain(pictures: list[bytes]) -> tuple[list[np.ndarray], list[tuple[float, float]]]:
    return _timed(_plain.describe(picture) for picture in pictures)


def _jpeg(seed: int) -> bytes:
    """A JPEG of 1024 × 768 pixels with random structures of three sizes."""
    random = np.random.default_rng(seed)
    total = np.zeros((768, 1024, 3), np.float32)
    for cells in (4, 16, 64):
        small = random.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(small).resize((1024, 768), Image.Resampling.BICUBIC))
    buffer = io.BytesIO()
    Image.fromarray((total / 3).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@contextmanager
def _network_file() -> Iterator[Path]:
    """The file of a network with a whitening layer: a downloaded one, or one with random weights
    that is deleted after the ``with`` block.
    """
    for checkpoint in checkpoints.of_method("cnn-irwnha"):
        downloaded = checkpoint.address and checkpoint.available
        if downloaded and checkpoint.format == "cirtorch" and "layer" in checkpoint.title:
            yield checkpoint.path
            return
    torch.manual_seed(0)
    trunk = _torchvision_trunk("resnet101")
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):  # torch's own values fold into nothing
            assert module.running_var is not None
            module.running_var.uniform_(1, 2)
            module.weight.data.uniform_(0.5, 1)
    layer = nn.Linear(2048, 2048)
    state = {f"features.{key}": value for key, value in trunk.state_dict().items()}
    state |= {f"whiten.{key}": value for key, value in layer.state_dict().items()}
    state["pool.p"] = torch.tensor([3.0])
    meta = {
        "architecture": "resnet101",
        "pooling": "gem",
        "whitening": True,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "resnet101-random-weights.pth")
        torch.save({"meta": meta, "state_dict": state}, path)
        yield path


def _peak_gflops() -> float:
    """GFLOP a second of processor time: the best of a matrix product and a convolution."""
    a = torch.rand(2048, 2048)
    x = torch.rand(1, 512, 32, 32).contiguous(memory_format=torch.channels_last)
    w = torch.rand(512, 512, 3, 3).contiguous(memory_format=torch.channels_last)
    computations = {  # by FLOP
        2 * 2048**3: lambda: a @ a,
        2 * 512 * 512 * 9 * 32 * 32: lambda: F.conv2d(x, w, padding=1),
    }
    best = 0.0
    with torch.inference_mode():
        for flop, compute in computations.items():
            for _ in range(3):
                started = time.process_time()
                compute()
                best = max(best, flop / (time.process_time() - started) / 1e9)
    return best


def _engines(trunk: nn.Module) -> dict[str, float | None]:
    """Engine → median seconds of a trunk on one picture; None where it is not installed.

    The engines take turns and compute in float32.
    """
    x = torch.rand(1, 3, SIZE * 3 // 4, SIZE)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    plain = copy.deepcopy(trunk).to(memory_format=torch.contiguous_format)
    engines = {
        "PyTorch": lambda: trunk(channels_last),
        "ONNX Runtime": _onnx_runtime(plain, x),
        "OpenVINO": _openvino(plain, x),
    }
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    with torch.inference_mode():
        for _ in range(1 + ROUNDS * PICTURES):
            for name, compute in engines.items():
                if compute is not None:
                    started = time.perf_counter()
                    compute()
                    seconds[name].append(time.perf_counter() - started)
    # The first time of each engine is a warm-up.
    return {
        name: statistics.median(times[1:]) if times else None for name, times in seconds.items()
    }


def _onnx_runtime(trunk: nn.Module, x: torch.Tensor) -> Callable[[], object] | None:
    """A function that runs the trunk on x (1, 3, H, W); None where ONNX is not installed."""
    try:
        import onnx  # noqa: F401  what torch exports with
        import onnxruntime
    except ImportError:
        return None
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            trunk,
            (x,),
            file,  # type: ignore[arg-type]  # without dynamo it writes to open files too
            dynamo=False,
            opset_version=17,
            input_names=["x"],
        )
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x.numpy()})


def _openvino(trunk: nn.Module, x: torch.Tensor) -> Callable[[], object] | None:
    """A function that runs the trunk on x (1, 3, H, W); None where OpenVINO is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(trunk, example_input=x)
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: x.numpy()})


def _seconds_alone_and_batched() -> tuple[float, float]:
    """Median seconds a picture of the trunk of gem-lite0: one at a time, and in batches."""
    method = methods.load("cnn-irwnha")
    assert isinstance(method, GeM)
    inputs = torch.rand(BATCH, 3, 264, 352).contiguous(memory_format=torch.channels_last)
    alone, together = [], []
    with torch.inference_mode():
        for _ in range(4):
            started = time.perf_counter()
            for picture in inputs:
                method.trunk(picture[None])
            alone.append((time.perf_counter() - started) / BATCH)
            started = time.perf_counter()
            method.trunk(inputs)
            together.append((time.perf_counter() - started) / BATCH)
    return statistics.median(alone[1:]), statistics.median(together[1:])


def _gflop(trunk: str) -> float:
    """GFLOP of the trunk on one picture, counted on tensors without data."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        _torchvision_trunk(trunk)(torch.empty(1, 3, SIZE * 3 // 4, SIZE))
    return counter.get_total_flops() / 1e9


def _torchvision_trunk(name: str) -> nn.Module:
    """A ResNet or VGG without its pooling and classifier, as cirtorch cuts it; random weights."""
    network = getattr(torchvision.models, name)(weights=None)
    if "vgg" in name:
        return network.features[:-1]
    return nn.Sequential(*[*network.children()][:-2])
