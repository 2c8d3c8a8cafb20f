"""The evaluation page and the runs of indexes: which it shows, and those that visitors ask for."""

import os
import shutil
from types import SimpleNamespace

import numpy as np
from evaluation_app import NAMES, QUERIES, RANKS, Grey, start, table, text

from pages.parts import loaders, turns
from pages.parts.evaluation import runs as evaluation_runs
from retrieval import index
from retrieval.evaluation import runs


def test_rankings_that_the_memory_would_not_hold_together(evaluated, monkeypatch):
    """Each may have a gigabyte, packed into one megabyte, and all of a page were loaded."""
    one = SimpleNamespace(MAX_ARRAYS=4 * len(NAMES) * len(QUERIES))  # run that may be loaded
    monkeypatch.setattr(evaluation_runs, "files", one)
    app = start()
    assert list(table(app, "Measured")["Method"]) == ["SIR"]
    assert "so the page shows only these evaluations" in text(app)
    # A method goes before what re-rankers made of another one.
    sir = evaluated.built["sir"]
    runs.evaluate_index(sir, evaluated.collection, Grey("sir"), then=["diffusion"])
    one.MAX_ARRAYS *= 2
    app = start()
    assert list(table(app, "Measured")["Method"]) == ["SIR", "CNN-IRwNHA"]
    assert "so the page shows only these evaluations" in text(app)
    (sir.path / "evaluation-diffusion.json").unlink()
    assert "so the page shows only these evaluations" not in text(start())  # there is no other
    runs.evaluate_index(sir, evaluated.collection, Grey("sir"), then=["diffusion"])
    (evaluated.built["cnn-irwnha"].path / "evaluation.json").unlink()
    app = start()
    assert app.selectbox(key="eval-method").options == ["SIR", "SIR + Diffusion"]
    # One that has no evaluation is not left out for want of room.
    one.MAX_ARRAYS //= 2
    (sir.path / "evaluation-diffusion.json").unlink()
    assert "so the page shows only these evaluations" not in text(start())
    assert "IRwNHA index was not evaluated yet" in text(start())


def test_what_an_index_calls_its_network_is_no_markdown(evaluated):
    """It could ask another host for a picture, in the browser of every visitor."""
    made = evaluated.built["sir"]
    method = Grey("sir")
    method.checkpoint = SimpleNamespace(id="![x](https://a.example/x.png)", sha256="0" * 64)
    other = index.build(evaluated.collection, method, made.path.with_name("**other**"))
    runs.record_run(other, evaluated.collection, RANKS["sir"], {"search": np.full(3, 0.01)})
    evaluated.indexes.append(("sir", other.path))
    app = start(query="q0.png", method="**other**", against="nothing")
    assert "SIR with" in text(app)
    assert "![x]" not in text(app)
    assert "SIR, **other**" not in text(app)


def test_rankings_that_were_cut_off_are_named(evaluated):
    assert "too low" not in text(start())
    cut_off = np.where(np.arange(8)[:, None] < 5, RANKS["sir"], -1)
    runs.record_run(
        evaluated.built["sir"], evaluated.collection, cut_off, {"search": np.full(3, 0.01)}
    )
    # It was said of all methods in the table.
    assert "SIR: Each ranking ends with the best 5 of 8 pictures" in text(start())


def test_an_index_without_a_run_is_evaluated_on_request(evaluated):
    path = dict(evaluated.indexes)["sir"]
    (path / "evaluation.json").unlink()
    app = start()
    assert table(app, "Measured")["Method"].tolist() == ["CNN-IRwNHA"]
    assert "SIR index was not evaluated yet" in text(app)
    app.button(key="run-sir").click().run()
    assert not app.exception
    assert table(app, "Measured")["Method"].tolist() == ["SIR", "CNN-IRwNHA"]
    kept = runs.load_run(index.load(path), evaluated.collection)
    shown = table(app, "Measured").set_index("Method").loc["SIR"]
    assert shown["mAP Medium"] == round(100 * kept.scores["medium"].map, 2)


def test_a_chain_is_not_shown_without_the_method_alone(evaluated):
    """As when ``evaluate --then`` is stopped before it evaluates the method alone."""
    for name, path in evaluated.indexes:
        opened = index.load(path)
        runs.evaluate_index(opened, evaluated.collection, Grey(name), then=["diffusion"])
        (path / "evaluation.json").unlink()
    app = start()
    assert "SIR index was not evaluated yet" in text(app)
    app.button(key="run-sir").click().run()
    assert not app.exception
    [row] = table(app, "Alone").to_dict("records")
    assert row["Method"] == "SIR"


def test_a_chain_is_evaluated_on_request_kept_and_compared_with_the_method_alone(
    evaluated, monkeypatch
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
    path = dict(evaluated.indexes)["cnn-irwnha"]
    kept = runs.load_run(index.load(path), evaluated.collection, ("k-reciprocal", "diffusion"))
    [row] = table(app, "Alone").to_dict("records")
    assert row["Method"] == "CNN-IRwNHA"
    assert row["k-reciprocal, then Diffusion"] == round(100 * kept.scores["medium"].map, 2)
    assert app.query_params["method"] == "cnn-irwnha+k-reciprocal+diffusion"
    assert app.query_params["against"] == "cnn-irwnha"
    assert len(taken) == len(evaluated.collection.queries), "each waits for those of others"
    # Visitors cannot fill the disk, nor everybody's page.
    app.multiselect(key="rerank-then-global").set_value(["k-reciprocal"]).run()
    assert app.button(key="rerank-run").disabled
    assert "the most that visitors may make" in "".join(one.value for one in app.caption)
    assert table(app, "Measured")["Method"].tolist() == ["SIR", "CNN-IRwNHA"]


def test_a_chain_that_no_page_offers_is_refused(evaluated):
    """It would be kept beside the index, and be on the page of everybody."""
    app = start()
    kept = {file for _, path in evaluated.indexes for file in path.iterdir()}
    app.multiselect(key="rerank-then-global").set_value(["diffusion"] * 3)
    app.button(key="rerank-run").click().run()
    assert {file for _, path in evaluated.indexes for file in path.iterdir()} == kept
    assert not app.exception
    assert "ranker" in app.error[0].value


def test_a_run_of_other_labels_is_refused_with_the_reason(evaluated):
    path = dict(evaluated.indexes)["sir"] / "evaluation.json"
    path.write_text(path.read_text().replace('"labels_sha256": "', '"labels_sha256": "0'))
    app = start()
    assert "of an earlier index" in app.warning[0].value
    assert table(app, "Measured")["Method"].tolist() == ["CNN-IRwNHA"]


def test_an_index_that_is_removed_while_the_page_looks(evaluated, monkeypatch):
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


def test_without_the_query_boxes(evaluated, monkeypatch):
    app = start()
    with_boxes = table(app, "Measured").set_index("Method")["mAP Medium"]["SIR"]
    app.toggle(key="eval-whole").set_value(True).run()
    assert "The SIR index was not evaluated yet." in text(app)
    app.button(key="run-sir").click().run()
    assert not app.exception, app.exception
    assert table(app, "Measured")["Method"].tolist() == ["SIR"]
    assert f"With their boxes the queries gave mAP {with_boxes:.2f} (SIR)." in text(app)
    assert "--no-boxes" not in text(app)  # these indexes are elsewhere
    monkeypatch.setattr(evaluation_runs, "PRECOMPUTED", evaluated.built["sir"].path.parent)
    app.run()
    command = (
        f"python -m retrieval evaluate {os.path.relpath(evaluated.built['sir'].path)} --no-boxes"
    )
    assert f"`{command}` measures the first row again." in text(app)
    assert app.query_params["boxes"] == "no"
    # Figures to download say it, and their files do not have the names of those with boxes.
    shown = text(app).replace("\\", "")
    assert "Little collection, queries without their boxes, Medium · SIR with" in shown
    assert any(
        one.key == "get-little-without-boxes-scores.csv" for one in app.get("download_button")
    )
    app.toggle(key="eval-whole").set_value(False).run()
    assert table(app, "Measured").set_index("Method")["mAP Medium"]["SIR"] == with_boxes
