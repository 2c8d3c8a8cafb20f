"""Our own calls, over HTTP as a client sees them."""

import asyncio
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import requests
from attack.indexes import edited
from fastapi import HTTPException, Request
from PIL import Image

from retrieval import cli, images, index, methods
from retrieval.benchmarks.served import free_port
from retrieval.collections import Collection
from retrieval.collections import collection as collections
from retrieval.index import finding, layout
from retrieval.ranking import search
from retrieval.server import api, catalogue, guard
from retrieval.workers import Workers

DELF, GEM = "town/delf-lite0", "town/gem-lite0"


def jpeg(picture):
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=95)
    return data.getvalue()


def test_indexes_are_listed(client):
    assert client.get("/health").json() == {"status": "ok"}
    found = {one["id"]: one for one in client.get("/indexes").json()}
    assert list(found) == [DELF, GEM]
    assert found[DELF]["method"] == "delf"
    assert found[DELF]["pictures"] == 5
    assert found[GEM]["settings"]["scales"] == [1.0, 0.7071]
    assert (
        "/indexes/{collection}/{checkpoint}/search" in client.get("/openapi.json").json()["paths"]
    )


def test_the_docs_name_every_answer(client):
    """Programs are written from them, and would take what they do not name for a fault."""
    calls = client.get("/openapi.json").json()["paths"]
    search = calls["/indexes/{collection}/{checkpoint}/search"]
    every = {"200", "400", "401", "429", "503"}
    for call, answers in (
        (calls["/indexes"]["get"], every),
        (search["get"], every | {"404", "422"}),
        (search["post"], every | {"404", "422", "408", "413"}),
        (calls["/collections/{collection}/pictures/{name}"]["get"], every | {"404", "422"}),
    ):
        assert answers <= call["responses"].keys()


def test_the_docs_load_nothing_from_the_internet(client):
    page = client.get("/docs").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) >= 2
    for file in files:
        assert file.startswith("/"), file
        assert client.get(file).status_code == 200


@pytest.mark.parametrize("path", [DELF, GEM])
def test_the_answer_is_that_of_the_search(client, precomputed, folder, path):
    opened = index.load(precomputed / path)
    method = methods.for_index(opened)
    data = (folder / "b.png").read_bytes()
    box = (10.0, 10.0, 230.0, 170.0)  # all but the edge
    expected = search.rank_picture(opened, method, images.read(data), box, 4)
    answer = client.upload(path, data, box="10,10,230,170", top=4).json()
    assert answer["query"] == {"picture": "mine.jpg", "box": list(box)}
    assert [one["name"] for one in answer["results"]] == list(expected.names)
    assert [one["rank"] for one in answer["results"]] == [1, 2, 3, 4]
    np.testing.assert_allclose(
        [one["score"] for one in answer["results"]], expected.scores, atol=1e-6
    )
    if path == DELF:
        assert [one["inliers"] for one in answer["results"]] == expected.inliers.tolist()
    else:
        assert "inliers" not in answer["results"][0]
    assert answer["provenance"]["checkpoint"] == path.partition("/")[2]
    assert set(answer["timings"]) == set(expected.timings)
    assert answer["results"][0]["name"] == "b.png"


def test_search_with_a_picture_of_the_collection(client):
    for name in ("sub/e.png", "d é.png"):
        answer = client.get(f"/indexes/{GEM}/search", params={"name": name, "top": 2}).json()
        assert [one["rank"] for one in answer["results"]] == [1, 2]
        assert answer["results"][0]["name"] == name
        picture = client.get(answer["results"][0]["picture"], params={"side": 64})
        assert picture.headers["content-type"] == "image/jpeg"
        assert max(Image.open(io.BytesIO(picture.content)).size) == 64
    query = client.get(f"/indexes/{GEM}/search", params={"name": "c.png"})
    assert query.status_code == 200, "queries need not be in the database"


def test_pictures_come_with_their_photographers(client, installed):
    path = installed / "town" / "credits.json"
    entry = {"author": "A. Photographer", "licence": "CC BY 4.0", "page": "https://example.org/a"}
    try:
        path.write_text(json.dumps({"pictures": {"b.png": entry}}))
        answer = client.get(f"/indexes/{GEM}/search", params={"name": "b.png", "top": 2}).json()
        first, second = answer["results"]
        assert first["name"] == "b.png"
        assert first["credit"] == "A. Photographer, CC BY 4.0, https://example.org/a"
        assert "credit" not in second
        path.unlink()  # a file that is replaced changes its folder, which is how it is noticed
        path.write_text("[")
        answer = client.get(f"/indexes/{GEM}/search", params={"name": "b.png"})
        assert answer.status_code == 503
        assert str(installed) not in answer.text
    finally:
        path.unlink()


def test_names_that_are_too_long_are_not_sent(monkeypatch, client):
    """A stranger's collection with names of 4096 letters: answers of 65 MB, beside which /health
    took 24 s."""
    monkeypatch.setattr(api, "MAX_TEXT", 100)
    ask = {"name": "b.png", "top": 1}
    assert client.get(f"/indexes/{GEM}/search", params=ask).status_code == 200
    answer = client.get(f"/indexes/{GEM}/search", params=ask | {"top": 5})
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith("ask for fewer.")


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("nope.png", 404),
        ("../ground_truth.json", 404),
        ("/etc/passwd", 404),
        ("..%2Fground_truth.json", 404),
        ("a.png%00", 404),
        ("", 404),
    ],
)
def test_names_are_looked_up_and_never_opened(client, name, status):
    assert client.get(f"/indexes/{GEM}/search?name={name}").status_code == status
    assert client.get(f"/collections/town/pictures/{name}").status_code == status


@pytest.mark.parametrize("path", ["town/nope", "nope/gem-lite0", "town/..", "..%2Ftown/gem-lite0"])
def test_unknown_indexes_are_404(client, path):
    assert client.upload(path, b"x").status_code == 404


@pytest.mark.parametrize(
    ("data", "form", "status", "words"),
    [
        (b"", {}, 422, "empty"),
        (b"<html></html>", {}, 422, "not a picture"),
        (jpeg(Image.new("RGB", (90, 70)))[:300], {}, 422, "not a picture"),
        (jpeg(Image.new("RGB", (4, 4))), {}, 422, "at least 8"),
        (jpeg(Image.new("RGB", (90, 70))), {"box": "1,2,3"}, 422, "four numbers"),
        (jpeg(Image.new("RGB", (90, 70))), {"box": "nan,0,9,9"}, 422, "finite"),
        (jpeg(Image.new("RGB", (90, 70))), {"box": "80,0,10,60"}, 422, "inverted"),
        (jpeg(Image.new("RGB", (90, 70))), {"top": "0"}, 422, "greater than or equal to 1"),
        (jpeg(Image.new("RGB", (90, 70))), {"top": "1e99"}, 422, "valid integer"),
    ],
)
def test_bad_requests_say_what_is_wrong(client, data, form, status, words):
    answer = client.upload(GEM, data, **form)
    assert answer.status_code == status
    assert words in answer.text


def test_a_picture_that_is_no_file(client):
    """curl -F picture=photo.jpg sends the name of the file; the answer spoke of Python classes."""
    answer = client.post(f"/indexes/{GEM}/search", files={"picture": (None, "photo.jpg")})
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        "picture: send a file with a filename, as curl -F picture=@photo.jpg does."
    )


def test_a_blank_picture_is_an_answer(client):
    answer = client.upload(DELF, jpeg(Image.new("RGB", (90, 70), "white"))).json()
    assert len(answer["results"]) == 5


def test_many_searches_at_once_give_the_same_answer(client, folder):
    data = [(folder / f"{name}.png").read_bytes() for name in "ab"]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: client.upload(GEM, data[n % 2], top=1).json(), range(12)))
    assert [one["results"][0]["name"] for one in answers] == ["a.png", "b.png"] * 6


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="time is not limited on Windows")
def test_a_picture_that_takes_long_is_searched_with_apart(client, folder, monkeypatch):
    """From the beginning of the file again, by the worker for such pictures."""
    data, workers = (folder / "b.png").read_bytes(), Workers(1, 10, slow=Workers(1, 10))
    expected = client.upload(GEM, data).json()["results"]
    monkeypatch.setattr(catalogue, "SEARCH_WORKERS", workers)
    monkeypatch.setattr(images, "QUICK_SECONDS", 1e-6)
    assert client.upload(GEM, data).json()["results"] == expected
    assert workers.slow._threads


def test_a_picture_that_is_described_at_many_pixels_is_searched_with_apart(
    client, folder, monkeypatch
):
    """One client that searched in an index of 4096 pixels, 8 s each, let others wait for 16."""
    data, workers = (folder / "b.png").read_bytes() + b"large", Workers(1, 10, slow=Workers(1, 10))
    monkeypatch.setattr(images, "QUICK_SECONDS", 60)
    monkeypatch.setattr(search, "QUICK_SECONDS", 60)
    expected = client.upload(GEM, data).json()["results"]
    monkeypatch.setattr(catalogue, "SEARCH_WORKERS", workers)
    assert client.upload(GEM, data).json()["results"] == expected
    assert not workers.slow._threads
    monkeypatch.setattr(search, "QUICK_PIXELS", 100)
    assert client.upload(GEM, data).json()["results"] == expected
    assert workers.slow._threads


def test_fewer_pixels_take_as_long_with_a_larger_network(monkeypatch):
    """Beside one client of an index of ResNet-152, whose own 3.7 megapixels take 15 s of computing,
    a search in another index waited for 48."""
    apart = []
    monkeypatch.setattr(search.workers, "move_to_slow_workers", lambda: apart.append(trunk))
    for trunk in ("efficientnet-lite0", "resnet152"):
        method = Mock(pixels=3_700_000, seconds=0, **{"checkpoint.trunk": trunk})
        search.describe_query(method, Image.new("RGB", (9, 9)), None)
    assert apart == ["resnet152"]


def test_a_network_that_takes_long_is_searched_with_apart(client, folder, monkeypatch):
    """Beside three clients of an owner's network of few pixels and 10 s, others waited for 10 s."""
    data, workers = (folder / "b.png").read_bytes() + b"slow", Workers(1, 10, slow=Workers(1, 10))
    monkeypatch.setattr(images, "QUICK_SECONDS", 60)
    expected = client.upload(GEM, data).json()["results"]
    monkeypatch.setattr(catalogue, "SEARCH_WORKERS", workers)
    monkeypatch.setattr(search, "QUICK_SECONDS", 0)
    assert client.upload(GEM, data).json()["results"] == expected
    assert workers.slow._threads


def test_first_searches_are_not_put_apart(start, folder, monkeypatch):
    """Thirty clients of a service that was just started waited for one thread, up to 37 s."""
    workers = Workers(1, 10, slow=Workers(1, 10))
    monkeypatch.setattr(catalogue, "SEARCH_WORKERS", workers)
    for name in ("_index", "_method", "_collection"):
        load = getattr(catalogue, name).__wrapped__
        monkeypatch.setattr(catalogue, name, catalogue._cached_per_version(load))
    monkeypatch.setattr(images, "QUICK_SECONDS", 60)
    data = (folder / "b.png").read_bytes() + b"that no other test found to be slow"
    assert start().upload(GEM, data).status_code == 200
    assert workers._threads
    assert not workers.slow._threads


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="time is not limited on Windows")
def test_a_picture_that_takes_long_is_sent_apart(client, monkeypatch):
    """One of 10 s in a collection, asked for again and again, kept all others waiting for 15."""
    workers = catalogue.PICTURE_WORKERS
    monkeypatch.setattr(images, "QUICK_SECONDS", 1e-6)
    assert client.get("/collections/town/pictures/b.png").status_code == 200
    assert workers.slow._threads


def test_a_new_index_in_the_same_place_is_used(client, precomputed, load, tmp_path):
    opened = collections._with_ground_truth(precomputed / "town", "town", "Town", "")
    assert client.get(f"/indexes/{GEM}/search", params={"name": "a.png"}).status_code == 200
    other = load("cnn-irwnha", scales=[1.0])
    try:
        index.build(opened, other, tmp_path / "gem-lite0")
        (precomputed / GEM).rename(tmp_path / "away")
        (tmp_path / "gem-lite0").rename(precomputed / GEM)
        answer = client.get(f"/indexes/{GEM}/search", params={"name": "a.png"}).json()
        assert answer["provenance"]["settings"]["scales"] == [1.0]
    finally:
        (precomputed / GEM).rename(tmp_path / "gem-lite0")
        (tmp_path / "away").rename(precomputed / GEM)


def test_a_damaged_index_is_explained(client, precomputed):
    file = precomputed / DELF / "scores.npy"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-4])
        (precomputed / DELF / "manifest.json").touch()  # it is read again
        answer = client.get(f"/indexes/{DELF}/search", params={"name": "a.png"})
        assert answer.status_code == 503
        assert answer.json() == {
            "detail": f"The index {DELF} cannot be used; its owner finds the reason in the log."
        }
        # The others are still listed.
        assert [one["id"] for one in client.get("/indexes").json()] == [GEM]
    finally:
        file.write_bytes(whole)


def test_local_features_beside_an_index_that_are_damaged(client, precomputed, caplog):
    """A client was told to delete a folder (422), and its owner nothing."""
    file, asked = precomputed / DELF / "scores.npy", {"name": "a.png", "then": "geometry-delf"}
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-4])
        (precomputed / DELF / "manifest.json").touch()
        answer = client.get(f"/indexes/{GEM}/search", params=asked)
    finally:
        file.write_bytes(whole)
    assert answer.status_code == 503
    assert answer.json() == {
        "detail": "The local features beside this index cannot be used; its owner finds the reason "
        "in the log."
    }
    assert "it was cut off or edited" in caplog.text
    assert client.get(f"/indexes/{GEM}/search", params=asked).status_code == 200


def test_an_index_with_the_settings_of_an_earlier_version(client, precomputed, caplog):
    """As above: it says what its owner has to do, and a client cannot do it."""
    path = precomputed / GEM / "manifest.json"
    whole = path.read_text()
    try:
        edited(path.parent, lambda manifest: manifest["settings"].__delitem__("enlarge"))
        answer = client.get(f"/indexes/{GEM}/search", params={"name": "a.png"})
    finally:
        path.write_text(whole)
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith(f"The index {GEM} cannot be used; its owner")
    assert "was made with enlarge" in caplog.text


def test_the_command_starts_the_service(monkeypatch):
    asked = []
    monkeypatch.setattr("uvicorn.run", lambda app, **where: asked.append(where))
    assert cli.main(["serve", "--port", "8123"]) == 0
    assert (asked[0]["host"], asked[0]["port"]) == ("127.0.0.1", 8123)


def test_a_wrong_setting_is_told_at_the_start(monkeypatch, capsys):
    """Each client that sent a picture was told (422), and the owner was not."""
    monkeypatch.setenv(images.MEGAPIXELS, "many")
    monkeypatch.setattr("uvicorn.run", Mock())
    assert cli.main(["serve"]) == 1
    assert "RETRIEVAL_MEGAPIXELS is a whole number from 1 to 999" in capsys.readouterr().err


def test_starting_imports_no_deep_learning():
    code = (
        "import sys; from retrieval import server; server.create();"
        "print({'torch', 'tensorflow', 'faiss', 'cv2'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_re_ranked_answers_are_those_of_the_chain(client, folder):
    found = client.get(f"/indexes/{GEM}/search", params={"name": "b.png", "then": "best"})
    answer = found.json()
    assert found.status_code == 200
    assert answer["results"][0] == {
        "rank": 1, "name": "b.png", "moved": 0, "inliers": 0,
        "score": answer["results"][0]["score"], "picture": "/collections/town/pictures/b.png",
    }  # fmt: skip
    assert [one["name"] for one in answer["provenance"]["then"]] == ["geometry", "diffusion"]
    part = images.read(folder / "b.png").crop((8, 8, 232, 172))
    answer = client.upload(GEM, jpeg(part), then="geometry").json()
    assert answer["results"][0]["name"] == "b.png"
    assert answer["results"][0]["inliers"] >= 12
    assert answer["confidence"]["level"] in ("sure", "unsure")
    assert answer["notes"] == []
    wrong = client.get(f"/indexes/{GEM}/search", params={"name": "b.png", "then": "magic"})
    assert wrong.status_code == 422
    assert "There is no re-ranker 'magic'" in wrong.json()["detail"]
    local = client.get(f"/indexes/{DELF}/search", params={"name": "b.png", "then": "superglobal"})
    assert local.status_code == 422
    blank = client.upload(GEM, jpeg(Image.new("RGB", (64, 64), "white"))).json()
    assert blank["confidence"]["level"] == "nothing"


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "idna", "undefined", "rot13", "\0"])
def test_a_form_in_an_odd_character_set_is_no_server_error(client, charset, folder):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="picture"; filename="\\ud800.png"\r\n\r\n'
        + (folder / "a.png").read_bytes()
        + b"\r\n--x--\r\n"
    )
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    try:
        answer = client.post(f"/indexes/{GEM}/search", data=body, headers={"Content-Type": kind})
    except requests.RequestException:
        assert charset == "\0"  # uvicorn refuses that, and closes before it has read it all
    else:
        assert answer.status_code in (200, 400, 422)


def test_a_picture_whose_name_is_no_unicode_is_found_and_sent(
    monkeypatch, client, folder, tmp_path
):
    """Names of files may be any bytes, which Python reads as surrogates."""
    odd, told = "caf\udce9.png", "caf?.png"
    (tmp_path / odd).write_bytes((folder / "a.png").read_bytes())
    found = catalogue.search

    def renamed(*arguments):
        ranking = found(*arguments)
        return replace(ranking, names=(odd, *ranking.names[1:]))

    names = Collection("town", "Town", tmp_path, (odd,))
    monkeypatch.setattr(catalogue, "collection", lambda name: names)
    monkeypatch.setattr(catalogue, "search", renamed)
    first = client.get(f"/indexes/{GEM}/search", params={"name": told}).json()["results"][0]
    assert first["name"] == told
    assert client.get(first["picture"]).status_code == 200
    (tmp_path / odd).write_bytes(b"no picture")
    answer = client.get(first["picture"])
    assert answer.json()["detail"].startswith("caf?.png is not a picture that can be read")


def test_an_index_whose_folder_is_no_unicode_is_listed_and_searched(
    monkeypatch, start, precomputed, tmp_path
):
    """With such a folder the list was a 500 for everybody."""
    root = tmp_path / "precomputed"
    shutil.copytree(precomputed, root, symlinks=True)
    odd = root / "town" / "gem\udce9"
    (root / GEM).rename(odd)
    manifest = json.loads((odd / "manifest.json").read_bytes())
    manifest["collection"]["name"] = "caf\udce9"
    manifest["sha256"] = layout.manifest_digest(manifest)
    (odd / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(finding, "PRECOMPUTED", root)
    monkeypatch.setattr(collections, "PRECOMPUTED", root)
    client = start()
    assert [one["id"] for one in client.get("/indexes").json()] == [DELF, "town/gem?"]
    answer = client.get("/indexes/town/gem%3F/search", params={"name": "a.png"})
    assert answer.json()["provenance"]["collection"] == "caf?"


def test_very_many_indexes_keep_nobody_waiting(monkeypatch, installed):
    """10,000 small ones, 5 MB in a zip, took a second of each request of everybody: of 30 clients
    at once the last waited 44 s, alone 6."""
    monkeypatch.setattr(finding, "MAX_INDEXES", 1)
    assert len(catalogue.index_folders()) == 1


def test_all_that_is_served_stays_loaded():
    """With nine indexes, each GET of /indexes read all of them again, while searches waited."""
    loaded = []
    loader = catalogue._cached_per_version(lambda name, changed: loaded.append((name, changed)))
    for _ in range(2):
        for name in range(20):
            loader(name, 0)
    assert loaded == [(name, 0) for name in range(20)]
    for _ in range(2):
        loader(3, 1)  # it was replaced
    assert loaded[20:] == [(3, 1)]


def test_only_those_who_ask_for_it_wait_for_what_is_loaded():
    """A store that was opened anew in 9 s kept those who asked for folders waiting, and so did a
    damaged index of 3 GB, which is checked each time: 5.6 s."""
    go_on = threading.Event()
    loader = catalogue._cached_per_version(lambda name: name != "slow" or go_on.wait(60))
    assert loader("quick")
    some = Workers(1, 10, slow=Workers(1, 10))
    slow = [some.submit("a", lambda: loader("slow")) for _ in range(3)]
    try:
        assert some.submit("b", lambda: loader("quick")).result(60)
        assert not any(future.done() for future in slow)
    finally:
        go_on.set()
    assert all(future.result(60) for future in slow)


def test_manifests_are_read_once(client, installed, monkeypatch):
    """One of 93 MB, of a stranger's index, was read for each request of anybody: 15 s and 0.5 GB,
    where 40 asked at once 2.3 GB."""
    listed = client.get("/indexes").json()
    read, read_json = [], finding.files.read_json
    monkeypatch.setattr(
        finding.files, "read_json", lambda path, *most: read.append(path) or read_json(path, *most)
    )
    assert client.get("/indexes").json() == listed
    assert client.get(f"/indexes/{GEM}/search", params={"name": "a.png"}).status_code == 200
    assert not [path for path in read if path.name == "manifest.json"]
    manifest = installed / GEM / "manifest.json"
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace("gem-lite0", "other"))  # and so it is damaged
        assert [one["id"] for one in client.get("/indexes").json()] == [DELF]
        assert manifest in read
    finally:
        manifest.write_text(text)


def test_searches_in_flight_when_the_service_is_stopped():
    """Each was a 500 for its client and a traceback in the log."""
    release = threading.Event()

    async def stopped():
        request = Request({"type": "http", "client": None})
        search = asyncio.create_task(catalogue.in_turn(request, release.wait))
        await asyncio.sleep(0.05)
        search.cancel()  # as uvicorn does
        with pytest.raises(HTTPException) as caught:
            await search
        return caught.value.status_code

    try:
        assert asyncio.run(stopped()) == 503
    finally:
        release.set()


def test_a_search_that_takes_longer_than_a_request_may(client, monkeypatch):
    """After 300 s it was told that the service was being stopped."""
    release = threading.Event()
    monkeypatch.setattr(guard, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(catalogue, "search", lambda *args: release.wait(60))
    try:
        answer = client.get(f"/indexes/{GEM}/search", params={"name": "a.png"})
    finally:
        release.set()
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("It took too long, ")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_ends_the_service_by_that_signal():
    """Its exit code was 0, or that of a crash where searches were at work."""
    command = [sys.executable, "-m", "retrieval", "serve", "--port", str(free_port())]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert any("running on" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
            process.stderr.read()
        except BaseException:
            process.kill()
            raise
    assert process.returncode == -signal.SIGINT
