"""The evaluation page on a tiny collection with stored runs: what it shows is what was measured."""

import csv
import dataclasses
import io
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest
from stubs import Registered

from pages.parts import cards, downloads, loaders, turns
from pages.parts.cache import Cache
from pages.parts.evaluation import query_chart
from pages.parts.evaluation import runs as evaluation_runs
from pages.parts.plain import plain
from retrieval import index, methods
from retrieval.collections import collection as collections
from retrieval.evaluation import evaluate, explain, runs, submissions
from retrieval.figures import files as figure_files

ROOT = Path(__file__).parents[2]
NAMES = tuple(f"{n}.png" for n in range(8))
QUERIES = [
    {"image": "q0.png", "landmark": "red_tower", "bbox": [0, 0, 20, 30],
     "easy": ["0.png", "1.png"], "hard": ["2.png"], "junk": ["3.png"]},
    {"image": "q1.png", "landmark": "blue_gate", "bbox": None,
     "easy": ["4.png"], "hard": [], "junk": []},
    {"image": "q2.png", "landmark": "blue_gate", "bbox": None,
     "easy": ["5.png"], "hard": ["6.png"], "junk": ["4.png"]},
]  # fmt: skip
RANKS = {
    "sir": np.array(
        [[3, 0, 7, 1, 6, 2, 5, 4], [4, 0, 1, 2, 3, 5, 6, 7], [0, 6, 4, 5, 1, 2, 3, 7]]
    ).T,
    "cnn-irwnha": np.array(
        [[0, 3, 1, 2, 4, 5, 6, 7], [0, 4, 1, 2, 3, 5, 6, 7], [5, 6, 0, 1, 2, 3, 4, 7]]
    ).T,
}


class Grey(Registered):
    """Says how bright a picture is."""

    def describe(self, picture, box=None):
        vector = np.asarray(picture.resize((2, 2)), np.float32).ravel() + 1
        return vector / np.linalg.norm(vector)


@pytest.fixture
def little(tmp_path, monkeypatch):
    """The collection is installed, with an evaluated index for two of the three methods."""
    folder = tmp_path / "little"
    folder.mkdir()
    for n, name in enumerate((*NAMES, "q0.png", "q1.png", "q2.png")):
        Image.new("RGB", (40, 30), (20 * n, 90, 255 - 20 * n)).save(folder / name)
    (folder / "ground_truth.json").write_text(json.dumps({"database": NAMES, "queries": QUERIES}))
    opened = dataclasses.replace(
        collections.open_collection(folder), name="little", title="Little collection"
    )
    made = SimpleNamespace(collection=opened, indexes=[], built={})
    for name, ranks in RANKS.items():
        built = index.build(opened, Grey(name), tmp_path / "indexes" / name)
        runs.record_run(built, opened, ranks, {"search": np.full(3, 0.01)})
        made.built[name] = built
        made.indexes.append((name, built.path))
    for cached in (loaders._method, loaders._index, loaders._run):
        cached.clear()
    monkeypatch.setattr(loaders, "CACHE", Cache(1 << 27))
    monkeypatch.setattr(methods, "load_record", lambda record, **_: Grey(record.method))
    monkeypatch.setattr(loaders, "collection_titles", lambda: {"little": "Little collection"})
    monkeypatch.setattr(loaders, "collection", lambda name: made.collection)
    monkeypatch.setattr(index, "find_all", lambda name: made.indexes)
    monkeypatch.setattr(index, "find", lambda name: dict(made.indexes))
    return made


def start(**link):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.switch_page("pages/evaluation.py")
    for name, value in link.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def table(app, column):
    """The first table that has this column."""
    return next(one.value for one in app.dataframe if column in one.value.columns)


def text(app):
    kinds = (app.markdown, app.caption, app.info, app.warning, app.error)
    return "\n".join(one.value for kind in kinds for one in kind)


def test_scores_are_those_of_evaluate(little):
    app = start()
    assert "# Evaluation" in [one.value for one in app.markdown]
    shown = table(app, "Measured").set_index("Method")
    for name, ranks in RANKS.items():
        row = shown.loc[methods.METHODS[name].title]
        scores = evaluate(ranks, little.collection)
        for protocol, one in scores.items():
            assert row[f"mAP {protocol.capitalize()}"] == round(100 * one.map, 2)
        for k, value in scores["medium"].mp.items():
            assert row[f"mP@{k}"] == round(100 * value, 2)
        assert row["Queries"] == 3
        assert row["Checkpoint"] == methods.METHODS[name].default
    assert "cannot be compared" in text(app)


def test_rankings_that_the_memory_would_not_hold_together(little, monkeypatch):
    """Each may have a gigabyte, packed into one megabyte, and all of a page were loaded."""
    one = SimpleNamespace(MAX_ARRAYS=4 * len(NAMES) * len(QUERIES))  # run that may be loaded
    monkeypatch.setattr(evaluation_runs, "files", one)
    app = start()
    assert list(table(app, "Measured")["Method"]) == ["SIR"]
    assert "so the page shows only these evaluations" in text(app)
    # A method goes before what re-rankers made of another one.
    sir = little.built["sir"]
    runs.evaluate_index(sir, little.collection, Grey("sir"), then=["diffusion"])
    one.MAX_ARRAYS *= 2
    assert list(table(start(), "Measured")["Method"]) == ["SIR", "CNN-IRwNHA"]
    (little.built["cnn-irwnha"].path / "evaluation.json").unlink()
    assert start().selectbox(key="eval-method").options == ["SIR", "SIR + Diffusion"]


def test_what_an_index_calls_its_network_is_no_markdown(little):
    """It could ask another host for a picture, in the browser of every visitor."""
    made = little.built["sir"]
    method = Grey("sir")
    method.checkpoint = SimpleNamespace(id="![x](https://a.example/x.png)", sha256="0" * 64)
    other = index.build(little.collection, method, made.path.with_name("**other**"))
    runs.record_run(other, little.collection, RANKS["sir"], {"search": np.full(3, 0.01)})
    little.indexes.append(("sir", other.path))
    app = start(query="q0.png", method="**other**", against="nothing")
    assert "SIR with" in text(app)
    assert "![x]" not in text(app)
    assert "SIR, **other**" not in text(app)


def test_rankings_that_were_cut_off_are_named(little):
    assert "too low" not in text(start())
    cut_off = np.where(np.arange(8)[:, None] < 5, RANKS["sir"], -1)
    runs.record_run(little.built["sir"], little.collection, cut_off, {"search": np.full(3, 0.01)})
    assert "ends with the best 5 of 8 pictures" in text(start())


def test_a_protocol_without_a_right_picture_is_not_offered(little):
    queries = [
        dataclasses.replace(one, labels=one.labels | {"hard": np.array([], int)})
        for one in little.collection.queries
    ]
    little.collection = dataclasses.replace(little.collection, queries=tuple(queries))
    for name, ranks in RANKS.items():
        runs.record_run(little.built[name], little.collection, ranks, {"search": np.full(3, 0.01)})
    app = start(protocol="hard")
    # That of the chosen protocol comes first: a telephone shows one column beside the methods.
    assert list(table(app, "Measured").filter(like="mAP")) == ["mAP Medium", "mAP Easy"]


def test_protocol_changes_precision_and_queries(little):
    app = start()
    app.segmented_control(key="eval-protocol").set_value("hard").run()
    row = table(app, "Measured").set_index("Method").loc["SIR"]
    hard = evaluate(RANKS["sir"], little.collection)["hard"]
    assert row["mP@1"] == round(100 * hard.mp[1], 2)
    assert row["Queries"] == 2
    assert app.selectbox(key="eval-query").options == ["red tower · q0", "blue gate · q2"]
    assert app.query_params["protocol"] == "hard"


def test_every_number_of_an_ap(little):
    app = start(query="q0.png", method="sir", against="nothing", protocol="medium")
    told = explain(RANKS["sir"][:, 0], little.collection.queries[0].labels, "medium")
    shown = table(app, "Area")
    assert shown["Listed at"].tolist() == [step.raw_rank for step in told.steps] == [2, 4, 6]
    assert shown["Counts at"].tolist() == [step.rank for step in told.steps] == [1, 3, 5]
    assert shown["Area"].sum() == pytest.approx(told.average_precision)
    assert shown["p⁺"].tolist() == pytest.approx([1, 2 / 3, 3 / 5])
    assert f"3 areas sum to **{told.average_precision:.4f}**" in text(app)
    assert "stands at rank **3** (listed at 4, but 1 picture above it is left out)" in text(app)
    strips = [one.value for one in app.html if 'class="strip"' in one.value]
    assert [one.count('class="chip positive"') for one in strips] == [3, 3]
    assert [one.count('class="chip ignored"') for one in strips] == [1, 0]
    assert "… 2 more" in strips[0]
    assert any("mathrm{AP}" in one.value for one in app.latex)


def test_ranked_list_is_marked(little):
    app = start(query="q0.png", method="sir", against="nothing", protocol="medium")
    hits = [one.label.replace("\\", "") for one in app.button if one.key.startswith("open-sir-")]
    assert hits[:4] == [
        "1: 3.png, left out of the score",
        "2: 0.png, same landmark",
        "3: 7.png, another place",
        "4: 1.png, same landmark",
    ]
    app.button(key="open-sir-3").click().run()
    assert not app.exception
    assert "Rank **3** of SIR" in text(app)


def test_chart_holds_the_aps_of_both_methods(little):
    app = start(method="sir", against="cnn-irwnha", protocol="easy")
    (chart,) = app.get("vega_lite_chart")
    rows = convert_arrow_bytes_to_pandas_df(chart.proto.data.data).to_dict("records")
    easy = {name: evaluate(ranks, little.collection)["easy"].aps for name, ranks in RANKS.items()}
    for row in rows:
        assert row["ap0"] == round(easy["sir"][row["number"]], 6)
        assert row["ap1"] == round(easy["cnn-irwnha"][row["number"]], 6)
    order = [row["number"] for row in rows]
    assert order == sorted(order, key=lambda n: -easy["sir"][n])


def test_chart_shows_the_methods_that_are_not_compared_and_groups_landmarks(little):
    app = start(method="sir", against="nothing", protocol="medium")
    app.segmented_control(key="eval-order").set_value("collection").run()
    (chart,) = app.get("vega_lite_chart")
    rows = convert_arrow_bytes_to_pandas_df(chart.proto.data.data).to_dict("records")
    medium = evaluate(RANKS["cnn-irwnha"], little.collection)["medium"].aps
    assert [row["ap1"] for row in rows] == [round(medium[row["number"]], 6) for row in rows]
    assert [row["band"] for row in rows] == [False, True, True]
    axis = json.loads(chart.proto.spec)["layer"][0]["encoding"]["x"]["axis"]
    assert axis["labelExpr"] == '{"0": "red tower", "2": "blue gate"}[datum.value]'


@pytest.mark.parametrize(("order", "end"), [("AP", "AP of the first method"), ("collection", "")])
def test_a_chart_of_very_many_queries_shows_the_first(little, order, end, monkeypatch):
    monkeypatch.setattr(query_chart, "MAX_COLUMNS", 2)
    app = start(method="sir", against="nothing", protocol="medium")
    app.segmented_control(key="eval-order").set_value(order).run()
    (chart,) = app.get("vega_lite_chart")
    rows = convert_arrow_bytes_to_pandas_df(chart.proto.data.data)
    assert list(rows["number"]) == ([0, 1] if order == "collection" else [1, 0])
    assert "The first 2 of 3 queries, by" in chart.proto.spec
    assert end in chart.proto.spec
    assert len(app.selectbox(key="eval-query").options) == 3


def test_link_and_search_link(little):
    app = start(query="q0.png", method="sir", against="cnn-irwnha", protocol="easy")
    assert app.query_params == {
        "collection": "little",
        "query": "q0.png",
        "box": "0, 0, 20, 30",
        "protocol": "easy",
        "method": "sir",
        "against": "cnn-irwnha",
    }
    app = start(query="nobody.png", method="nobody", against="nobody", protocol="nobody")
    assert "no query here" in text(app)
    for protocol in ("nobody", "classic"):  # classic exists, but not here
        app = start(protocol=protocol)
        assert f"asks for the protocol {protocol}, which Little collection does not have" in text(
            app
        )
        assert app.query_params["protocol"] == "medium"
    app = start(collection="elsewhere")
    assert "not on this machine" in text(app)


def test_a_link_brings_the_order_and_the_view_of_all_queries(little):
    app = start(order="collection", together="Landmarks")
    assert app.segmented_control(key="eval-order").value == "collection"
    assert app.segmented_control(key="eval-together").value == "Landmarks"
    assert (app.query_params["order"], app.query_params["together"]) == ("collection", "Landmarks")
    app.segmented_control(key="eval-together").set_value("Distribution").run()
    assert app.query_params["together"] in ("Distribution", ["Distribution"])
    app = start(order="nothing", together="nothing")
    assert app.segmented_control(key="eval-order").value == "AP"
    assert app.segmented_control(key="eval-together").value == "Precision and recall"
    assert "together" not in app.query_params


@pytest.mark.parametrize(
    "what", ["Precision and recall", "Distribution", "Landmarks", "Hardest and easiest"]
)
def test_all_queries_together(little, what):
    app = start()
    app.segmented_control(key="eval-together").set_value(what).run()
    assert not app.exception
    # The curves show all methods.
    assert ("methods compared above" in text(app)) == (what in ("Distribution", "Landmarks"))
    if what == "Hardest and easiest":
        medium = evaluate(RANKS["cnn-irwnha"], little.collection)["medium"].aps
        app.button(key=f"open-edge-Hardest-{medium.argmin()}").click().run()
        assert app.selectbox(key="eval-query").value == medium.argmin()


def test_an_index_without_a_run_is_evaluated_on_request(little):
    path = dict(little.indexes)["sir"]
    (path / "evaluation.json").unlink()
    app = start()
    assert table(app, "Measured")["Method"].tolist() == ["CNN-IRwNHA"]
    assert "SIR index was not evaluated yet" in text(app)
    app.button(key="run-sir").click().run()
    assert not app.exception
    assert table(app, "Measured")["Method"].tolist() == ["SIR", "CNN-IRwNHA"]
    kept = runs.load_run(index.load(path), little.collection)
    shown = table(app, "Measured").set_index("Method").loc["SIR"]
    assert shown["mAP Medium"] == round(100 * kept.scores["medium"].map, 2)


def test_a_chain_is_not_shown_without_the_method_alone(little):
    """As when ``evaluate --then`` is stopped before it evaluates the method alone."""
    for name, path in little.indexes:
        opened = index.load(path)
        runs.evaluate_index(opened, little.collection, Grey(name), then=["diffusion"])
        (path / "evaluation.json").unlink()
    app = start()
    assert "SIR index was not evaluated yet" in text(app)
    app.button(key="run-sir").click().run()
    assert not app.exception
    [row] = table(app, "Alone").to_dict("records")
    assert row["Method"] == "SIR"


def test_a_chain_is_evaluated_on_request_kept_and_compared_with_the_method_alone(
    little, monkeypatch
):
    taken = []
    run = turns.WORKERS.run
    monkeypatch.setattr(turns.WORKERS, "run", lambda *work: taken.append(work) or run(*work))
    monkeypatch.setattr(evaluation_runs, "MAX_RERANKINGS", 1)
    app = start()
    assert "Nothing was evaluated with a re-ranker yet" in text(app)
    app.selectbox(key="rerank-index").set_value("cnn-irwnha").run()
    app.multiselect(key="rerank-then-global").set_value(["k-reciprocal", "diffusion"]).run()
    app.button(key="rerank-run").click().run()
    assert not app.exception
    path = dict(little.indexes)["cnn-irwnha"]
    kept = runs.load_run(index.load(path), little.collection, ("k-reciprocal", "diffusion"))
    [row] = table(app, "Alone").to_dict("records")
    assert row["Method"] == "CNN-IRwNHA"
    assert row["k-reciprocal, then Diffusion"] == round(100 * kept.scores["medium"].map, 2)
    assert app.query_params["method"] == "cnn-irwnha+k-reciprocal+diffusion"
    assert app.query_params["against"] == "cnn-irwnha"
    assert len(taken) == len(little.collection.queries), "each waits for those of others"
    # Visitors cannot fill the disk, nor everybody's page.
    app.multiselect(key="rerank-then-global").set_value(["k-reciprocal"]).run()
    assert app.button(key="rerank-run").disabled
    assert "the most that visitors may make" in "".join(one.value for one in app.caption)
    assert table(app, "Measured")["Method"].tolist() == ["SIR", "CNN-IRwNHA"]


def test_files_say_what_their_numbers_are(little, monkeypatch):
    """Some were in per cent and some from 0 to 1, and no header said so."""
    files = {}
    monkeypatch.setattr(
        downloads, "download", lambda label, data, name, mime: files.update({name: data})
    )
    path = dict(little.indexes)["sir"]
    runs.evaluate_index(index.load(path), little.collection, Grey("sir"), then=["diffusion"])
    app = upload(start(), ranks=RANKS["sir"])
    assert "mAP Medium" in table(app, "Measured").columns  # no wider than before
    assert list(table(app, "Alone").columns) == ["Method", "Alone", "Diffusion"]

    def header(name):
        return files[f"little-{name}.csv"]().decode("utf-8-sig").splitlines()[0].split(",")

    rest = ["Queries", "Checkpoint", "Measured"]
    scores = ["mAP (%)", "mP@1 (%)", "mP@5 (%)", "mP@10 (%)"]
    assert header("scores") == header("upload") == ["Method", "Protocol", *scores, *rest]
    reranked = list(
        csv.DictReader(files["little-medium-reranked.csv"]().decode("utf-8-sig").splitlines())
    )
    assert list(reranked[0]) == [
        "Method",
        "mAP (%), Alone",
        "mAP (%), Diffusion",
        "Checkpoint",
        "Measured",
    ]
    assert reranked[0]["Checkpoint"] == methods.METHODS["sir"].default
    made = runs.load_run(index.load(path), little.collection, ("diffusion",)).record["made"]
    assert reranked[0]["Measured"] == str(made)[:10]
    assert header("medium-queries")[2:4] == ["AP CNN-IRwNHA", "AP SIR"]
    assert header("medium-precision")[1:3] == ["Precision CNN-IRwNHA", "Precision SIR"]
    app.segmented_control(key="eval-together").set_value("Landmarks").run()
    assert header("medium-landmarks")[1:3] == ["Mean AP CNN-IRwNHA", "Mean AP SIR"]


def test_a_chain_that_no_page_offers_is_refused(little):
    """It would be kept beside the index, and be on the page of everybody."""
    app = start()
    kept = {file for _, path in little.indexes for file in path.iterdir()}
    app.multiselect(key="rerank-then-global").set_value(["diffusion"] * 3)
    app.button(key="rerank-run").click().run()
    assert {file for _, path in little.indexes for file in path.iterdir()} == kept
    assert not app.exception
    assert "ranker" in app.error[0].value


def test_a_run_of_other_labels_is_refused_with_the_reason(little):
    path = dict(little.indexes)["sir"] / "evaluation.json"
    path.write_text(path.read_text().replace('"labels_sha256": "', '"labels_sha256": "0'))
    app = start()
    assert "of an earlier index" in app.warning[0].value
    assert table(app, "Measured")["Method"].tolist() == ["CNN-IRwNHA"]


def test_without_pictures_names_are_shown(little):
    little.collection = dataclasses.replace(little.collection, root=Path("/nowhere"))
    app = start(query="q0.png", method="sir", against="nothing")
    assert "you see their names" in text(app)
    assert table(app, "Rank")["Picture"].tolist()[:2] == ["3.png", "0.png"]
    app.segmented_control(key="eval-together").set_value("Hardest and easiest").run()
    assert not app.exception
    columns = ["Query", "Landmark", "AP", "Right pictures"]
    assert columns in [list(one.value.columns) for one in app.dataframe]


def test_without_labels_or_indexes(little):
    little.indexes = []
    app = start()
    assert "There is no index of Little collection" in text(app)
    little.collection = dataclasses.replace(little.collection, queries=())
    assert "There is no ground truth for Little collection" in text(start())


def test_no_collection_at_all(little, monkeypatch):
    monkeypatch.setattr(loaders, "collection_titles", dict)
    app = start()
    assert "no collection on this machine" in text(app)
    assert table(app, "Source")["mAP Hard"].tolist()[0] == 2.34


def upload(app, **arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    app.file_uploader(key="eval-upload").upload("mine.npz", file.getvalue(), "application/zip")
    app.run()
    assert not app.exception
    return app


def test_own_ranking_is_scored_and_can_be_looked_into(little):
    app = upload(start(), ranks=RANKS["sir"])
    medium = evaluate(RANKS["sir"], little.collection)["medium"]
    shown = table(app, "Protocol").set_index("Protocol")
    assert shown.loc["medium", "mAP"] == round(100 * medium.map, 2)
    app.selectbox(key="eval-method").set_value("upload").run()
    assert not app.exception
    assert plain("mine.npz") in text(app)


def test_searches_do_not_wait_for_own_rankings(little, monkeypatch):
    """Two files of 196 MB, nearly all of it blocks that hold nothing, kept them for two minutes."""
    read, taken, at_work = submissions.read_submission, [], []

    def reading(*arguments):
        taken.extend(kind for kind, _ in turns.taken)
        at_work.append(turns.WORKERS._at_work.total())
        return read(*arguments)

    monkeypatch.setattr(submissions, "read_submission", reading)
    assert not upload(start(), ranks=RANKS["sir"]).error
    assert (taken, at_work) == (["ranking"], [0])


def test_own_rankings_of_all_sessions_have_a_limit(little, monkeypatch):
    """Each session kept one, of up to 250 MB where a collection is large, without a limit."""
    before = loaders.PRIVATE.bytes
    upload(start(), ranks=RANKS["sir"])
    assert loaders.PRIVATE.bytes >= before + RANKS["sir"].astype(np.int32).nbytes
    monkeypatch.setattr(loaders.PRIVATE, "max_bytes", 100)
    app = upload(start(), ranks=RANKS["sir"])
    assert loaders.PRIVATE.bytes <= 100
    assert not table(app, "Protocol").empty


def test_own_ranking_that_is_short_says_so(little):
    app = upload(start(), ranks=RANKS["sir"][:4])
    assert "ranks only 4 of the 8 pictures" in app.warning[0].value
    assert not upload(start(), ranks=RANKS["sir"]).warning


def test_own_ranking_that_does_not_fit(little):
    app = upload(start(), ranks=RANKS["sir"].T)
    assert "rankings have 8 columns for 3 queries" in app.error[0].value
    app.file_uploader(key="eval-upload").upload("x.npz", b"no archive", "application/zip").run()
    assert "The file must be an" in app.error[0].value


def test_figures_are_drawn_once(little, monkeypatch):
    start()
    drawn = []
    monkeypatch.setattr(figure_files, "encode", lambda *args: drawn.append(args) or b"")
    start()
    assert drawn == []


def test_an_index_that_is_removed_while_the_page_looks(little, monkeypatch):
    run = loaders.run

    def removed(path, *rest):
        found = run(path, *rest)
        if path.name == "sir":
            shutil.rmtree(path)
        return found

    monkeypatch.setattr(loaders, "run", removed)
    app = start()
    assert table(app, "Measured")["Method"].tolist() == ["CNN-IRwNHA"]
    assert "No such file" in text(app)


def test_without_the_query_boxes(little, monkeypatch):
    app = start()
    with_boxes = table(app, "Measured").set_index("Method")["mAP Medium"]["SIR"]
    app.toggle(key="eval-whole").set_value(True).run()
    assert "The SIR index was not evaluated yet." in text(app)
    app.button(key="run-sir").click().run()
    assert not app.exception, app.exception
    assert table(app, "Measured")["Method"].tolist() == ["SIR"]
    assert f"With their boxes the queries gave mAP {with_boxes:.2f} (SIR)." in text(app)
    assert "--no-boxes" not in text(app)  # these indexes are elsewhere
    monkeypatch.setattr(evaluation_runs, "PRECOMPUTED", little.built["sir"].path.parent)
    app.run()
    command = f"python -m retrieval evaluate {os.path.relpath(little.built['sir'].path)} --no-boxes"
    assert f"`{command}` measures the first row again." in text(app)
    assert app.query_params["boxes"] == "no"
    app.toggle(key="eval-whole").set_value(False).run()
    assert table(app, "Measured").set_index("Method")["mAP Medium"]["SIR"] == with_boxes


@pytest.mark.parametrize(
    "box", [(0, 0, 2e9, 2e9), (-1e300, 5, 1e300, 6), (9e8, 9e8, 1e9, 1e9), (100, 100, 108, 108)]
)
def test_a_box_is_drawn_inside_its_picture(box, monkeypatch):
    """A box of two billion pixels, in a visitor's ground truth, stopped the app for minutes: Pillow
    goes along its edges. One of a few pixels in a large picture was a traceback.
    """
    drawn, rectangle = [], ImageDraw.ImageDraw.rectangle

    def noted(pen, corners, **style):
        drawn.append(corners)
        if max(map(abs, corners)) < 1e5:
            rectangle(pen, corners, **style)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", noted)
    data = io.BytesIO()
    Image.new("RGB", (800, 600)).save(data, "JPEG")
    assert cards.boxed(data.getvalue(), (8000, 6000), box).size == (800, 600)
    for left, top, right, bottom in drawn:
        assert 0 <= left <= right < 800
        assert 0 <= top <= bottom < 600
    assert len(drawn) == 2
