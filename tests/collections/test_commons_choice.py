"""Which files of Wikimedia Commons become pictures of a collection, and what is kept about them."""

import hashlib
import json
import re

import pytest
from commons_download import left_out, run
from commons_site import jpeg
from hypothesis import given
from hypothesis import strategies as st

from retrieval.collections import commons
from retrieval.collections.commons import choice
from retrieval.errors import RetrievalError


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


def test_one_author_does_not_fill_a_landmark(two, tmp_path):
    series = [two.add("Tower", meta={"Artist": "Serial"}) for _ in range(30)]
    found = run(tmp_path / "out", ["Tower"], per=20)
    mine = {f"tower_{one}.jpg" for one in series}
    names = {*found.names, *(query.name for query in found.queries)}
    assert len(names & mine) == 2
    assert len(names) == 14
