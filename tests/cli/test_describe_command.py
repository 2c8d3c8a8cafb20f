"""``describe``: the features of pictures in a file."""

from pathlib import Path

import numpy as np
import pytest

from retrieval import images

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"


def test_describe_writes_what_the_method_gives(run, folder, load, tmp_path):
    out = tmp_path / "descriptors.npz"
    names = [folder / "c.png", folder / "a.png", folder / "c.png"]
    code, text, _ = run("describe", *names, "--method", "sir", "--size", 128, "--out", out)
    assert code == 0
    assert text == f"3 × 1024 descriptors of sir-lite0 in {out}\n"
    with np.load(out) as arrays:
        assert arrays["names"].tolist() == [str(name) for name in names]
        for name, row in zip(names, arrays["descriptors"], strict=True):
            np.testing.assert_allclose(
                row, load("sir", size=128).describe(images.read(name)), atol=1e-6
            )


def test_describe_local(run, folder, tmp_path):
    out = tmp_path / "any name"
    pictures = folder / "a.png", folder / "b.png"
    command = ["describe", *pictures, "--method", "delf", "--size", 96, "--out", out]
    code, _, _ = run(*command, "--box", "0,0,240,180", "--box", "20,30,200,170")
    assert code == 0
    with np.load(out) as arrays:
        offsets = arrays["offsets"]
        assert offsets[0] == 0
        assert len(offsets) == 3
        assert len(arrays["keypoints"]) == len(arrays["descriptors"]) == offsets[-1]
        second = arrays["keypoints"][offsets[1] :]
    assert (second >= [20, 30]).all()
    assert (second <= [200, 170]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["any name"], "under the name given"


@pytest.mark.skipif(not (REFERENCE / "cirtorch.npz").is_file(), reason="no reference numbers here")
def test_describe_with_a_network_of_ones_own(run, tmp_path):
    with np.load(REFERENCE / "cirtorch.npz") as arrays:
        expected, names, boxes = arrays["gem_w_ms_bbx"][:2], arrays["images"][:2], arrays["bbx"][:2]
    paths = [next((REFERENCE / "images").glob(f"{Path(str(name)).stem}.*")) for name in names]
    words = [word for box in boxes for word in ("--box", ",".join(map(str, box)))]
    out = tmp_path / "d.npz"
    code, text, _ = run(
        "describe", *paths, "--method", "cnn-irwnha",
        "--checkpoint", REFERENCE / "cirtorch-resnet18-gem-w.pth",
        "--size", "1024", "--scales", "1,1.4142,0.7071", *words, "--out", out,
    )  # fmt: skip
    assert code == 0
    assert text.startswith("2 × 512 descriptors of cirtorch-resnet18-gem-w")
    with np.load(out) as arrays:
        found = arrays["descriptors"]
    assert (np.sum(found * expected, axis=1) > 0.99999).all()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_describe_that_fails(refused, folder, tmp_path):
    a, b, c = (folder / name for name in ("a.png", "b.png", "c.png"))
    sir = ("--method", "sir")
    out = tmp_path / "d.npz"
    refused("no folder", "describe", a, *sir, "--out", tmp_path / "no" / "d.npz")
    before = (folder / "b.png").read_bytes()
    refused("did not write it", "describe", a, *sir, "--out", folder / "b.png")
    refused("did not write it", "plot", "keypoints", folder / "b.png",
            "--out", folder / "b.png")  # fmt: skip
    assert (folder / "b.png").read_bytes() == before
    refused("is a folder; name a file", "describe", a, *sir, "--out", tmp_path)
    refused("is a folder; name a file", "describe", a, *sir, "--out", ".")
    refused("2 boxes, 3 pictures", "describe", a, b, c, *sir, "--out", out,
            "--box", "0,0,99,99", "--box", "0,0,99,99")  # fmt: skip
    refused("gone.png cannot be read", "describe", a, folder / "gone.png", *sir, "--out", out)
    refused("from 32 to 4096", "describe", a, *sir, "--size", 7, "--out", out)
    refused("SIR has no setting scales", "describe", a, *sir, "--scales", "1,2", "--out", out)
    refused("from 0.1 to 4", "describe", a, "--method", "cnn-irwnha", "--scales", "1,99",
            "--out", out)  # fmt: skip
    refused("is for cnn-irwnha, not for sir", "describe", a, *sir, "--checkpoint", "gem-lite0",
            "--out", out)  # fmt: skip
    refused("The box", "describe", a, *sir, "--box", "500,500,600,600", "--out", out)
    assert list(tmp_path.iterdir()) == []
