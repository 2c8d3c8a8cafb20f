"""Against a server on this machine that answers as the MediaWiki API of Commons does.

Nothing here has ever spoken to the real site.
"""

import csv
import hashlib
import io
import json
import re
from collections import Counter

import numpy as np
import pytest
from commons_site import jpeg, serving
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retrieval import images
from retrieval.collections import commons, open_collection, transfer
from retrieval.collections.commons import Order, choice, download
from retrieval.collections.commons import site as site_module
from retrieval.errors import RetrievalError

CONTACT = "me@example.org"


def describe(picture):
    """Colours of 8 × 6 patches around their mean: random pictures are about orthogonal."""
    small = np.asarray(picture.resize((8, 6), Image.Resampling.BOX), dtype=float).ravel()
    small -= small.mean()
    return small / np.linalg.norm(small)


@pytest.fixture
def site(monkeypatch):
    with serving(monkeypatch) as site:
        yield site


def run(out, categories=("Tower", "Bridge"), per=12, depth=0, licences=commons.LICENCES, **more):
    return download(Order(tuple(categories), per, depth, licences), out, CONTACT, describe, **more)


def left_out(out):
    rows = csv.DictReader(io.StringIO((out / "left_out.csv").read_text("utf-8-sig")))
    return {row["title"]: row["why"] for row in rows}


@pytest.fixture
def two(site):
    """Twelve files in each of two categories."""
    for category in ("Tower", "Bridge"):
        for _ in range(12):
            site.add(category)
    return site


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


def test_etiquette(two, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(transfer.time, "sleep", waited.append)
    monkeypatch.setattr(site_module, "PAUSE", 0.5)
    monkeypatch.setattr(site_module, "LAG", 5.0)
    lagging = {"error": {"code": "maxlag", "info": "Waiting for db: 7 seconds lagged", "lag": 7}}
    two.answers["/w/api.php"] = [
        (429, {"Retry-After": "17"}, b""),
        (200, {"Retry-After": "5"}, json.dumps(lagging).encode()),
    ]
    two.answers["/thumb/1001.jpg"] = [(429, {"Retry-After": "23"}, b"")]
    run(tmp_path / "out")
    assert waited.count(17) == 1
    assert waited.count(5.0) == 1
    assert waited.count(23) == 1
    assert waited.count(0.5) == len(two.asked) - 3 + 1  # before each; the lagging answer twice


def test_server_that_asks_to_wait_for_long(two, tmp_path):
    two.answers["/thumb/1001.jpg"] = [(429, {"Retry-After": "7200"}, b"")]
    with pytest.raises(RetrievalError, match="asks to wait 120 minutes"):
        run(tmp_path / "out")


def test_refusal_is_passed_on(two, tmp_path):
    refusal = {"error": {"code": "badvalue", "info": "<b>no</b>\x1b[31m such thing"}}
    two.answers["/w/api.php"] = [(200, {}, json.dumps(refusal).encode())]
    with pytest.raises(RetrievalError, match=r"Commons refuses: <b>no</b>\[31m such thing"):
        run(tmp_path / "out")


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"[]", b"", b"\xff", b"[" * 99999])
def test_log_in_page_in_between(two, tmp_path, body):
    two.answers["/w/api.php"] = [(200, {}, body)]
    with pytest.raises(RetrievalError, match="is there a log-in page"):
        run(tmp_path / "out")
    assert len(run(tmp_path / "out")) == 20


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"query": None},
        {"query": {"pages": {"1": {}}}},
        {"query": {"pages": [1, None, {}, {"title": 3}, {"title": "x", "imageinfo": {}}]}},
        {"query": {"pages": [{"title": "File:x.jpg", "imageinfo": [{"mime": "image/jpeg"}]}]}},
        {"error": "no"},
        {"continue": 3, "query": []},
        {"continue": {"self": 1, "gcmtitle": "x"}, "query": {"pages": [{"pageid": {}}]}},
        {"continue": {"gcmcontinue": "\udcff"}, "query": {"pages": [{"pageid": [1]}]}},
    ],
)
def test_answers_of_any_shape_are_survived(site, tmp_path, answer):
    site.query = lambda question: answer
    with pytest.raises(RetrievalError, match="Commons"):
        run(tmp_path / "out")


def test_endless_continuation_ends(site, tmp_path):
    count = iter(range(10**9))
    site.query = lambda question: {"continue": {"gcmcontinue": f"file|{next(count)}"}}
    with pytest.raises(RetrievalError, match="how Commons spells"):
        run(tmp_path / "out", ["Tower"])


def test_contact_is_needed_and_cannot_smuggle_a_header(tmp_path):
    for contact in ("", "me", "a@b\r\nX: 1", "a@b c", "http://x.org/", "a@(b)", "é@x.org"):
        with pytest.raises(RetrievalError, match="whom to write to"):
            download(Order(("Tower",)), tmp_path / "out", contact, describe)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("cc0", ("cc0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/")),
        ("pd", ("pd", "Public domain", "")),
        ("cc-by-2.0", ("cc-by", "CC BY 2.0", "https://creativecommons.org/licenses/by/2.0/")),
        (
            "cc-by-sa-3.0-at",
            ("cc-by-sa", "CC BY-SA 3.0 AT", "https://creativecommons.org/licenses/by-sa/3.0/at/"),
        ),
        ("cc-by-nc-2.0", ("", "", "")),
        ("cc-by-nd-2.0", ("", "", "")),
        ("cc-sa-1.0", ("", "", "")),
        ("cc-by-sa-4.0/../../evil", ("", "", "")),
        ("gfdl", ("", "", "")),
        ("", ("", "", "")),
    ],
)
def test_only_free_licences_are_recognised(code, expected):
    assert choice._licence(code) == expected


def test_what_is_left_out_and_why(two, tmp_path):
    bad = {
        "nc.jpg": {"meta": {"License": None, "LicenseShortName": "<i>CC BY-NC 2.0</i>"}},
        "unread.jpg": {"meta": {"License": None, "LicenseShortName": None}},
        "nonfree.jpg": {"meta": {"NonFree": "true"}},
        "doubted.jpg": {"meta": {"DeletionReason": "copyright"}},
        "nobody.jpg": {"meta": {"Artist": None}},
        "hidden.jpg": {"meta": {"Artist": '<span style="display: none;">x</span>'}},
        "no metadata.jpg": {"extmetadata": None},
        "drawing.png": {"mime": "image/png"},
        "film.webm": {"mime": "video/webm"},
        "small.jpg": {"width": 640, "height": 479},
        "wide.jpg": {"width": 6001, "height": 2000},
        "Floor plan of the tower.jpg": {},
        "stairs.jpg": {"meta": {"Categories": "Tower|Interior of the tower"}},
        "no size.jpg": {"width": None},
        "elsewhere.jpg": {"thumburl": "http://169.254.169.254/latest"},
        "local.jpg": {"thumburl": "file:///etc/passwd"},
        "gone.jpg": {"thumburl": f"{two.root}/thumb/gone.jpg"},
        "html.jpg": {"data": b"<html>Too many requests</html>"},
        "cut.jpg": {"data": jpeg(1)[:700]},
        "smaller.jpg": {"thumbwidth": 960, "thumbheight": 640},
        "other shape.jpg": {"thumbwidth": 64, "thumbheight": 96},
        "same again.jpg": {"data": jpeg(1001)},
        "check sum.jpg": {"thumburl": f"{two.root}/full/x.jpg", "url": f"{two.root}/full/x.jpg",
                          "width": 960, "height": 640, "sha1": "0" * 40},
    }  # fmt: skip
    two.media["/full/x.jpg"] = jpeg(77, (960, 640))
    for title, changes in bad.items():
        two.add("Tower", title, **changes)
    found = run(tmp_path / "out", per=40)
    why = left_out(tmp_path / "out")
    same = {"same again.jpg", "View 1001.jpg"}
    assert len(same & set(why)) == 1  # whichever came later
    assert set(why) - same == set(bad) - same
    assert len(found) + len(found.queries) == 24
    assert why["nc.jpg"] == "licence: CC BY-NC 2.0"
    assert why["unread.jpg"] == why["no metadata.jpg"] == "licence: cannot be read"
    assert why["nonfree.jpg"] == why["doubted.jpg"] == "Commons doubts its licence"
    assert why["nobody.jpg"] == why["hidden.jpg"]
    assert why["Floor plan of the tower.jpg"] == "its name or a category of it has the word: plan"
    assert why["stairs.jpg"] == "its name or a category of it has the word: interior"
    assert "404" in why["gone.jpg"]
    assert "not a picture" in why["html.jpg"]
    assert "not a picture" in why["cut.jpg"]
    assert why["smaller.jpg"] == "its width or height differs from that on Commons"
    assert why["smaller.jpg"] == why["other shape.jpg"]
    assert "SHA-1 differs" in why["check sum.jpg"]
    assert not any("169.254" in path for path in two.asked)


def test_original_is_checked_against_its_sha1(two, tmp_path):
    data = jpeg(77, (960, 640))
    two.media["/full/x.jpg"] = data
    address = f"{two.root}/full/x.jpg"
    pageid = two.add("Tower", "x.jpg", url=address, thumburl=address, width=960, height=640,
                     sha1=hashlib.sha1(data).hexdigest())  # fmt: skip
    run(tmp_path / "out", per=40)
    assert (tmp_path / "out" / f"tower_{pageid}.jpg").read_bytes() == data


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=9), one, max_size=3),
    max_leaves=6,
)
GOOD = {
    "mime": "image/jpeg",
    "width": 2000,
    "height": 1500,
    "sha1": "0" * 40,
    "url": f"{choice.MEDIA}a.jpg",
    "thumburl": f"{choice.MEDIA}b.jpg",
    "thumbwidth": 960,
    "thumbheight": 720,
    "extmetadata": {"License": {"value": "cc0"}, "Artist": {"value": "<b>A</b>"}},
}
META = ["License", "Artist", "Attribution", "Categories", "Restrictions", "AuthorCount"]


@given(
    page=st.fixed_dictionaries({}, optional={"title": VALUES, "pageid": VALUES}),
    info=st.dictionaries(st.sampled_from(sorted(GOOD)), VALUES, max_size=2),
    meta=st.dictionaries(st.sampled_from(META), VALUES | VALUES.map(lambda one: {"value": one})),
)
def test_a_description_of_any_kind_is_a_file_or_left_out(page, info, meta):
    told = {**GOOD, "extmetadata": {**GOOD["extmetadata"], **meta}, **info}
    page = {"title": "File:A.jpg", "pageid": 7, **page, "imageinfo": [told]}
    try:
        file = choice.judge(page, "Tower", ("Tower", "Bridge"), commons.LICENCES)
    except choice.LeftOut:
        return
    assert choice.File.from_json(json.loads(json.dumps(file.to_json()).encode())) == file
    assert file.address.startswith(choice.MEDIA)
    assert re.fullmatch(
        r"https://commons\.wikimedia\.org/w/index\.php\?curid=\d+", file.credit.page
    )
    assert all(text.isprintable() for text in (file.credit.author, file.credit.title))
    assert file.credit.author


def test_licences_can_be_narrowed(two, tmp_path):
    free = [two.add("Tower", meta={"License": "cc0", "Artist": None}) for _ in range(4)]
    found = run(tmp_path / "out", ["Tower"], licences=("cc0", "pd"))
    names = {*found.names, *(query.name for query in found.queries)}
    assert names == {f"tower_{one}.jpg" for one in free}
    assert {found.credits[name].author for name in names} == {"author unknown"}
    with pytest.raises(RetrievalError, match="licences out of"):
        run(tmp_path / "other", ["Tower"], licences=("cc-by-nc",))


def test_hostile_names_stay_text(two, tmp_path):
    html = (
        '<script>alert(1)</script><b onmouseover="x">Eve</b> &lt;img src=x&gt;\u202e![a](b)\n\x00'
    )
    title = "../../[x](javascript:y) (1) \u202e$(rm)?.jpg"
    pageid = two.add("Tower", title, meta={
        "Artist": html, "Restrictions": "trademarked|<script>", "AuthorCount": 2,
    })  # fmt: skip
    found = run(tmp_path / "out", per=40)
    credit = found.credits[f"tower_{pageid}.jpg"]
    assert credit.author == "Eve <img src=x>![a](b) and others"
    assert credit.title == "../../[x](javascript:y) (1) $(rm)?.jpg"
    assert credit.page == f"https://commons.wikimedia.org/w/index.php?curid={pageid}"
    assert credit.note == "Other restrictions: trademarked, script"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_attribution_that_the_author_wants(two, tmp_path):
    pageid = two.add("Tower", meta={"Attribution": "Photo by <i>Rama</i>, Commons"})
    found = run(tmp_path / "out", per=40)
    assert found.credits[f"tower_{pageid}.jpg"].author == "Photo by Rama, Commons"


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


def test_one_author_does_not_fill_a_landmark(two, tmp_path):
    series = [two.add("Tower", meta={"Artist": "Serial"}) for _ in range(30)]
    found = run(tmp_path / "out", ["Tower"], per=20)
    mine = {f"tower_{one}.jpg" for one in series}
    names = {*found.names, *(query.name for query in found.queries)}
    assert len(names & mine) == 2
    assert len(names) == 14


def test_as_many_as_asked_for(two, tmp_path):
    found = run(tmp_path / "out", per=5)
    assert len(found) + len(found.queries) == 10
    assert len(two.pictures_asked()) == 10


def test_subcategories_to_a_depth(site, tmp_path):
    for category in ("Tower", "Tower at night", "Door", "Interior of Tower", "Views from Tower"):
        site.add(category)
    for _ in range(3):
        site.add("Tower")
    site.categories["Tower"]["subcats"] = [
        "Tower at night",
        "Interior of Tower",
        "Views from Tower",
    ]
    site.categories["Tower at night"]["subcats"] = ["Tower", "Door"]  # a circle
    counts = []
    for depth in range(3):
        found = run(tmp_path / str(depth), ["Tower"], depth=depth)
        counts.append(len(found) + len(found.queries))
    assert counts == [4, 5, 6]


def test_category_that_moved_and_one_that_is_unknown(site, tmp_path):
    for _ in range(4):
        site.add("Tour")
    site.moved["Tower"] = "Tour"
    said = []
    found = run(tmp_path / "out", ["Tower", "Atlantis"], say=said.append)
    assert "Tower is called Tour on Commons." in said
    assert "Atlantis: 0 pictures" in said
    assert {query.landmark for query in found.queries} == {"Tower"}
    with pytest.raises(RetrievalError, match="how Commons spells"):
        run(tmp_path / "none", ["Atlantis"])


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


def test_redirected_picture(two, tmp_path):
    two.media["/moved.jpg"] = two.media["/thumb/1000.jpg"]
    two.answers["/thumb/1000.jpg"] = [(301, {"Location": f"{two.root}/moved.jpg"}, b"")]
    assert len(run(tmp_path / "out")) == 20


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
