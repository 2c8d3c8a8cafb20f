from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval import images, methods
from retrieval.collections import PRECOMPUTED
from retrieval.errors import RetrievalError
from retrieval.methods import delf
from retrieval.ranking import geometry

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
GLOBAL = ("sir", "cnn-irwnha")
DIMENSIONS = {"sir": 1024, "cnn-irwnha": 512, "delf": 40}
THREE = [1.0, 2**0.5, 2**-0.5]


@pytest.fixture(scope="module")
def picture(drawn):
    return drawn(11, (180, 140))


def same(a, b, atol=0.0):
    """The features are equal, of whichever kind."""
    if isinstance(a, np.ndarray):
        np.testing.assert_allclose(a, b, atol=atol)
        return
    for name in ("keypoints", "scales", "scores", "descriptors"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol)


def check(method, features, box, least=1):
    """Everything that is promised of the features of a picture or of a box in it.

    least: keypoints.
    """
    if method.kind == "global":
        assert features.shape == (DIMENSIONS[method.name],)
        assert features.dtype == np.float32
        assert np.linalg.norm(features) == pytest.approx(1, abs=1e-5)
        return
    count = len(features)
    assert least <= count <= method.settings["keypoints"]
    assert features.keypoints.shape == (count, 2)
    assert features.scales.shape == features.scores.shape == (count,)
    assert features.descriptors.shape == (count, 40)
    for array in (features.keypoints, features.scales, features.scores, features.descriptors):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert (np.diff(features.scores) <= 0).all()
    assert np.linalg.norm(features.descriptors, axis=1) == pytest.approx(1, abs=1e-4)
    assert set(features.scales.tolist()) <= set(np.float32(method.settings["scales"]).tolist())
    left, top, right, bottom = box
    assert (features.keypoints >= [left, top]).all()
    assert (features.keypoints <= [right, bottom]).all()


def test_entries_and_classes_agree(load):
    for name, entry in methods.METHODS.items():
        method = load(name)
        assert (method.name, method.title, method.kind) == (name, entry.title, entry.kind)
        assert method.checkpoint.id == entry.default


@pytest.mark.parametrize("name", methods.METHODS)
@pytest.mark.parametrize(
    "size", [(180, 140), (8, 8), (9, 33), (3000, 8), (8, 700), (1600, 100), (31, 32)]
)
def test_any_picture_has_features(load, drawn, name, size):
    method = load(name)
    check(method, method.describe(drawn(3, size)), (0, 0, *size))
    box = 0, 0, 8, 8
    check(method, method.describe(drawn(3, size), box), box, least=0)  # it may be of one colour


@pytest.mark.parametrize("name", methods.METHODS)
@pytest.mark.parametrize("colour", ["black", "white", "grey"])
def test_blank_pictures(load, name, colour):
    method = load(name)
    features = method.describe(Image.new("RGB", (90, 70), colour))
    if name != "delf":
        check(method, features, (0, 0, 90, 70))
        return
    # Nothing to see, nothing to match.
    assert len(features) == 0
    assert features.keypoints.shape == (0, 2)
    assert features.descriptors.shape == (0, 40)


def test_keypoints_of_delf_are_where_something_is(load, picture):
    """On plain paper the network sees its own padding, which any two pictures have in common."""
    method = load("delf", size=384, scales=[0.5, 1.0])
    paper = Image.new("RGB", (720, 480), "white")
    paper.paste(picture, (500, 300))
    features = method.describe(paper)
    assert len(features) > 20
    # No farther from the picture than two cells of the coarser level.
    far = 2 * 16 * 720 / 384 / 0.5
    assert (features.keypoints >= [500 - far, 300 - far]).all()


def test_contrast_by_hand():
    level = torch.zeros(1, 3, 40, 64)
    level[..., 48:] = 1
    found = delf._contrast(level, 16)
    assert found.shape == (3, 4)
    # Windows of three cells: none, none, a third and a half of each are white.
    expected = [0, 0, (2 / 9) ** 0.5, 0.5]
    np.testing.assert_allclose(found, np.tile(expected, (3, 1)), atol=1e-6)


@pytest.mark.parametrize("name", methods.METHODS)
def test_the_same_picture_has_the_same_features(load, picture, name):
    method = load(name)
    first = method.describe(picture)
    same(first, method.describe(picture))
    same(first, method.describe(picture.copy(), (0, 0, *picture.size)))
    same(first, methods.load(name, **method.settings).describe(picture))
    assert picture.size == (180, 140), "the caller's picture is left alone"


@pytest.mark.parametrize("name", GLOBAL)
def test_different_pictures_have_different_features(load, drawn, picture, name):
    method = load(name)
    one = method.describe(picture)
    # Of the same aspect, so that both are the same number of pixels to the network.
    near = method.describe(picture.resize((171, 133), Image.Resampling.BICUBIC))
    far = method.describe(drawn(12, picture.size))
    assert one @ near > 0.98
    assert one @ far < 0.8


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_batch_is_described_as_its_pictures(load, drawn, name):
    method = load(name)
    pictures = [drawn(seed, size) for seed, size in enumerate([(160, 120), (120, 160), (160, 120)])]
    for found, picture in zip(method.describe_batch(pictures), pictures, strict=True):
        same(found, method.describe(picture), atol=1e-5)
    assert method.describe_batch([]) == []


BOX = (40.4, 22.6, 150.2, 120.0)


@pytest.mark.parametrize("name", GLOBAL)
def test_a_box_is_described_as_its_crop(load, picture, name):
    method = load(name, size=180, enlarge=False)
    same(method.describe(picture, BOX), method.describe(images.crop(picture, BOX)))
    beyond = 100, -50, 900, 900
    same(
        method.describe(picture, beyond), method.describe(images.crop(picture, (100, 0, 180, 140)))
    )


def test_a_box_of_delf_is_its_crop_moved(load, picture):
    method = load("delf", size=192, enlarge=False)
    boxed, cropped = method.describe(picture, BOX), method.describe(images.crop(picture, BOX))
    same(boxed.keypoints, cropped.keypoints + np.float32([40, 23]), atol=1e-4)
    same(boxed.descriptors, cropped.descriptors)
    check(method, boxed, (40, 23, 150, 120))


@pytest.mark.parametrize("name", GLOBAL)
def test_a_box_keeps_the_scale_of_its_photograph(load, drawn, name):
    """The crop shrinks by the factor of the full picture, not until it fits by itself."""
    method = load(name, size=128, enlarge=False)
    large = drawn(5, (512, 384))
    box = 0, 0, 256, 256
    by_hand = large.crop(box)
    by_hand.thumbnail((64, 64), Image.Resampling.LANCZOS)
    same(method.describe(large, box), method.describe(by_hand))


@pytest.mark.parametrize("name", GLOBAL)
def test_a_small_copy_is_like_its_original(name):
    """It was described as small as it is: the cosine with its original was below 0.3."""
    with Image.open(PRECOMPUTED / "town" / "images" / "belltower_003.jpg") as original:
        small = original.resize([side // 7 for side in original.size], Image.Resampling.LANCZOS)
        enlarged, plain = methods.load(name), methods.load(name, enlarge=False)
        vector = enlarged.describe(original)
    assert vector @ plain.describe(small) < 0.3
    assert vector @ enlarged.describe(small) > 0.4


@pytest.mark.parametrize("name", methods.METHODS)
@pytest.mark.parametrize("box", [(50, 0, 10, 40), (0, 0, 0, 0), (500, 0, 600, 40), (0, 0, 5, 90)])
def test_bad_boxes_are_refused(load, picture, name, box):
    with pytest.raises(RetrievalError, match="The box"):
        load(name).describe(picture, box)


@pytest.mark.parametrize("size", [640, 320])
def test_keypoints_of_delf_move_with_the_picture(load, drawn, size):
    """In pixels of the original, whatever the size that the network sees."""
    method = load("delf", size=size, scales=[1.0], enlarge=False, keypoints=400)
    texture = drawn(7, (320, 256))
    found = []
    for place in ((32, 32), (224, 96)):
        canvas = Image.new("RGB", (640, 448), "grey")
        canvas.paste(texture, place)
        found.append(method.describe(canvas))
    a, b = found
    pairs = geometry.mutual_matches(a.descriptors, b.descriptors, 0.8)
    assert len(pairs) > 20
    moved = b.keypoints[pairs[:, 1]] - a.keypoints[pairs[:, 0]]
    right = np.abs(moved - [192, 64]).max(axis=1) < 0.01
    assert right.mean() > 0.6


def test_keypoints_of_delf_follow_the_scale(load, drawn):
    """A picture twice as large has its features at twice the coordinates."""
    method = load("delf", size=192, enlarge=False)
    small = drawn(8, (192, 144))
    a = method.describe(small)
    b = method.describe(small.resize((384, 288), Image.Resampling.BICUBIC))
    pairs = geometry.mutual_matches(a.descriptors, b.descriptors, 0.8)
    found = geometry.verify(a.keypoints[pairs[:, 0]], b.keypoints[pairs[:, 1]], 4.0)
    assert found.count > 20
    np.testing.assert_allclose(found.matrix[:, :2], [[2, 0], [0, 2]], atol=0.1)
    np.testing.assert_allclose(found.matrix[:, 2], 0, atol=6)


def test_delf_on_pictures_too_small_for_any_level_asked_for(load, drawn):
    method = load("delf", scales=[0.25, 0.1], enlarge=False)
    check(method, method.describe(drawn(1, (40, 40))), (0, 0, 40, 40))


def test_attention_is_the_score_of_the_keypoints(load, picture):
    method = load("delf", keypoints=1000)
    found = method.describe(picture)
    level = method.attention(picture, 0.5)
    assert level.scores.shape == (len(level.y), len(level.x))
    assert level.x[1] > level.x[0]
    mine = found.scales == np.float32(0.5)
    assert mine.any()
    for (x, y), score in zip(found.keypoints[mine], found.scores[mine], strict=True):
        row, column = abs(level.y - y).argmin(), abs(level.x - x).argmin()
        assert (level.x[column], level.y[row]) == pytest.approx((x, y), abs=1e-3)
        assert level.scores[row, column] == pytest.approx(score, rel=1e-5)
    assert method.attention(picture, 0.1) is None


def test_delf_keeps_the_best(load, picture):
    many, few = load("delf", keypoints=150), load("delf", keypoints=20)
    a, b = many.describe(picture), few.describe(picture)
    assert len(b) == 20
    same(b.keypoints, a.keypoints[:20])
    least = float(a.scores[9])
    c = load("delf", min_score=least).describe(picture)
    assert len(c) == (a.scores >= least).sum()
    none = load("delf", min_score=1e9).describe(picture)
    assert len(none) == 0
    assert none.descriptors.shape == (0, 40)
    assert none.keypoints.shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("sir", {"size": 31}, "from 32 to 4096"),
        ("sir", {"size": 5000}, "from 32 to 4096"),
        ("sir", {"size": 320.5}, "setting size of SIR cannot be 320.5"),
        ("sir", {"size": "big"}, "setting size"),
        ("sir", {"size": True}, "setting size"),
        ("sir", {"scales": [1.0]}, "SIR has no setting scales; it has: size"),
        ("cnn-irwnha", {"scales": []}, "Scales are one to 16 numbers"),
        ("cnn-irwnha", {"scales": [1.0] * 17}, "Scales are one to 16 numbers"),
        ("cnn-irwnha", {"scales": [1.0, 99.0]}, "from 0.1 to 4"),
        ("cnn-irwnha", {"size": 4096, "scales": [4.0]}, "more than 16 megapixels at all scales"),
        ("delf", {"size": 1024, "scales": [2.5] * 3}, "more than 16 megapixels at all scales"),
        ("cnn-irwnha", {"scales": 3}, "setting scales"),
        ("cnn-irwnha", {"scales": [float("nan")]}, "setting scales"),
        ("cnn-irwnha", {"scales": ["1"]}, "setting scales"),
        ("delf", {"keypoints": 0}, "1 to 5,000 keypoints"),
        ("delf", {"keypoints": 10**9}, "1 to 5,000 keypoints"),
        ("delf", {"keypoints": "many"}, "setting keypoints"),
        ("delf", {"nms_iou": None}, "setting nms_iou"),
        ("delf", {"min_score": float("inf")}, "setting min_score"),
    ],
)
def test_settings_that_are_refused(name, settings, words):
    with pytest.raises(RetrievalError, match=words):
        methods.load(name, **settings)


@pytest.mark.parametrize(
    ("key", "size", "scales", "boxed", "pictures"),
    [
        ("gem_w_ss", 1024, [1.0], False, (0, 2)),
        ("gem_w_ss362", 362, [1.0], False, (0, 1, 2, 3)),
        ("gem_w_ss_bbx", 1024, [1.0], True, (1, 3)),
        ("gem_w_ms", 1024, THREE, False, (3,)),
        ("gem_w_ms_bbx", 1024, THREE, True, (0, 2)),
    ],
)
def test_descriptors_are_those_of_cirtorch(load, key, size, scales, boxed, pictures):
    if not (REFERENCE / "cirtorch.npz").is_file():
        pytest.skip("the reference numbers are not here")
    with np.load(REFERENCE / "cirtorch.npz") as arrays:
        expected, names, boxes = arrays[key], arrays["images"], arrays["bbx"]
    network = REFERENCE / "cirtorch-resnet18-gem-w.pth"
    method = methods.load("cnn-irwnha", network, size=size, scales=scales)
    for row in pictures:
        path = REFERENCE / "images" / names[row]
        path = path if path.suffix else path.with_suffix(".jpg")
        box = tuple(boxes[row].tolist()) if boxed else None
        found = method.describe(images.read(path), box)
        assert found @ expected[row] > 0.99999
        np.testing.assert_allclose(found, expected[row], atol=1e-4)


@pytest.mark.parametrize("iou", [0.3, 0.8])
@pytest.mark.parametrize("max_boxes", [1, 40, 10_000])
def test_suppress_is_the_nms_of_torchvision(iou, max_boxes):
    from torchvision.ops import nms

    rng = np.random.default_rng(5)
    corners = rng.integers(0, 200, (1500, 2)).astype(np.float32)
    boxes = np.hstack([corners, corners + rng.integers(10, 90, (1500, 2))]).astype(np.float32)
    scores = rng.integers(0, 300, 1500).astype(np.float32)  # with equal ones among them
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)[:max_boxes].numpy()
    np.testing.assert_array_equal(delf.suppress(boxes, scores, iou, max_boxes), expected)
    assert 1 <= len(expected) < len(boxes)


def test_suppress_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [20, 0, 30, 10]], np.float32)
    scores = np.array([1, 3, 2, 0], np.float32)
    # The second is best; the first shares 90 of 100 with it, the third 50 of 90.
    assert delf.suppress(boxes, scores, 0.6, 9).tolist() == [1, 2, 3]
    assert delf.suppress(boxes, scores, 0.5, 9).tolist() == [1, 3]
    assert delf.suppress(boxes[:0], scores[:0], 0.5, 9).tolist() == []


@pytest.mark.parametrize("size", [(240, 180), (90, 120), (40, 30), (600, 50), (50, 600)])
@pytest.mark.parametrize("box", [None, (5.0, 5.0, 35.0, 25.0), (5.0, 5.0, 15.0, 25.0)])
def test_the_square_that_a_keypoint_sees(load, drawn, size, box):
    """It is found from the sizes alone. In a panorama and a narrow box, which are enlarged before
    the network sees them, it was twice as large."""
    method, picture = load("delf"), drawn(3, size)
    dense = method.dense(picture, box)
    left, _, right, _ = dense.fields[dense.scales == 1][0].tolist()
    width = box[2] - box[0] if box else picture.width
    expected = (right - left) * width / method._input(picture, box).shape[3]
    assert method.field_side(size, box) == pytest.approx(expected, rel=0.03)
