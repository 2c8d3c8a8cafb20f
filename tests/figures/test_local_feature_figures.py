import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrieval import cli
from retrieval.figures import files as figure_files
from retrieval.figures import local_features as plots
from retrieval.methods.base import LocalFeatures
from retrieval.ranking import geometry


def some(count, seed=0):
    rng = np.random.default_rng(seed)
    return LocalFeatures(
        rng.uniform(0, 100, (count, 2)).astype(np.float32),
        np.full(count, 0.5, np.float32),
        np.linspace(9, 1, count, dtype=np.float32),
        rng.normal(size=(count, 8)).astype(np.float32),
    )


def size_of(png):
    return Image.open(io.BytesIO(png)).size


def test_points_land_where_the_pictures_are():
    wide, high = Image.new("RGB", (400, 100)), Image.new("RGB", (100, 400))
    sheet = plots.images([wide, high], "")
    areas = np.multiply(sheet.widths, sheet.heights)
    assert areas[0] == pytest.approx(areas[1])
    np.testing.assert_allclose(sheet.place(0, [[400, 100]]), [[sheet.widths[0], sheet.heights[0]]])
    np.testing.assert_allclose(sheet.place(1, [[0, 0]]), [[sheet.left[1], 0]])
    assert sheet.left[1] > sheet.widths[0]


def test_a_smaller_copy_gives_the_same_places():
    big, small = Image.new("RGB", (800, 600)), Image.new("RGB", (80, 60))
    one = plots.images([big], "")
    two = plots.images([small], "", sizes=[(800, 600)])
    np.testing.assert_allclose(one.place(0, [[123, 45]]), two.place(0, [[123, 45]]))


@pytest.mark.parametrize("count", [0, 1, 2, 300])
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_any_number_of_keypoints_and_matches(count, kind):
    picture, features = Image.new("RGB", (100, 80), "teal"), some(count)
    note = "a $ and a_b"
    figures = [
        plots.keypoints(picture, features, note),
        plots.receptive_fields(picture, features, np.full(count, 30.0), note),
        plots.histograms(features, note),
        plots.matches(
            (picture, picture),
            (features.keypoints, features.keypoints),
            np.arange(count) % 2 == 0,
            note,
            geometry.outlines((10, 10, 50, 60), geometry.Verification(np.eye(2, 3), None)),
        ),
    ]
    for figure in figures:
        data = figure_files.encode(figure, kind)
        assert data.startswith(b"\x89PNG" if kind == "png" else b"<?xml")


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 8)])
def test_heat_maps_of_any_shape(shape):
    x, y = np.linspace(5, 95, shape[1]), np.linspace(5, 75, shape[0])
    scores = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = SimpleNamespace(scores=scores, x=x, y=y, side=10.0)
    figure = plots.attention_map(Image.new("RGB", (100, 80)), found, "")
    width, height = size_of(figure_files.encode(figure, "png"))
    assert width > height > 100


def test_aligned_by_a_shift():
    red, blue = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    shift = np.array([[1.0, 0, 200], [0, 1, 0]])  # in pixels of originals ten times as large
    for matrix in (shift, np.vstack([shift, [0, 0, 1]])):
        over = plots.aligned(red, (400, 300), blue, (400, 300), matrix)
        assert over.getpixel((5, 15))[3] == 0
        assert over.getpixel((30, 15)) == (255, 0, 0, 255)


def test_outlines_of_a_box():
    corners, carried = geometry.outlines((0, 0, 2, 1), geometry.Verification(None, np.zeros(0)))
    assert corners.tolist() == [[0, 0], [2, 0], [2, 1], [0, 1]]
    assert carried is None
    moved = geometry.Verification(np.array([[2.0, 0, 1], [0, 2, 1]]), np.zeros(0))
    assert geometry.outlines((0, 0, 2, 1), moved)[1].tolist() == [[1, 1], [5, 1], [5, 3], [1, 3]]
    horizon = geometry.Verification(np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 1]]), np.zeros(0))
    assert geometry.outlines((0, 0, 2, 1), horizon)[1] is None


@pytest.fixture
def pictures(tmp_path, drawn):
    paths = {"scene": drawn(3), "blank": Image.new("RGB", (240, 180), "white")}
    for name, picture in paths.items():
        picture.save(tmp_path / f"{name}.png")
    return tmp_path


def test_plot_of_the_command_line(pictures, load, monkeypatch, capsys):
    method = load("delf")
    monkeypatch.setattr("retrieval.methods.load", lambda *_: method)
    out, scene, blank = (pictures / name for name in ("out.png", "scene.png", "blank.png"))
    assert cli.main(["plot", "keypoints", str(scene), "--count", "20", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"20 keypoints: {out}\n"
    assert max(size_of(out.read_bytes())) > 1000
    svg = str(pictures / "out.svg")
    words = ["plot", "matches", str(scene), str(scene), "--box", "20,20,200,150", "--out", svg]
    for model in ("affine", "homography"):
        assert cli.main([*words, "--model", model]) == 0
        assert "matches are inliers" in capsys.readouterr().out
        # The whole picture and a box in it had the same small print.
        drawn = (pictures / "out.svg").read_text("utf-8")
        assert "scene.png, box 20, 20, 200, 150, and scene.png" in drawn
    assert cli.main(["plot", "matches", str(scene), str(blank), "--out", svg]) == 0
    capsys.readouterr()
    assert cli.main(["plot", "keypoints", str(scene), "--out", str(pictures / "out.gif")]) == 1
    assert "must end in .png or .svg" in capsys.readouterr().err
    assert cli.main(["plot", "keypoints", str(pictures / "no.png"), "--out", svg]) == 1
    assert capsys.readouterr().err.startswith("error: ")
