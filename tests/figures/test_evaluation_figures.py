import io
from dataclasses import replace
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
from PIL import Image

from retrieval.collections.ground_truth import GroundTruth, Query
from retrieval.errors import RetrievalError
from retrieval.evaluation import evaluate, explain
from retrieval.figures import evaluation as plots
from retrieval.figures import files as figure_files
from retrieval.figures.style import METHOD_COLOURS

NOTE = "Shapes, easy · sir with colour · measured 2026-11-23"


@pytest.fixture
def truth():
    """Six pictures, three queries; the last has nothing right under 'hard'."""
    labels = (
        {"easy": [0, 1], "hard": [2], "junk": [3]},
        {"easy": [4], "hard": [5], "junk": []},
        {"easy": [2], "hard": [], "junk": []},
    )
    queries = tuple(
        Query(f"q{n}.jpg", landmark="red_tower" if n else r"gate $1 \frac{ $", labels=one)
        for n, one in enumerate(
            {kind: np.array(where, np.int64) for kind, where in one.items()} for one in labels
        )
    )
    return GroundTruth(tuple("abcdef"), queries)


@pytest.fixture
def scores(truth):
    perfect = np.array([[0, 1, 2, 3, 4, 5], [4, 5, 0, 1, 2, 3], [2, 0, 1, 3, 4, 5]]).T
    return {"SIR": perfect[::-1], "DELF": perfect}, {
        protocol: {
            "SIR": evaluate(perfect[::-1], truth)[protocol],
            "DELF": evaluate(perfect, truth)[protocol],
        }
        for protocol in ("easy", "medium", "hard")
    }


def test_queries_are_ordered_by_collection_ap_or_difference(scores):
    hard = scores[1]["hard"]
    assert plots.queries_order(hard, "collection").tolist() == [0, 1]
    easy = scores[1]["easy"]
    aps = easy["SIR"].aps
    assert plots.queries_order(easy, "AP").tolist() == np.argsort(-aps, kind="stable").tolist()
    lead = aps - easy["DELF"].aps
    assert plots.queries_order(easy, "difference").tolist() == np.argsort(-lead).tolist()


def test_every_figure_is_labelled_and_says_what_it_rests_on(truth, scores):
    for chosen in (scores[1]["easy"], {"SIR": scores[1]["easy"]["SIR"]}):
        for figure in (
            plots.per_query(chosen, truth.queries, NOTE, "AP"),
            plots.curves(chosen, NOTE),
            plots.distribution(chosen, NOTE),
            plots.landmarks(chosen, truth.queries, NOTE),
        ):
            (axes,) = figure.axes
            assert axes.get_xlabel()
            assert axes.get_ylabel() or axes.get_yticklabels()
            assert NOTE in [text.get_text() for text in figure.texts] + [figure.get_supxlabel()]
            assert figure_files.encode(figure, "png").startswith(b"\x89PNG")


def test_bars_markers_and_lines_have_the_values_of_the_scores(truth, scores):
    easy = scores[1]["easy"]
    (axes,) = plots.per_query({"SIR": easy["SIR"]}, truth.queries, NOTE).axes
    assert [bar.get_height() for bar in axes.patches] == easy["SIR"].aps.tolist()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["q0", "q1", "q2"]
    (axes,) = plots.distribution(easy, NOTE).axes
    assert sum(bar.get_height() for bar in axes.patches) == 6
    assert axes.patches[-1].get_height() == 3  # DELF is right everywhere
    edges = replace(easy["SIR"], aps=np.array([0.3, 0.6, 0.7]))
    (axes,) = plots.distribution({"SIR": edges}, NOTE).axes
    assert np.flatnonzero([bar.get_height() for bar in axes.patches]).tolist() == [3, 6, 7]
    (axes,) = plots.curves(easy, NOTE).axes
    assert np.array_equal(axes.lines[1].get_ydata(), easy["DELF"].curve)


def test_a_method_has_one_colour_and_each_run_its_own_marker():
    labels = ["DELF + Geometry", "SIR", "DELF", "CNN-IRwNHA, gem-lite0", "Your upload"]
    found = plots.styles(labels)
    assert found["DELF"].colour == found["DELF + Geometry"].colour == METHOD_COLOURS["delf"]
    assert [style.dashed for style in found.values()] == [False, False, True, False, False]
    assert len({style.marker for style in found.values()}) == len(labels)
    assert plots.styles(["delf, delf-lite0"])["delf, delf-lite0"].colour == found["DELF"].colour
    assert len(plots.styles(map(str, range(20)))) == 20  # more runs than markers


def test_a_figure_for_a_dark_page_is_dark_and_its_words_are_pale(scores):
    light, dark = (
        np.asarray(Image.open(io.BytesIO(figure_files.encode(figure, "png", on))).convert("L"))
        for figure, on in ((plots.curves(scores[1]["easy"], NOTE), on) for on in (False, True))
    )
    assert light[0, 0] == 255
    assert dark[0, 0] < 40
    assert np.quantile(dark, 0.999) > 200


def test_shaded_area_is_the_ap(truth, scores):
    told = explain(scores[0]["SIR"][:, 0], truth.queries[0].labels, "medium")
    (axes,) = plots.steps(told, NOTE).axes
    x, y = axes.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(told.average_precision, abs=1e-12)
    light_and_dark = [polygons.get_paths() for polygons in axes.collections]
    assert [len(paths) for paths in light_and_dark] == [(len(x) // 2 + 1) // 2, len(x) // 4]
    area = sum(
        abs(np.trapezoid(*path.vertices.T[::-1])) for paths in light_and_dark for path in paths
    )
    assert area == pytest.approx(told.average_precision, abs=1e-12)
    assert f"{told.average_precision:.4f}" in axes.get_title()
    none = explain(np.array([5, 4]), truth.queries[0].labels, "medium")
    assert figure_files.encode(plots.steps(none, NOTE), "svg")


def test_the_same_figure_gives_the_same_svg(scores):
    one, two = (figure_files.encode(plots.curves(scores[1]["easy"], NOTE), "svg") for _ in range(2))
    assert one == two


@pytest.mark.parametrize("name", [r"$5 and \frac{$", "a\x01b", "\udcff", "x" * 10_000])
def test_names_that_are_no_text_or_look_like_a_formula(scores, truth, name):
    queries = [replace(query, name=f"{name}.jpg") for query in truth.queries]
    found = {f"SIR, {name}": scores[1]["easy"]["SIR"], "DELF": scores[1]["easy"]["DELF"]}
    figure = plots.per_query(found, queries, f"{name}, easy\nby {name}")
    assert figure.texts[0].get_text().count("\n") == 1
    assert all(len(one.get_text()) <= 60 for one in figure.axes[0].get_xticklabels())
    minidom.parseString(figure_files.encode(figure, "svg"))


def test_long_landmarks_are_cut():
    """Two hundred of 300 combining letters, from a visitor's file, kept the drawing for 18 s."""
    query = Query("a.jpg", landmark="\u0301" * 300, labels={"easy": np.array([0])})
    found = evaluate(np.zeros((1, 1), np.int32), GroundTruth(("a",), (query,)))
    (axes,) = plots.landmarks({"SIR": found["easy"]}, [query], NOTE).axes
    (label,) = axes.get_yticklabels()
    assert len(label.get_text()) == plots.MAX_LABEL


def test_a_figure_of_more_than_max_items_shows_the_first(truth, monkeypatch):
    monkeypatch.setattr(plots, "MAX_ITEMS", 10)
    queries = [Query(f"{n}.jpg", landmark=f"tower {n}", labels={"easy": [0]}) for n in range(3000)]
    found = evaluate(np.zeros((1, 3000), np.int32), GroundTruth(("a",), tuple(queries)))
    for draw, words in ((plots.per_query, "first 10 of 3,000"), (plots.landmarks, "10 hardest of")):
        figure = draw({"SIR": found["easy"]}, queries, NOTE)
        assert words in figure.axes[0].get_xlabel()
        assert max(figure.get_size_inches()) < 20


def test_format_of_a_path_is_its_suffix():
    assert figure_files.format_of(Path("a/b.SVG")) == "svg"
    with pytest.raises(RetrievalError, match=r"must end in \.png or \.svg"):
        figure_files.format_of(Path("figure.jpg"))


def test_provenance_names_methods_once_and_all_days():
    record = {"made": "2026-11-23T10:00:00", "provenance": {"method": "sir", "checkpoint": "x"}}
    note = plots.provenance("Town", "hard", [record, record])
    assert note == "Town, Hard · SIR with x · measured 2026-11-23"


def test_provenance_names_what_re_ranked():
    then = [{"name": "geometry"}, {"name": "diffusion"}]
    stated = {"method": "sir", "checkpoint": "x", "then": then}
    note = plots.provenance("Town", "hard", [{"made": "2026-11-26", "provenance": stated}])
    assert "SIR with x, then geometry, then diffusion" in note
