"""Rankings that visitors upload to the evaluation page."""

import threading

import numpy as np
from evaluation_app import RANKS, start, table, text, upload

from pages.parts import loaders, turns
from pages.parts.plain import plain
from retrieval.evaluation import evaluate, submissions


def test_own_ranking_is_scored_and_can_be_looked_into(evaluated):
    app = upload(start(), ranks=RANKS["sir"])
    medium = evaluate(RANKS["sir"], evaluated.collection)["medium"]
    shown = table(app, "Protocol").set_index("Protocol")
    assert shown.loc["medium", "mAP"] == round(100 * medium.map, 2)
    app.selectbox(key="eval-method").set_value("upload").run()
    assert not app.exception
    assert plain("mine.npz") in text(app)


def test_searches_do_not_wait_for_own_rankings(evaluated, monkeypatch):
    """Two files of 196 MB, nearly all of it blocks that hold nothing, kept them for two minutes."""
    read, taken, at_work = submissions.read_submission, [], []

    def reading(*arguments):
        taken.extend(kind for kind, _ in turns.taken)
        at_work.append(turns.WORKERS._at_work.total())
        return read(*arguments)

    monkeypatch.setattr(submissions, "read_submission", reading)
    assert not upload(start(), ranks=RANKS["sir"]).error
    assert (taken, at_work) == (["ranking"], [0])


def test_few_own_rankings_are_read_at_a_time(evaluated, monkeypatch):
    """Those of twelve clients, in files of 0.2 MB, took 3.5 GB."""
    read, readers = submissions.read_submission, []

    def reading(*arguments):
        readers.append(threading.current_thread())
        return read(*arguments)

    monkeypatch.setattr(submissions, "read_submission", reading)
    assert not upload(start(), ranks=RANKS["sir"]).error
    (reader,) = readers
    assert reader in turns.SCORERS._threads
    assert turns.SCORERS.count == turns.SCORERS.slow.count == 1


def test_an_own_ranking_that_takes_long_to_unpack_waits_for_such_ones(evaluated, monkeypatch):
    """Behind files of eight others, each 15 s of nothing, a ranking of 3 kB waited 40 s."""
    monkeypatch.setattr("retrieval.collections.archives.QUICK", -1)
    read, readers = submissions.read_submission, []

    def reading(*arguments):
        readers.append(threading.current_thread())
        return read(*arguments)

    monkeypatch.setattr(submissions, "read_submission", reading)
    app = upload(start(), ranks=RANKS["sir"])
    assert not app.error
    assert readers == [*turns.SCORERS._threads, *turns.SCORERS.slow._threads]
    assert not table(app, "Protocol").empty


def test_own_rankings_of_all_sessions_have_a_limit(evaluated, monkeypatch):
    """Each session kept one, of up to 250 MB where a collection is large, without a limit."""
    before = loaders.PRIVATE.bytes
    upload(start(), ranks=RANKS["sir"])
    assert loaders.PRIVATE.bytes >= before + RANKS["sir"].astype(np.int32).nbytes
    monkeypatch.setattr(loaders.PRIVATE, "max_bytes", 100)
    app = upload(start(), ranks=RANKS["sir"])
    assert loaders.PRIVATE.bytes <= 100
    assert not table(app, "Protocol").empty


def test_own_ranking_that_is_short_says_so(evaluated):
    app = upload(start(), ranks=RANKS["sir"][:4])
    assert "ranks only 4 of the 8 pictures" in app.warning[0].value
    assert not upload(start(), ranks=RANKS["sir"]).warning


def test_own_ranking_that_does_not_fit(evaluated):
    app = upload(start(), ranks=RANKS["sir"].T)
    assert "rankings have 8 columns for 3 queries" in app.error[0].value
    app.file_uploader(key="eval-upload").upload("x.npz", b"no archive", "application/zip").run()
    assert "The file must be an" in app.error[0].value
