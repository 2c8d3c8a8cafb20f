"""The client of the report: what axios sends with ``URLSearchParams``, and what it expects."""

import base64
import io
import json
import tempfile
from unittest.mock import Mock
from urllib.parse import urlencode

import pytest
import requests
from PIL import Image

ORIGIN = {"Origin": "http://localhost:3000"}
NO_BOX = {"x": "0", "y": "0", "x_max": "0", "y_max": "0"}


def ask(client, data, kind="image/png", **fields):
    image = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    form = NO_BOX | {"image": image, "method": "1"} | fields
    headers = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"} | ORIGIN
    return client.post("/", data=urlencode(form), headers=headers)


@pytest.fixture
def picture(folder):
    return (folder / "b.png").read_bytes()


def test_preflight_and_greeting(client):
    preflight = ORIGIN | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = requests.options(client.root + "/", headers=preflight, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert "POST" in answer.headers["access-control-allow-methods"]
    answer = client.get("/", headers=ORIGIN | {"Accept": "application/json, text/plain, */*"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert len(answer.text) < 200
    browser = client.get("/", headers={"Accept": "text/html,*/*"}, allow_redirects=False)
    assert browser.headers["location"].endswith("docs")


@pytest.mark.parametrize(("method", "kind"), [("1", "cnn-irwnha"), ("2", "delf")])
def test_a_search_answers_as_the_reports_server(client, picture, method, kind):
    answer = ask(client, picture, method=method)
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    found = answer.json()
    assert found["items"][0]["name"] == "b.png"
    assert [one["rank"] for one in found["items"]] == [1, 2, 3, 4, 5]
    assert len(found["results"]) == 5
    for text in found["results"]:
        result = Image.open(io.BytesIO(base64.b64decode(text)))
        assert result.format == "JPEG"
        assert max(result.size) <= 320
    assert client.get(found["items"][0]["link"]).status_code == 200


def test_results_name_their_photographers(client, picture, installed):
    path = installed / "town" / "credits.json"
    entry = {"author": "A. Photographer", "licence": "CC0 1.0"}
    try:
        path.write_text(json.dumps({"pictures": {"b.png": entry}}))
        items = ask(client, picture, **NO_BOX).json()["items"]
        assert [one["credit"] for one in items] == ["A. Photographer, CC0 1.0", "", "", "", ""]
    finally:
        path.unlink()


@pytest.mark.parametrize("nothing", ["NaN", "", "0", "0.0"])
def test_empty_boxes_mean_the_whole_picture(client, picture, nothing):
    answer = ask(client, picture, **dict.fromkeys(NO_BOX, nothing))
    assert answer.json()["items"][0]["name"] == "b.png"


def test_a_box_of_words_is_refused(client, picture):
    assert ask(client, picture, **dict.fromkeys(NO_BOX, "null")).status_code == 422


def test_a_click_without_a_drag_is_no_box(client, picture):
    click = {"x": "30", "y": "40", "x_max": "30", "y_max": "40"}
    assert ask(client, picture, **click).json() == ask(client, picture, **NO_BOX).json()


def test_a_box_and_other_ways_to_send(client, picture):
    box = {"x": "10.5", "y": "20", "x_max": "180", "y_max": "170"}
    first = ask(client, picture, **box).json()
    assert len(first["items"]) == 5
    bare = NO_BOX | box | {"image": base64.b64encode(picture).decode(), "method": "1"}
    assert client.post("/", data=bare).json() == first
    parts = {key: (None, value) for key, value in bare.items()}
    assert client.post("/", files=parts).json() == first
    parts["image"] = ("b.png", picture)
    assert client.post("/", files=parts).json() == first
    # A plus sign that was not escaped arrives as a blank.
    raw = "&".join(f"{key}={value}" for key, value in bare.items())
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/", data=raw, headers=kind).json() == first


def test_a_text_field_of_several_megabytes(client):
    """A multipart field that is no file may be as long as a picture in base64."""
    noise = Image.effect_noise((2400, 1800), 90).convert("RGB")
    data = io.BytesIO()
    noise.save(data, "PNG")
    image = base64.b64encode(data.getvalue()).decode()
    assert len(image) > 3_000_000
    parts = {
        key: (None, value) for key, value in (NO_BOX | {"image": image, "method": "1"}).items()
    }
    assert client.post("/", files=parts).status_code == 200


def test_pictures_are_read_where_the_disk_is_full(start, monkeypatch):
    """A file of a megabyte went to the disk: a traceback here, and at the other calls a 400 that
    said that the form cannot be read."""
    client = start()
    data = io.BytesIO()
    Image.effect_noise((1300, 1000), 90).save(data, "PNG")
    assert len(data.getvalue()) > 1 << 20
    monkeypatch.setattr(tempfile, "TemporaryFile", Mock(side_effect=OSError("disk full")))
    assert client.upload("town/gem-lite0", data.getvalue()).status_code == 200
    parts = {"image": ("noise.png", data.getvalue()), "method": (None, "1")}
    assert client.post("/", files=parts).status_code == 200


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": "3"}, "method is 0"),
        ({"method": ""}, "method is 0"),
        ({"method": "0"}, "no index for method sir"),
        ({"image": "data:image/png;base64,!!!"}, "no picture in base64"),
        ({"image": ""}, "empty"),
        ({"image": base64.b64encode(b"<html>").decode()}, "not a picture"),
        ({"x": "left"}, "numbers of pixels"),
        ({"x": "5"}, "inverted"),
        ({"x": "inf", "x_max": "9"}, "finite"),
    ],
)
def test_bad_fields_are_refused(client, picture, fields, words):
    answer = ask(client, picture, **fields)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]


def test_the_collection_that_answers(start, picture):
    assert ask(start(collection="town"), picture).status_code == 200
    answer = ask(start(collection="oxford5k"), picture)
    assert answer.status_code == 422
    assert "no index of oxford5k" in answer.json()["detail"]
