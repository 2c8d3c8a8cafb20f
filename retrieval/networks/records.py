"""The networks that can be downloaded, as plain records for ``checkpoints.Checkpoint``.

Addresses, hashes and scores are those that the authors state in their repositories; the hash is
the part of the SHA-256 that the file name carries. Sizes are of the file where the authors state
one, else of the tensors in it (4 bytes a parameter), so the true file is a little larger.
Scores are mean average precision in per cent.
"""

from __future__ import annotations

from typing import Any

_CIRTORCH = "http://cmp.felk.cvut.cz/cnnimageretrieval/data/networks"
_MIT_CODE = "not stated for the weights (the authors' code is MIT)"
_GL18 = "Google Landmarks 2018"
_SFM = "retrieval-SfM-120k"
_NO_OVERLAP = "none: it was built without the landmarks of Oxford and Paris"
_GL_OVERLAP = (
    "not stated; of the later GLDv2-clean, 36 of 70 ROxford and 38 of 70 RParis queries show "
    "landmarks (arXiv 2404.01524)"
)


def _scores(roxford: tuple[float, float], rparis: tuple[float, float]) -> dict[str, Any]:
    kinds = ("medium", "hard")
    return {
        "roxford5k": dict(zip(kinds, roxford, strict=True)),
        "rparis6k": dict(zip(kinds, rparis, strict=True)),
    }


def _whitened(
    training: str, depth: int, file: str, size: int, roxford: tuple, rparis: tuple
) -> dict[str, Any]:
    """A network of cirtorch with its whitening as a layer, trained with the triplet loss."""
    on_landmarks = training == "gl18"
    folder = "gl18" if on_landmarks else "retrieval-SfM-120k"
    report = on_landmarks and depth == 152
    return dict(
        id=f"{training.lower()}-resnet{depth}",
        method="cnn-irwnha",
        title=f"ResNet-{depth}, GeM, whitening layer, three scales",
        trunk=f"resnet{depth}",
        stands_in_for="itself: the network behind the report's figures" if report else "itself",
        trained_on=_GL18 if on_landmarks else _SFM,
        licence=_MIT_CODE,
        source="cirtorch (Radenović, Tolias and Chum), test_e2e table of its README",
        weights_sha256=file.rpartition("-")[2],
        settings={"size": 1024, "scales": [1.0, 2**0.5, 2**-0.5]},
        format="cirtorch",
        address=f"{_CIRTORCH}/{folder}/{file}.pth",
        size=size,
        overlap=_GL_OVERLAP if on_landmarks else _NO_OVERLAP,
        published=_scores(roxford, rparis),
    )


NETWORKS: tuple[dict[str, Any], ...] = (
    _whitened(
        "gl18", 152, "gl18-tl-resnet152-gem-w-21278d5", 250_000_000, (68.7, 44.2), (79.7, 60.3)
    ),
    _whitened(
        "gl18", 101, "gl18-tl-resnet101-gem-w-a4d43db", 187_200_000, (67.3, 44.3), (80.6, 61.5)
    ),
    _whitened(
        "gl18", 50, "gl18-tl-resnet50-gem-w-83fdc30", 111_000_000, (63.6, 40.9), (78.0, 57.5)
    ),
    _whitened(
        "rSfM120k",
        152,
        "rSfM120k-tl-resnet152-gem-w-f39cada",
        250_000_000,
        (68.8, 41.3),
        (78.0, 57.2),
    ),
    _whitened(
        "rSfM120k",
        101,
        "rSfM120k-tl-resnet101-gem-w-a155e54",
        187_200_000,
        (67.8, 41.7),
        (77.6, 56.3),
    ),
    _whitened(
        "rSfM120k",
        50,
        "rSfM120k-tl-resnet50-gem-w-97bf910",
        111_000_000,
        (64.7, 39.0),
        (76.3, 54.9),
    ),
    dict(
        id="sfm120k-resnet101",
        method="cnn-irwnha",
        title="ResNet-101, GeM, learned whitening (Lw), three scales",
        trunk="resnet101",
        stands_in_for="itself",
        trained_on=_SFM,
        licence=_MIT_CODE,
        source="cirtorch (Radenović, Tolias and Chum), README",
        weights_sha256="b80fb85",
        settings={"size": 1024, "scales": [1.0, 2**-0.5, 0.5]},
        format="cirtorch",
        address=f"{_CIRTORCH}/retrieval-SfM-120k/retrievalSfM120k-resnet101-gem-b80fb85.pth",
        size=204_000_000,
        overlap=_NO_OVERLAP,
        published={"oxford5k": {"classic": 88.2}, "roxford5k": {"medium": 65.4, "hard": 40.1}},
    ),
    dict(
        id="sfm120k-vgg16",
        method="cnn-irwnha",
        title="VGG-16, GeM, learned whitening (Lw), three scales",
        trunk="vgg16",
        stands_in_for="itself",
        trained_on=_SFM,
        licence=_MIT_CODE,
        source="cirtorch (Radenović, Tolias and Chum), README",
        weights_sha256="b4dcdc6",
        settings={"size": 1024, "scales": [1.0, 2**-0.5, 0.5]},
        format="cirtorch",
        address=f"{_CIRTORCH}/retrieval-SfM-120k/retrievalSfM120k-vgg16-gem-b4dcdc6.pth",
        size=61_000_000,
        overlap=_NO_OVERLAP,
        published={"oxford5k": {"classic": 87.3}, "roxford5k": {"medium": 60.9, "hard": 32.9}},
    ),
    dict(
        # V1 of torchvision's two: the recipe of the report's time, and without the label
        # smoothing and mixup of V2, which make classifiers better and features worse
        # (Kornblith et al., NeurIPS 2021).
        id="resnet152-imagenet",
        method="sir",
        title="ResNet-152, average pooling, 1024-d layer",
        trunk="resnet152",
        stands_in_for="the report's ResNet-152, with a layer fitted without labels, not trained",
        trained_on="ImageNet-1k (trunk, IMAGENET1K_V1); the layer is fitted without labels",
        licence="not stated for the weights (torchvision's code is BSD-3-Clause)",
        source="torchvision ResNet152_Weights.IMAGENET1K_V1",
        weights_sha256="394f9c45",
        settings={"size": 320},
        head="resnet152-imagenet",
        address="https://download.pytorch.org/models/resnet152-394f9c45.pth",
        size=241_630_000,
        overlap="not stated; its labels name no landmark",
    ),
    dict(
        # The same release of torchvision's weights as above, for the same reason.
        id="resnet50-imagenet",
        method="delf",
        title="ResNet-50 conv4, attention and PCA to 40-d of our own",
        trunk="resnet50",
        stands_in_for="the authors' DELF, with attention learned without labels",
        trained_on="ImageNet-1k (trunk, IMAGENET1K_V1); PCA and attention are learned without "
        "labels",
        licence="not stated for the weights (torchvision's code is BSD-3-Clause)",
        source="torchvision ResNet50_Weights.IMAGENET1K_V1",
        weights_sha256="0676ba61",
        settings={"size": 1024, "keypoints": 1000},
        head="resnet50-imagenet",
        address="https://download.pytorch.org/models/resnet50-0676ba61.pth",
        size=102_530_000,
        overlap="not stated; its labels name no landmark",
    ),
    dict(
        id="delf-tfhub",
        method="delf",
        title="DELF of its authors: ResNet-50 conv4, trained attention, PCA to 40-d",
        trunk="resnet50 conv4, in a TensorFlow SavedModel",
        stands_in_for="itself: the module behind the report's figures",
        trained_on="Google Landmarks (Noh et al., ICCV 2017)",
        licence="not known here; its page on TF Hub states it",
        source="https://tfhub.dev/google/delf/1",
        weights_sha256="",
        mean=(0.0, 0.0, 0.0),  # the module normalises for itself
        std=(1.0, 1.0, 1.0),
        format="saved-model",
        address="https://tfhub.dev/google/delf/1?tf-hub-format=compressed",
        overlap=_GL_OVERLAP,
    ),
)
