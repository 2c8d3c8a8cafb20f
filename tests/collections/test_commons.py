"""A collection of photographs from Wikimedia Commons, from the first request to its labels.

Against a server on this machine that answers as the MediaWiki API of Commons does: nothing here has
ever spoken to the real site.
"""

from collections import Counter

import pytest
from commons_download import CONTACT, left_out, run

from retrieval import images
from retrieval.collections import commons, open_collection
from retrieval.collections.commons import choice
from retrieval.errors import RetrievalError


def test_from_nothing_to_a_labelled_collection(two, tmp_path):
    out, told, said = tmp_path / "out", [], []
    found = run(out, progress=lambda *args: told.append(args), say=said.append)
    assert "24 photographs" in said[0]
    assert "MB" in said[0]
    assert told[-1] == (24, 24, "Bridge")
    # One in ten asks: the first and the eleventh of each landmark.
    assert Counter(query.landmark for query in found.queries) == {"Tower": 2, "Bridge": 2}
    assert len(found) == 20
    assert found.protocols == ("classic",)
    for query in found.queries:
        assert query.box is None
        assert query.name not in found.names
        right = {found.names[position] for position in query.labels["ok"]}
        assert right == {n for n in found.names if n.startswith(query.landmark.lower())}
        assert len(query.labels["junk"]) == 0
    for name in (*found.names, *(query.name for query in found.queries)):
        assert images.read(found.path(name)).size == (96, 64)
        pageid = name.rpartition("_")[2].removesuffix(".jpg")
        credit = found.credits[name]
        assert credit.author == f"P{pageid}"
        assert credit.licence == "CC BY-SA 4.0"
        assert credit.licence_url == "https://creativecommons.org/licenses/by-sa/4.0/"
        assert credit.title == f"View {pageid}.jpg"
        assert credit.page == f"https://commons.wikimedia.org/w/index.php?curid={pageid}"
    assert len((out / "credits.csv").read_text("utf-8-sig").splitlines()) == 25
    assert left_out(out) == {}
    (agent,) = two.agents
    assert agent.startswith("retrieval-demo/")
    assert CONTACT in agent


def test_again_asks_for_nothing_and_mends_what_is_damaged(two, tmp_path):
    found = run(tmp_path / "out")
    before = {name: found.path(name).read_bytes() for name in found.names}
    two.asked.clear()
    run(tmp_path / "out")
    assert two.asked == []
    damaged, lost = found.names[3], found.names[7]
    found.path(damaged).write_bytes(b"x" * 100)
    found.path(lost).unlink()
    run(tmp_path / "out")
    assert len(two.asked) == 2
    assert {name: found.path(name).read_bytes() for name in found.names} == before


@pytest.mark.parametrize("after", [1, 4, 9, 14, 25, 37])
def test_server_that_goes_away_loses_nothing(two, tmp_path, after):
    whole = run(tmp_path / "whole")
    total = len(two.asked)
    assert total > 37
    two.asked.clear()
    two.broken = after
    with pytest.raises(RetrievalError, match="cannot be downloaded now"):
        run(tmp_path / "out")
    assert not (tmp_path / "out" / "ground_truth.json").exists()
    here = len(two.pictures_asked())
    two.asked.clear()
    two.broken = None
    assert run(tmp_path / "out").names == whole.names
    # The answers and pictures that had come were not asked for again (the failed tries are on top).
    assert len(two.asked) == total - after
    assert here == 0 or len(two.pictures_asked()) < 24


def test_killed_in_the_middle(two, tmp_path):
    whole = run(tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(done, total, name):
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "out", progress=kill)
    two.asked.clear()
    found = run(tmp_path / "out")
    assert found.names == whole.names
    assert len(two.asked) == len(two.pictures_asked()) == 24 - 7
    for name in found.names:
        assert found.path(name).read_bytes() == whole.path(name).read_bytes()


def test_shared_pictures_are_junk_for_both(two, tmp_path):
    shared = two.add("Tower", meta={"Categories": "Bridge|Tower"})  # says so itself
    listed = two.add("Tower")
    two.categories["Bridge"]["files"].append(listed)  # is found in both
    found = run(tmp_path / "out", per=40)
    junk = {f"tower_{shared}.jpg", f"tower_{listed}.jpg"}
    assert junk <= set(found.names)
    assert len(found.queries) == 4
    for query in found.queries:
        assert {found.names[position] for position in query.labels["junk"]} == junk
        assert not junk & {found.names[position] for position in query.labels["ok"]}


def test_as_many_as_asked_for(two, tmp_path):
    found = run(tmp_path / "out", per=5)
    assert len(found) + len(found.queries) == 10
    assert len(two.pictures_asked()) == 10


def test_nothing_usable(site, tmp_path):
    site.add("Tower", meta={"License": "gfdl"})
    with pytest.raises(RetrievalError, match=r"see in .*left_out\.csv why"):
        run(tmp_path / "out", ["Tower"])
    assert len(left_out(tmp_path / "out")) == 1


def test_folder_that_holds_something_else(two, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(RetrievalError, match="is not empty"):
        run(tmp_path / "mine")
    run(tmp_path / "out", per=4)
    with pytest.raises(RetrievalError, match="with other settings"):
        run(tmp_path / "out", per=5)
    assert two.pictures_asked()[8:] == []


def test_a_category_that_was_spelt_wrong_can_be_put_right(two, tmp_path):
    with pytest.raises(RetrievalError, match="how Commons spells"):
        run(tmp_path / "out", ["Towr"])
    assert len(run(tmp_path / "out", ["Tower"], licences=("cc-by-sa",))) == 10


def test_one_download_into_a_folder_at_a_time(two, tmp_path):
    def second(done, total, name):
        if done == 1:
            with pytest.raises(RetrievalError, match=r"Another download into .* is running"):
                run(tmp_path / "out")

    assert len(run(tmp_path / "out", progress=second)) == 20


def test_presets_are_lists_of_landmarks():
    assert {name: len(preset) for name, preset in commons.PRESETS.items()} == {
        "oxford": 11,
        "paris": 11,
        "world": 20,
    }
    for preset in commons.PRESETS.values():
        assert len(set(preset)) == len(preset)
        assert not any(name.startswith("Category:") for name in preset)
        assert not any(choice.unwanted(name, name) for name in preset)


def test_it_opens_as_any_folder_does(two, tmp_path):
    run(tmp_path / "out")
    again = open_collection(str(tmp_path / "out"))
    assert again.has_pictures
    assert len(again.credits) == 24
