"""The evaluation page on a tiny collection with stored runs: what it shows is what was measured."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_app import RANKS, Grey, start, table, text, upload
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df

from pages.parts import downloads, loaders
from pages.parts.evaluation import query_chart
from retrieval import index, methods
from retrieval.evaluation import evaluate, explain, runs
from retrieval.figures import files as figure_files


def result(app, rank):
    """The card of SIR's result at a rank."""
    (card,) = (one for one in app.button if (one.key or "").startswith(f"open-sir-{rank}-"))
    return card


def test_scores_are_those_of_evaluate(evaluated):
    app = start()
    assert "# Evaluation" in [one.value for one in app.markdown]
    shown = table(app, "Measured").set_index("Method")
    for name, ranks in RANKS.items():
        row = shown.loc[methods.METHODS[name].title]
        scores = evaluate(ranks, evaluated.collection)
        for protocol, one in scores.items():
            assert row[f"mAP {protocol.capitalize()}"] == round(100 * one.map, 2)
        for k, value in scores["medium"].mp.items():
            assert row[f"mP@{k}"] == round(100 * value, 2)
        assert row["Queries"] == 3
        assert row["Checkpoint"] == methods.METHODS[name].default
    assert "cannot be compared" in text(app)


def test_a_protocol_without_a_right_picture_is_not_offered(evaluated):
    queries = [
        dataclasses.replace(one, labels=one.labels | {"hard": np.array([], int)})
        for one in evaluated.collection.queries
    ]
    evaluated.collection = dataclasses.replace(evaluated.collection, queries=tuple(queries))
    for name, ranks in RANKS.items():
        runs.record_run(
            evaluated.built[name], evaluated.collection, ranks, {"search": np.full(3, 0.01)}
        )
    app = start(protocol="hard")
    # That of the chosen protocol comes first: a telephone shows one column beside the methods.
    assert list(table(app, "Measured").filter(like="mAP")) == ["mAP Medium", "mAP Easy"]


def test_protocol_changes_precision_and_queries(evaluated):
    app = start()
    app.segmented_control(key="eval-protocol").set_value("hard").run()
    row = table(app, "Measured").set_index("Method").loc["SIR"]
    hard = evaluate(RANKS["sir"], evaluated.collection)["hard"]
    assert row["mP@1"] == round(100 * hard.mp[1], 2)
    assert row["Queries"] == 2
    assert app.selectbox(key="eval-query").options == ["red tower · q0", "blue gate · q2"]
    assert app.query_params["protocol"] == "hard"


def test_every_number_of_an_ap(evaluated):
    app = start(query="q0.png", method="sir", against="nothing", protocol="medium")
    told = explain(RANKS["sir"][:, 0], evaluated.collection.queries[0].labels, "medium")
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


def test_ranked_list_is_marked(evaluated):
    app = start(query="q0.png", method="sir", against="nothing", protocol="medium")
    hits = [one.label.replace("\\", "") for one in app.button if one.key.startswith("open-sir-")]
    assert hits[:4] == [
        "1: 3.png, left out of the score",
        "2: 0.png, same landmark",
        "3: 7.png, another place",
        "4: 1.png, same landmark",
    ]
    result(app, 3).click().run()
    assert not app.exception
    assert "Rank **3** of SIR" in text(app)


def test_a_result_of_a_query_that_was_left_is_not_one_of_the_next(evaluated):
    """A click on the former page, while the next one is on its way, brings the former query.

    The dialog then showed that query with a result of the next one.
    """
    app = start(query="q0.png", method="sir", against="nothing", protocol="medium")
    left, query = result(app, 3), app.selectbox(key="eval-query")._widget_state
    name = left.label.split(": ")[1].partition(",")[0]
    app.selectbox(key="eval-query").set_value(2).run()
    assert name not in result(app, 3).label
    late = app._tree.get_widget_states()
    kept = [one for one in late.widgets if one.id != query.id]
    del late.widgets[:]
    late.widgets.extend([*kept, query, left.click()._widget_state])
    app._run(late)
    assert app.selectbox(key="eval-query").value == 0
    assert f"Rank **3** of SIR: {name}" in text(app)
    # Where the next query was chosen in the list, the browser names that one.
    app.selectbox(key="eval-query").set_value(2).run()
    late = app._tree.get_widget_states()
    late.widgets.append(left.click()._widget_state)
    app._run(late)
    assert app.selectbox(key="eval-query").value == 2
    assert "Rank **3** of SIR" not in text(app)


def test_a_chart_of_a_collection_that_was_left_opens_nothing(monkeypatch):
    """Its selection comes with every click on the former page, as its key is gone from the next."""
    chosen = {"selection": {"pick": [{"number": 5}]}}
    state = {"eval-chart": "new", "new": chosen, "old": chosen}
    monkeypatch.setattr(query_chart, "state", state)
    monkeypatch.setattr(query_chart.scroll, "show", lambda key: None)
    query_chart.open_clicked("old")
    assert "eval-query" not in state
    query_chart.open_clicked("new")
    assert state["eval-query"] == 5


def test_chart_holds_the_aps_of_both_methods(evaluated):
    app = start(method="sir", against="cnn-irwnha", protocol="easy")
    (chart,) = app.get("vega_lite_chart")
    rows = convert_arrow_bytes_to_pandas_df(chart.proto.data.data).to_dict("records")
    easy = {
        name: evaluate(ranks, evaluated.collection)["easy"].aps for name, ranks in RANKS.items()
    }
    for row in rows:
        assert row["ap0"] == round(easy["sir"][row["number"]], 6)
        assert row["ap1"] == round(easy["cnn-irwnha"][row["number"]], 6)
    order = [row["number"] for row in rows]
    assert order == sorted(order, key=lambda n: -easy["sir"][n])


def test_chart_shows_the_methods_that_are_not_compared_and_groups_landmarks(evaluated):
    app = start(method="sir", against="nothing", protocol="medium")
    app.segmented_control(key="eval-order").set_value("collection").run()
    (chart,) = app.get("vega_lite_chart")
    rows = convert_arrow_bytes_to_pandas_df(chart.proto.data.data).to_dict("records")
    medium = evaluate(RANKS["cnn-irwnha"], evaluated.collection)["medium"].aps
    assert [row["ap1"] for row in rows] == [round(medium[row["number"]], 6) for row in rows]
    assert [row["band"] for row in rows] == [False, True, True]
    axis = json.loads(chart.proto.spec)["layer"][0]["encoding"]["x"]["axis"]
    assert axis["labelExpr"] == '{"0": "red tower", "2": "blue gate"}[datum.value]'


@pytest.mark.parametrize(("order", "end"), [("AP", "AP of the first method"), ("collection", "")])
def test_a_chart_of_very_many_queries_shows_the_first(evaluated, order, end, monkeypatch):
    monkeypatch.setattr(query_chart, "MAX_COLUMNS", 2)
    app = start(method="sir", against="nothing", protocol="medium")
    app.segmented_control(key="eval-order").set_value(order).run()
    (chart,) = app.get("vega_lite_chart")
    rows = convert_arrow_bytes_to_pandas_df(chart.proto.data.data)
    assert list(rows["number"]) == ([0, 1] if order == "collection" else [1, 0])
    assert "The first 2 of 3 queries, by" in chart.proto.spec
    assert end in chart.proto.spec
    assert len(app.selectbox(key="eval-query").options) == 3


def test_link_and_search_link(evaluated):
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


def test_a_link_brings_the_order_and_the_view_of_all_queries(evaluated):
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
def test_all_queries_together(evaluated, what):
    app = start()
    app.segmented_control(key="eval-together").set_value(what).run()
    assert not app.exception
    # The curves show all methods.
    assert ("methods compared above" in text(app)) == (what in ("Distribution", "Landmarks"))
    if what == "Hardest and easiest":
        medium = evaluate(RANKS["cnn-irwnha"], evaluated.collection)["medium"].aps
        app.button(key=f"open-edge-Hardest-{medium.argmin()}").click().run()
        assert app.selectbox(key="eval-query").value == medium.argmin()


def test_files_say_what_their_numbers_are(evaluated, monkeypatch):
    """Some were in per cent and some from 0 to 1, and no header said so."""
    files = {}
    monkeypatch.setattr(
        downloads, "download", lambda label, data, name, mime: files.update({name: data})
    )
    path = dict(evaluated.indexes)["sir"]
    runs.evaluate_index(index.load(path), evaluated.collection, Grey("sir"), then=["diffusion"])
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
    made = runs.load_run(index.load(path), evaluated.collection, ("diffusion",)).record["made"]
    assert reranked[0]["Measured"] == str(made)[:10]
    assert header("medium-queries")[2:4] == ["AP CNN-IRwNHA", "AP SIR"]
    assert header("medium-precision")[1:3] == ["Precision CNN-IRwNHA", "Precision SIR"]
    app.segmented_control(key="eval-together").set_value("Landmarks").run()
    assert header("medium-landmarks")[1:3] == ["Mean AP CNN-IRwNHA", "Mean AP SIR"]


def test_without_pictures_names_are_shown(evaluated):
    evaluated.collection = dataclasses.replace(evaluated.collection, root=Path("/nowhere"))
    app = start(query="q0.png", method="sir", against="nothing")
    assert "you see their names" in text(app)
    assert table(app, "Rank")["Picture"].tolist()[:2] == ["3.png", "0.png"]
    app.segmented_control(key="eval-together").set_value("Hardest and easiest").run()
    assert not app.exception
    columns = ["Query", "Landmark", "AP", "Right pictures"]
    assert columns in [list(one.value.columns) for one in app.dataframe]


def test_without_labels_or_indexes(evaluated):
    evaluated.indexes = []
    app = start()
    assert "There is no index of Little collection" in text(app)
    evaluated.collection = dataclasses.replace(evaluated.collection, queries=())
    assert "There is no ground truth for Little collection" in text(start())


def test_no_collection_at_all(evaluated, monkeypatch):
    monkeypatch.setattr(loaders, "collection_titles", dict)
    app = start()
    assert "no collection on this machine" in text(app)
    assert table(app, "Source")["mAP Hard"].tolist()[0] == 2.34


def test_figures_are_drawn_once(evaluated, monkeypatch):
    start()
    drawn = []
    monkeypatch.setattr(figure_files, "encode", lambda *args: drawn.append(args) or b"")
    start()
    assert drawn == []
