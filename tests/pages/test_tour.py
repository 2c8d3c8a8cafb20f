"""What the tour says of its searches is what the stored runs say."""

from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from pages.parts import query
from pages.parts.search.tour import STOPS
from retrieval import images, index, methods
from retrieval.collections import PRECOMPUTED, open_collection
from retrieval.collections.ground_truth import same_landmark
from retrieval.evaluation import runs
from retrieval.ranking.search import rank_picture

INDEXES = [PRECOMPUTED / "town" / name for name in ("sir-lite0", "delf-lite0", "gem-lite0")]
pytestmark = pytest.mark.skipif(
    not all(path.is_dir() for path in INDEXES), reason="the embedded collection is not here"
)


def test_numbers_of_the_tour():
    town = open_collection("town")
    numbers = {query.name: number for number, query in enumerate(town.queries)}
    kept = [runs.load_run(index.load(path), town) for path in INDEXES]
    assert len(STOPS) == 6
    for stop in STOPS:
        if stop.name not in numbers:
            continue
        number = numbers[stop.name]
        labels = town.queries[number].labels
        right = np.concatenate([labels["easy"], labels["hard"]])
        found = [int(np.isin(run.ranks[:10, number], right).sum()) for run in kept]
        assert found == list(stop.right), stop.name


def test_the_answers_that_the_tour_names():
    town = open_collection("town")
    for path, name, ranks, found in (
        (INDEXES[0], "museum_017.jpg", [0], "exchange_"),
        (INDEXES[2], "exchange_019.jpg", [1, 2], "museum_"),
    ):
        run = runs.load_run(index.load(path), town)
        number = [query.name for query in town.queries].index(name)
        for rank in ranks:
            assert town.names[run.ranks[rank, number]].startswith(found)


def test_the_stop_that_is_no_prepared_query():
    town = open_collection("town")
    [stop] = {one.name: one for one in STOPS if one.name in town.names}.values()
    _, right, _ = same_landmark(town.queries, town.names.index(stop.name))
    wanted = {town.names[position] for position in right} - {stop.name}
    found = []
    for path in INDEXES:
        opened = index.load(path)
        picture = images.read(town.path(stop.name))
        ranking = rank_picture(
            opened, methods.for_index(opened), picture, collection=town, own=stop.name
        ).without(stop.name)
        found.append(sum(name in wanted for name in ranking.names[:10]))
    assert found == list(stop.right)


def test_where_two_measures_disagree():
    town = open_collection("town")
    number = [query.name for query in town.queries].index("priory_007.jpg")
    sir, delf, _ = (runs.load_run(index.load(path), town) for path in INDEXES)
    assert delf.scores["medium"].aps[number] > sir.scores["medium"].aps[number]
    labels = town.queries[number].labels
    right = np.concatenate([labels["easy"], labels["hard"]])
    assert np.isin(delf.ranks[:4, number], right).all()


def test_all_wrong_pictures_of_the_first_stop_are_of_other_places():
    town = open_collection("town")
    number = [query.name for query in town.queries].index("hall_004.jpg")
    first = runs.load_run(index.load(INDEXES[0]), town).ranks[:10, number]
    labels = town.queries[number].labels
    assert not np.isin(first, labels["junk"]).any()


def test_the_sentence_belongs_to_one_search():
    """Without the box of the query, or re-ranked, other numbers are on the page."""
    stop = STOPS[0]
    [asked] = [one for one in open_collection("town").queries if one.name == stop.name]
    link = {"collection": "town", "query": stop.name, "method": "all"}

    def guided(**more):
        app = AppTest.from_file(Path(__file__).parents[2] / "app.py", default_timeout=120)
        app.query_params.update(link | more)
        app.run()
        assert not app.exception, app.exception
        [text] = [one.value for one in app.markdown if one.value.startswith("**Tour, 1 of 6")]
        return text

    box = query.box_as_text(asked.box)
    assert stop.sentence in guided(box=box)
    for other in ({}, {"box": box, "then": "geometry"}, {"box": box, "judge": "hard"}):
        assert stop.sentence not in guided(**other)


def test_the_last_stop_leads_to_the_evaluation():
    app = AppTest.from_file(Path(__file__).parents[2] / "app.py", default_timeout=120)
    app.query_params.update({"collection": "town", "query": STOPS[-1].name, "method": "all"})
    app.run()
    assert not app.exception, app.exception
    links = [link.proto for link in app.get("page_link")]
    [link] = [link for link in links if link.label.startswith("All queries")]
    assert (link.page, link.query_string) == ("evaluation", "collection=town")


def test_a_class_that_guesses_first_is_asked_and_the_next_stop_asks_too():
    [asked] = [one for one in open_collection("town").queries if one.name == STOPS[0].name]
    app = AppTest.from_file(Path(__file__).parents[2] / "app.py", default_timeout=120)
    link = {"collection": "town", "query": asked.name, "method": "all", "hide": "yes"}
    app.query_params.update(link | {"box": query.box_as_text(asked.box)})
    app.run()
    assert not app.exception, app.exception
    [text] = [one.value for one in app.markdown if one.value.startswith("**Tour, 1 of 6")]
    assert "Guess first" in text
    assert STOPS[0].sentence not in text
    [onward] = [one.proto for one in app.get("page_link") if one.proto.label == "Next"]
    assert "hide=yes" in onward.query_string


def test_the_first_page_invites_to_the_tour_which_goes_on_and_back():
    app = AppTest.from_file(Path(__file__).parents[2] / "app.py", default_timeout=120).run()
    app.button(key="tour").click().run()
    assert not app.exception, app.exception
    assert (app.query_params["query"], app.query_params["method"]) == (STOPS[0].name, "all")
    [text] = [one.value for one in app.markdown if one.value.startswith("**Tour, 1 of 6")]
    assert STOPS[0].sentence in text

    def leads(name):
        app.query_params.clear()
        app.query_params.update({"collection": "town", "query": name, "method": "all"})
        links = [link.proto for link in app.run().get("page_link")]
        return {
            link.label: parse_qs(link.query_string)["query"][0]
            for link in links
            if link.label in ("Previous", "Next")
        }

    first, second, third = (stop.name for stop in STOPS[:3])
    assert leads(first) == {"Next": second}
    assert leads(second) == {"Previous": first, "Next": third}
    assert leads(STOPS[-1].name) == {"Previous": STOPS[-2].name}


def test_the_list_of_the_tour_does_not_tell_a_class_that_guesses():
    def told(**link):
        app = AppTest.from_file(Path(__file__).parents[2] / "app.py", default_timeout=120)
        app.query_params.update({"collection": "town"} | link)
        return STOPS[0].sentence in [one.value for one in app.run().markdown]

    assert told()
    assert not told(hide="yes")
