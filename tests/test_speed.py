"""The parts of ``bench extract``; the times themselves are nobody's to assert."""

import io

import pytest

from retrieval import images, methods, speed


def test_plain_loop_and_ours_give_the_same_descriptors():
    data = io.BytesIO()
    images.read(speed._picture(0)).resize((160, 120)).save(data, "JPEG")
    with speed._network() as path:
        ours = methods.load("cnn-irwnha", path, size=speed.SIZE, scales=[1.0])
        plain = speed._Plain(path)
    (vector,) = (ours.describe(picture) for picture in speed._read_ahead([data.getvalue()]))
    assert vector @ plain.describe(data.getvalue()) > speed.MIN_COSINE


def test_work_is_counted():
    # torchvision states 4.09 G multiply-adds for ResNet-50 at 224 × 224.
    assert speed._work("resnet50") == pytest.approx(2 * 4.09 * 1024 * 768 / 224**2, rel=0.02)
