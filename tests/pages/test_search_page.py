"""The search page driven without a browser, on a small collection and without a network."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from search_app import (
    BLUE,
    GREEN,
    RED,
    Colours,
    box_field,
    button,
    captions,
    encoded,
    go,
    hits,
    picture,
    start,
    text,
)

from pages.parts import cards, loaders, query
from pages.parts.search import browse
from retrieval import index
from retrieval.collections.credits import Credit
from retrieval.collections.ground_truth import Query
from retrieval.figures import style
from retrieval.networks import checkpoints
from retrieval.ranking import search
from retrieval.ranking.ranking import Ranking


def test_first_paint_offers_the_prepared_queries(little):
    app = start()
    assert "# Search by example" in [one.value for one in app.markdown]
    assert [button.label for button in app.button if button.key.startswith("open-browse-")] == [
        "Search with red tower · ask",
        r"Search with blue gate · ask\_blue",
    ]
    assert box_field(app).value == "0, 0, 32, 48"
    assert "query" not in app.query_params


def test_search_ranks_and_judges(little):
    app = go(start())
    assert hits(app)[:4] == [
        "1: red_0.png, same landmark",
        "2: red_1.png, same landmark",
        "3: red_2.png, same landmark",
        "4: red_3.png, left out of the score",
    ]
    assert all(hit.endswith("another place") for hit in hits(app)[4:])
    assert "3 pictures are right, by the labels of this query (protocol Medium)" in captions(app)
    assert "12 pictures" in text(app)
    assert checkpoints.find("cnn-irwnha").stands_in_for in text(app)


def test_a_method_without_a_colour_of_its_own(little, monkeypatch):
    monkeypatch.delitem(style.METHOD_COLOURS, "sir")
    app = go(start(method="all"))
    assert f'<span style="color:{style.OTHER_COLOUR}">●</span> SIR' in text(app)
    assert hits(app, "sir")[0].startswith("1: red_0.png")


def test_protocol_changes_the_verdicts(little):
    app = go(start())
    app.segmented_control(key="judge").set_value("hard").run()
    assert hits(app)[0] == "1: red_0.png, left out of the score"
    assert hits(app)[2] == "3: red_2.png, same landmark"


def test_clearing_and_typing_a_box(little):
    app = go(start())
    button(app, "clear").click().run()
    assert box_field(app).value == ""
    assert "box" not in app.query_params
    box_field(app).set_value("32 0 64 48").run()
    assert hits(app)[0].startswith("1: blue_0.png")
    assert app.query_params["box"] == "32 0 64 48"


@pytest.mark.parametrize(
    "box", ["30, 0, 10, 40", "500, 500, 600, 600", "1, 2, 3", "a b c d", "nan 0 9 9"]
)
def test_a_bad_box_is_explained(little, box):
    app = go(start())
    box_field(app).set_value(box).run()
    assert len(app.error) == 1
    assert not app.exception
    assert hits(app) == []
    button(app, "clear").click().run()
    assert not app.error
    assert hits(app)


def test_the_field_shows_the_part_of_a_box_that_is_searched(little):
    app = start(query="ask.png", box="32, 0, 9999, 48")
    assert box_field(app).value == app.query_params["box"] == "32, 0, 64, 48"
    box_field(app).set_value("-5, 0, 32, 48").run()
    assert box_field(app).value == "0, 0, 32, 48"


def test_another_query_does_not_inherit_the_box(little):
    app = go(start())
    app.selectbox(key="prepared").set_value(1).run()
    assert box_field(app).value == ""
    assert hits(app)[0] == "1: blue_0.png, same landmark"


def test_addresses_written_before_take_no_room(little):
    """Twenty with a forged box of 60,000 blanks took 5 MB of each tab, and a client has 2000."""
    app = go(start())
    for right in ("40", "50", "60"):
        box_field(app).set_value(f"0, 0, {right}, 48" + 60_000 * " ").run()
    assert len(app.query_params["box"]) > 60_000
    assert len(repr([app.session_state["written-before"], app.session_state["addresses"]])) < 1000


def test_a_quick_second_click_brings_an_address_from_before_the_first(little):
    """To follow it undid both: on a slow line, SIR came back after clicks on DELF, CNN-IRwNHA."""
    app = start(collection="little", method="cnn-irwnha", query="ask.png")
    first = dict(app.query_params)
    app.segmented_control(key="method").set_value("sir").run()
    app.query_params.clear()
    app.query_params.update(first)
    app.segmented_control(key="method").set_value("all").run()
    assert (app.session_state["method"], app.query_params["method"]) == ("all", "all")
    app.query_params.clear()
    app.query_params.update(first)
    app.segmented_control(key="method").set_value("cnn-irwnha").run()
    assert (app.session_state["method"], app.query_params["method"]) == ("cnn-irwnha",) * 2
    app.run()  # it has come: what the browser sends from now on is asked for
    app.query_params["method"] = "sir"
    app.run()
    assert app.session_state["method"] == "sir"


def test_a_quick_click_after_a_link_to_the_open_page_does_not_undo_the_link(little):
    app = start(collection="little", method="cnn-irwnha", query="ask.png")
    before = dict(app.query_params)
    app.query_params.clear()
    app.query_params.update(collection="little", query="green_1.png")
    app.run()
    app.query_params.clear()
    app.query_params.update(before)  # the browser has not received what the page wrote
    app.segmented_control(key="method").set_value("sir").run()
    assert (app.query_params["query"], app.query_params["method"]) == ("green_1.png", "sir")


def test_back_brings_the_usual_layout_which_an_address_does_not_name(little, monkeypatch):
    app = start(collection="little", method="cnn-irwnha", query="ask.png")
    before = dict(app.query_params)
    app.session_state["layout"] = "list"
    app.run()
    assert app.query_params["layout"] == "list"
    monkeypatch.setattr("pages.parts.address.goes_back", lambda: True)
    app.query_params.clear()
    app.query_params.update(before)
    app.run()
    assert app.session_state["layout"] == "grid"
    assert dict(app.query_params) == before


def test_back_leads_from_a_search_to_the_pictures_to_choose_from(little, monkeypatch):
    app = start(collection="little", method="cnn-irwnha")
    before = dict(app.query_params)
    assert hits(go(app))
    monkeypatch.setattr("pages.parts.address.goes_back", lambda: True)
    app.query_params.clear()
    app.query_params.update(before)
    app.run()
    assert not hits(app)
    assert dict(app.query_params) == before


def test_back_from_another_page_does_not_follow_the_parameters_of_that_page(little, monkeypatch):
    """In Chromium, "/?inliers=20" was a step of the history: the search lost its re-rankers."""
    app = start(collection="little", method="sir", query="ask.png", then="expansion", fold="yes")
    before = dict(app.query_params)
    monkeypatch.setattr("pages.parts.address.goes_back", lambda: True)
    of_groups = {"collection": "little", "inliers": "20", "page": "1"}
    app.session_state["addresses"]["groups-link"] = hash(frozenset(of_groups.items()))
    app.query_params.clear()
    app.query_params.update(of_groups)
    app.run()
    assert hits(app, "sir")
    assert dict(app.query_params) == before


def test_after_a_search_the_pictures_to_choose_from_are_at_the_page_of_before(little, monkeypatch):
    monkeypatch.setattr("pages.parts.search.browse.PER_PAGE", 2)
    app = start(collection="little", method="cnn-irwnha")
    app.segmented_control(key="source").set_value("Database").run()
    app.session_state["page"] = 2  # a test has no way to click on a number
    label = button(app.run(), "open-browse-0").label
    go(app).button(key="back").click().run()
    assert button(app, "open-browse-0").label == label
    assert app.session_state["page"] == 2


def test_the_address_holds_the_view(little):
    app = go(start())
    app.slider(key="count").set_value(6).run()
    app.segmented_control(key="method").set_value("sir").run()
    box_field(app).set_value("32, 0, 64, 48").run()
    link = dict(app.query_params)
    assert link == {
        "collection": "little",
        "method": "sir",
        "count": "6",
        "judge": "medium",
        "query": "ask.png",
        "box": "32, 0, 64, 48",
    }
    again = start(**link)
    assert hits(again, "sir") == hits(app, "sir")
    assert len(hits(again, "sir")) == 6


def test_the_lowest_score_says_of_what_it_is(little):
    plain, reranked = (start(collection="little", then=then) for then in ("", "expansion"))
    assert "This score is a cosine" in plain.number_input(key="least-cnn-irwnha").help
    assert "This score is that of the re-ranker" in (
        reranked.number_input(key="least-cnn-irwnha").help
    )


def test_a_link_to_a_database_picture(little):
    app = start(collection="little", query="green_1.png")
    assert hits(app)[0] == "1: green_2.png"  # the picture that asks is left out
    assert not any("green_1.png" in hit for hit in hits(app))
    assert app.segmented_control(key="source").value == "Database"


@pytest.mark.parametrize(("part", "what"), [("method", "the method"), ("judge", "the protocol")])
def test_a_link_to_a_method_or_protocol_that_there_is_not(little, part, what):
    app = start(collection="little", query="green_1.png", **{part: "sirr"})
    assert f"{what} sirr, which is unknown" in app.warning[0].value
    assert hits(app)[0] == "1: green_2.png"


@pytest.mark.parametrize("method", ["delf", "all"])
def test_a_chain_that_a_method_cannot_use(little, method):
    """It was dropped without a word, by a link and by a click on the method."""
    words = "Nothing is re-ranked now: Query expansion cannot be used with DELF."
    assert words in captions(start(method=method, then="geometry,expansion"))
    app = start(method="sir", then="geometry,expansion")
    assert words not in captions(app)
    app.segmented_control(key="method").set_value(method).run()
    assert words in captions(app)
    assert words not in captions(app.run())


@pytest.mark.parametrize(
    "link",
    [
        {"collection": "atlantis", "query": "x.jpg"},
        {"collection": "little", "query": "../../etc/passwd"},
        {"collection": "little", "query": "gone.png", "box": "1,2,3"},
    ],
)
def test_a_link_to_what_is_not_here(little, link):
    app = start(**link)
    assert "This link asks for" in app.warning[0].value
    assert hits(app) == []


def test_nonsense_in_a_link_is_survived(little):
    app = start(method="magic", count="-7", least="high", judge="harsh", box="]", nothing="1")
    assert app.slider(key="count").value == 12
    assert start(count="99999").slider(key="count").value == 60
    assert start(query="ask.png", box="nonsense").error


def test_least_score_and_number(little):
    app = go(start())
    app.number_input(key="least-cnn-irwnha").set_value(0.99).run()
    assert 0 < len(hits(app)) <= 4
    app.number_input(key="least-cnn-irwnha").set_value(2.0).run()
    assert hits(app) == []
    assert "No result has such a score" in app.info[0].value


def test_a_list_and_results_below_the_noise_folded_away(little, monkeypatch):
    link = {"collection": "little", "method": "sir", "query": "red_0.png"}
    plain = start(**link)
    scores = [
        float(one.value.split("cosine ")[1][:5]) for one in plain.markdown if "**1**" in one.value
    ]
    assert len(hits(plain, "sir")) == 11

    def folded(unrelated):
        found = np.zeros(1, np.float32), np.full(100, unrelated, np.float32)
        monkeypatch.setattr(loaders, "pair_cosines", lambda *_: found)
        app = start(**link, fold="yes", layout="list")
        assert app.query_params["layout"] in ("list", ["list"])
        assert hits(app, "sir") == hits(plain, "sir")  # nothing is lost, the order is the same
        [fold] = [one for one in app.expander if one.label.endswith("below the noise")]
        count = sum(one.key.startswith("open-") for one in fold.button)
        assert fold.label.startswith(f"{count} result")
        return count, [one.value for one in app.info]

    assert folded(scores[0] - 1e-3)[0] == 10
    assert folded(1.0) == (11, ["No result stands out from the noise."])


@pytest.mark.parametrize("method", ["cnn-irwnha", "all"])
def test_a_class_guesses_first(little, method):
    """Neither frames and numbers nor file names tell which results are right, until asked."""
    link = {"collection": "little", "method": method, "query": "ask.png", "hide": "yes"}
    app = start(**link)
    assert app.query_params["hide"] == "yes"
    assert hits(app)[0] == "Result 1"
    for told in ("of the first", "are right", "· AP ", "red_", "red\\_"):
        assert told not in text(app) + captions(app), told
    assert not any("Same landmark" in one.value for one in app.get("html"))
    tips = [button.help or "" for button in app.button if button.key.startswith("open-")]
    assert not any("red" in tip for tip in tips)
    alts = [image.proto.imgs[0].alt for image in app.get("image")]
    assert "Result 1" in alts
    assert not any("red" in alt for alt in alts)
    app.button(key="open-cnn-irwnha-0").click().run()
    assert not app.exception
    assert "Same landmark" not in text(app)
    assert "red" not in captions(app)

    button(app, "reveal").click().run()
    assert hits(app)[0] == "1: red_3.png, left out of the score"
    assert " right · AP " in text(app)
    assert app.query_params["hide"] == "yes"
    app.selectbox(key="prepared").set_value(1).run()  # the next picture is hidden again
    assert hits(app)[0] == "Result 1"
    app.toggle(key="hide").set_value(False).run()
    assert hits(app)[0] == "1: blue_0.png, same landmark"
    assert "hide" not in app.query_params


def test_a_picture_that_is_gone_does_not_tell_its_name_to_a_class(little):
    """The card and the large view said: No picture of red_3.png here."""
    app = start(collection="little", method="cnn-irwnha", query="ask.png")
    name = hits(go(app))[0].removeprefix("1: ").partition(",")[0]
    little.collection.path(name).unlink()
    app = start(collection="little", method="cnn-irwnha", query="ask.png", hide="yes")
    notes = [one.value for one in app.info]
    assert "No picture of Result 1 here." in notes
    app.button(key="open-cnn-irwnha-0").click().run()
    notes += [one.value for one in app.info]
    assert "No picture of the result here." in notes
    assert not any(name in note or "red" in note for note in notes)
    button(app, "reveal").click().run()
    assert f"No picture of {name} here." in [one.value.replace("\\", "") for one in app.info]


def test_nothing_is_hidden_where_right_and_wrong_are_not_known(little):
    app = start(collection="little", query="green_1.png", hide="yes")
    assert hits(app)[0] == "1: green_2.png"
    assert not any((one.key or "").startswith("reveal-") for one in app.button)


def test_a_limit_belongs_to_its_method(little):
    app = go(start())
    app.number_input(key="least-cnn-irwnha").set_value(2.0).run()
    assert hits(app) == []
    app.segmented_control(key="method").set_value("sir").run()
    assert len(hits(app, "sir")) == 12
    assert "least" not in app.query_params
    app.segmented_control(key="method").set_value("cnn-irwnha").run()
    assert hits(app) == []
    app.button(key="clear-least").click().run()
    assert len(hits(app)) == 12


def test_a_database_picture_is_judged_by_its_landmark(little):
    app = start(collection="little", query="red_1.png")
    assert hits(app)[:3] == [
        "1: red_2.png, same landmark",
        "2: red_0.png, same landmark",
        "3: red_3.png, left out of the score",
    ]
    assert hits(app)[3].endswith("another place")
    assert "by landmark: every picture that the prepared queries of red tower" in captions(app)
    assert "2 pictures are right" in captions(app)
    app = start(collection="little", query="green_1.png")
    assert not any("landmark" in hit for hit in hits(app))
    assert "Which pictures show the same place as this one is not known" in "".join(
        one.value for one in app.caption
    )


def test_a_query_of_the_database_is_not_missed(little, monkeypatch):
    """As in Oxford5k, where it is a right answer to itself; the page does not list it."""
    labels = {"ok": np.array([0, 1, 2]), "junk": np.array([3])}  # the reds
    own = dataclasses.replace(
        little.collection, queries=(Query("red_0.png", None, "red_tower", labels),)
    )
    monkeypatch.setattr(loaders, "collection", lambda name: own)
    app = start(collection="little", query="red_0.png")
    assert "2 of the first 11 right · AP 1.00" in text(app)
    assert "2 pictures are right" in captions(app)
    assert "without its own picture, which the evaluation counts too" in captions(app)


@pytest.mark.parametrize(("junk", "said"), [([], True), ([0], False)])
def test_an_unlabelled_query_of_the_database_lowers_the_ap_of_the_evaluation(
    little, monkeypatch, junk, said
):
    """The page had AP 1.00 where the evaluation had 0.58, and no word about it."""
    labels = {"ok": np.array([1, 2]), "junk": np.array(junk, np.int64)}
    own = dataclasses.replace(
        little.collection, queries=(Query("red_0.png", None, "red_tower", labels),)
    )
    monkeypatch.setattr(loaders, "collection", lambda name: own)
    app = start(collection="little", query="red_0.png")
    assert "AP 1.00" in text(app)
    words = "without its own picture, which the evaluation counts as wrong"
    assert (words in captions(app)) == said


def test_an_uploaded_query_outlives_a_visit_to_another_page(little):
    app = start()
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("mine.png", encoded(picture(GREEN)), "image/png").run()
    before = hits(app)
    app.switch_page("pages/about.py").run()
    app.query_params.clear()
    app.switch_page("pages/search.py").run()
    assert hits(app) == before != []
    assert "Still in use: mine" in "".join(one.value for one in app.caption)


def test_compare_all(little):
    app = start()
    app.segmented_control(key="method").set_value("all").run()
    go(app)
    headings = [one.value for one in app.markdown if one.value.startswith("#### ")]
    titles = [one.split("<br>")[0].split("> ")[1] for one in headings]  # behind its coloured dot
    assert titles == ["SIR", "DELF", "CNN-IRwNHA"]
    assert "3 of the first 10 right · AP 1.00" in headings[0]
    assert "**2** · cosine 0." in text(app)
    assert hits(app, "sir") == hits(app, "cnn-irwnha") != []
    assert "no DELF index" in app.info[0].value


def test_compare_all_says_what_a_reranker_could_not_check(little, monkeypatch):
    monkeypatch.setattr(Ranking, "notes", ["3 of 6 pictures could not be checked."])
    app = go(start(method="all"))
    assert captions(app).count("3 of 6 pictures could not be checked.") == 2  # SIR, CNN-IRwNHA


def test_a_result_large_and_as_the_next_query(little):
    app = go(start())
    app.button(key="open-cnn-irwnha-4").click().run()
    assert "**5**" in text(app)
    name = hits(app)[4].split(": ")[1].split(",")[0]
    button(app, "next").click().run()
    assert app.query_params["query"] == name
    assert not any(name in hit for hit in hits(app))
    assert "box" not in app.query_params


def test_large_pictures_name_their_photographers(little, colours_folder, monkeypatch):
    entry = {
        "title": "x",
        "author": "![Eve](https://example.org/spy.png) <b>*",
        "licence": "CC BY 4.0",
        "licence_url": "https://creativecommons.org/licenses/by/4.0/",
        "page": "https://commons.wikimedia.org/wiki/File:x.jpg",
    }
    found = {
        "ask.png": Credit(**entry),
        "red_1.png": Credit(**entry | {"author": "Adam", "note": "Other restrictions: insignia"}),
    }
    credited = dataclasses.replace(little.collection, credits=found)
    monkeypatch.setattr(loaders, "collection", lambda name: credited)
    app = go(start())
    asked = (
        r"\!\[Eve\]\(https\:\/\/example\.org\/spy\.png\) \<b\>\* · "
        r"[CC BY 4\.0](<https://creativecommons.org/licenses/by/4.0/>) · "
        "[source](<https://commons.wikimedia.org/wiki/File:x.jpg>)"
    )
    assert [one.value for one in app.caption if "source" in one.value] == [asked]
    app.button(key="open-cnn-irwnha-1").click().run()
    said = [one.value for one in app.caption if "source" in one.value]
    # In the column of the query, and large beside the result.
    assert said[0] == asked
    assert said[1] == rf"Query: ask\.png · {asked}"
    assert said[2].startswith(r"Result: red\_1\.png · Adam · ")
    assert "insignia" in said[2]
    assert len(said) == 3
    app.button(key="open-cnn-irwnha-0").click().run()  # of this one nothing is known
    assert [one.value for one in app.caption if "source" in one.value] == said[:2]


def test_why_steps_to_the_results_before_and_after(little):
    app = go(start())
    app.button(key="open-cnn-irwnha-4").click().run()
    assert "**5** · CNN-IRwNHA" in text(app)
    app.button(key="step-Next").click().run()
    assert "**6** · CNN-IRwNHA" in text(app)
    app.button(key="step-Previous").click().run()
    app.button(key="step-Previous").click().run()
    assert "**4** · CNN-IRwNHA" in text(app)
    assert not app.exception


def test_ranking_as_csv(little):
    assert go(start()).download_button(key="csv-cnn-irwnha")
    asked = Image.open(little.collection.path("ask.png"))
    opened = index.load(little.indexes["sir"])
    ranking = search.rank_picture(opened, Colours("sir"), asked, (0, 0, 32, 48))
    truth = {"red_0.png": "positive"}
    verdict = lambda name: truth.get(name, "wrong")  # noqa: E731
    lines = cards.as_csv(ranking, verdict).decode("utf-8-sig").splitlines()
    assert lines[0] == "rank,name,score,verdict"
    assert lines[1].startswith("1,red_0.png,0.99")
    assert lines[1].endswith(",positive")
    assert lines[-1].endswith(",wrong")
    assert len(lines) == 13
    assert cards.csv_name("town", ranking, "a/b 1.jpg") == "town-sir-b 1.csv"
    then = [{"name": name, "settings": {}} for name in ("geometry", "diffusion")]
    reranked = dataclasses.replace(ranking, provenance={**ranking.provenance, "then": then})
    assert cards.csv_name("town", reranked, "b.jpg") == "town-sir-geometry-diffusion-b.csv"
    formula = dataclasses.replace(ranking, names=("=1+1", *ranking.names[1:]))
    assert cards.as_csv(formula, None).decode("utf-8-sig").splitlines()[1].startswith("1,'=1+1,")
    below_zero = dataclasses.replace(ranking, scores=-ranking.scores)
    assert (
        cards.as_csv(below_zero, None)
        .decode("utf-8-sig")
        .splitlines()[1]
        .startswith("1,red_0.png,-0.99")
    )


def test_upload_as_query(little):
    app = start()
    app.segmented_control(key="source").set_value("Upload").run()
    assert "Choose a picture" in app.info[0].value
    app.file_uploader(key="upload").upload("mine.png", encoded(picture(GREEN)), "image/png").run()
    go(app)
    assert hits(app)[0] == "1: green_0.png"
    assert "query" not in app.query_params
    assert "not part of the link" in "".join(caption.value for caption in app.caption)


def test_an_upload_that_the_collection_has_does_not_rerank_the_others(little):
    """With town and best, all ten of ten such uploads had another order here than in the service
    and on the command line, and five were sure because of themselves."""
    link = {"method": "cnn-irwnha", "then": "expansion-average"}
    database = start(collection="little", query="red_2.png", **link)
    app = start(**link)
    app.segmented_control(key="source").set_value("Upload").run()
    data = (little.collection.root / "red_2.png").read_bytes()
    app.file_uploader(key="upload").upload("mine.png", data, "image/png").run()
    names = [[hit.split(": ")[1].split(",")[0] for hit in hits(one)] for one in (database, app)]
    assert "red_2.png" in names[1]
    assert [name for name in names[1] if name != "red_2.png"] == names[0][: len(names[1]) - 1]
    assert "The same file is in the collection: red" in captions(app)
    app.file_uploader(key="upload").clear()
    app.file_uploader(key="upload").upload("mine.png", data + b"0", "image/png").run()
    assert "The same file" not in captions(app)


@pytest.mark.parametrize("method", ["cnn-irwnha", "all"])
def test_a_blank_picture_gets_a_sentence_and_no_cards(little, method):
    app = start(method=method)
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("sky.png", encoded(Image.new("RGB", (64, 48), "blue")))
    app.run()
    assert not app.exception
    said = {one.value for one in app.info}
    assert "The picture is blank: there is nothing to search for." in said
    assert not [one for one in app.button if one.key and one.key.startswith("open-")]


def test_an_upload_of_the_same_name_does_not_inherit_the_box(little):
    app = start()
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("photo.png", encoded(picture(RED)), "image/png").run()
    box_field(app).set_value("0, 0, 20, 20").run()
    app.file_uploader(key="upload").clear()
    app.file_uploader(key="upload").upload("photo.png", encoded(picture(BLUE)), "image/png").run()
    assert box_field(app).value == ""


def test_networks_and_indexes_and_back(little):
    app = go(start())
    box_field(app).set_value("32, 0, 64, 48").run()
    before = hits(app)
    app.switch_page("pages/networks.py").run()
    assert not app.exception
    assert list(app.dataframe[1].value["Pictures"]) == [12, 12]
    app.query_params.clear()
    app.switch_page("pages/search.py").run()
    assert hits(app) == before
    assert app.query_params["box"] == "32, 0, 64, 48"


def test_the_box_of_a_page_that_was_left_is_not_that_of_the_next(little):
    """A click on the former page while the next one is on its way brings the former box."""
    app = go(start())
    box_field(app).set_value("32, 0, 64, 48").run()
    left = box_field(app)._widget_state
    app.selectbox(key="prepared").set_value(1).run()
    box = box_field(app).value
    assert box != "32, 0, 64, 48"
    late = app._tree.get_widget_states()
    late.widgets.append(left)
    app._run(late)
    assert app.session_state["box"] == box_field(app).value == box


def test_clicks_on_a_page_that_was_left_do_not_act_on_the_next(little):
    """While the next one was on its way, they cleared its box and showed what was right there."""
    app = start(query="ask_blue.png", box="0, 0, 32, 48", hide="yes")
    left = [button(app, name) for name in ("clear", "reveal")]
    [crop] = (one.key for one in app.get("bidi_component") if one.key.startswith("cropper"))
    app.selectbox(key="prepared").set_value(0).run()
    box = box_field(app).value
    assert box
    for one in left:
        late = app._tree.get_widget_states()
        late.widgets.append(one.click()._widget_state)
        app._run(late)
        assert box_field(app).value == box
        assert hits(app)[0] == "Result 1"
    assert crop not in [one.key for one in app.get("bidi_component")]


def test_a_card_of_a_page_that_was_left_searches_with_its_picture(little, monkeypatch):
    """Not with that which has its place on the next page, which was on its way."""
    monkeypatch.setattr("pages.parts.search.browse.PER_PAGE", 2)
    app = start(collection="little")
    app.segmented_control(key="source").set_value("Database").run()
    left = button(app, "open-browse-0")
    app.session_state["page"] = 2  # a test has no way to click on a number
    app.run()
    late = app._tree.get_widget_states()
    late.widgets.append(left.click()._widget_state)
    app._run(late)
    assert app.query_params["query"] == left.label.removeprefix("Search with ").replace("\\", "")


def test_a_card_of_a_collection_that_was_left_searches_in_no_other(monkeypatch):
    asked = []
    monkeypatch.setattr(browse, "state", SimpleNamespace(collection="next"))
    for name in ("left", "next"):
        browse._ask_in(name, lambda name=name: asked.append(name))
    assert asked == ["next"]


def test_no_two_queries_have_one_label():
    """Of two options with one text, Streamlit takes the last, whichever a visitor chooses."""
    queries = [
        Query("a/tower.png", None, "", {}),
        Query("a/tower.png", (1, 2, 30, 40), "", {}),
        Query("b/tower.png", None, "", {}),
        Query("gate.png", None, "", {}),
    ]
    assert query.labels(queries) == [
        "1 · a/tower.png · whole picture",
        "2 · a/tower.png · 1, 2, 30, 40",
        "3 · b/tower.png · whole picture",
        "gate",
    ]
