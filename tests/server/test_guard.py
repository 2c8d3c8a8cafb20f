"""Who is let in, and limits of requests."""

import io
import select
import socket

import pytest
import requests
from PIL import Image
from raw_requests import FORM, GEM, connect
from uvicorn.protocols.http.h11_impl import RequestResponseCycle

from retrieval import cli, request_limits, server
from retrieval.errors import RetrievalError
from retrieval.server import guard


def test_every_call_but_health_needs_the_token(start, picture):
    client = start(token="open sesame")
    for path in ("/", "/indexes", "/docs", "/openapi.json", "/collections/town/pictures/a.png"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/health").status_code == 200
    assert client.upload(GEM, picture).status_code == 401
    for wrong in ("Bearer open", "Bearer", "Basic open sesame", "open sesame"):
        assert client.get("/indexes", headers={"Authorization": wrong}).status_code == 401
    right = {"Authorization": "Bearer open sesame"}
    assert client.get("/indexes", headers=right).status_code == 200


def test_a_token_need_not_be_text(start):
    """One from a terminal or a file in Latin-1 ended in a traceback when the service started."""
    client = start(token="\udcf6ffne")
    for token, status in ((b"\xf6ffne", 200), ("öffne".encode(), 401)):
        answer = client.get("/indexes", headers={"Authorization": b"Bearer " + token})
        assert answer.status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_other_machines_need_a_token(host, monkeypatch, capsys):
    started = []
    monkeypatch.setattr("uvicorn.run", lambda app, **where: started.append(where["host"]))
    monkeypatch.delenv("RETRIEVAL_TOKEN", raising=False)
    assert cli.main(["serve", "--host", host]) != 0
    assert "--open" in capsys.readouterr().err
    assert started == []
    assert cli.main(["serve", "--host", host, "--open"]) == 0
    assert cli.main(["serve", "--host", host, "--token", "x"]) == 0
    monkeypatch.setenv("RETRIEVAL_TOKEN", "x")
    assert cli.main(["serve", "--host", host]) == 0
    monkeypatch.delenv("RETRIEVAL_TOKEN")
    for own in ("127.0.0.1", "::1", "localhost"):
        assert cli.main(["serve", "--host", own]) == 0
    assert len(started) == 6


def test_other_host_names_are_refused(start):
    client = start(names=("Retrieval.example",))
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "retrieval.example:80", "192.0.2.1"):
        assert client.get("/indexes", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "evil.example:8000", "a:b:c"):
        answer = client.get("/indexes", headers={"Host": host})
        assert answer.status_code == 400, host
        assert "serve --name" in answer.json()["detail"]


def test_web_pages_need_a_named_origin(start):
    closed, opened = start(), start(origins=("https://page.example",))
    page = {"Origin": "https://page.example"}
    allow = "access-control-allow-origin"
    assert allow not in closed.get("/indexes", headers=page).headers
    assert opened.get("/indexes", headers=page).headers[allow] == "https://page.example"
    for origin in ("https://evil.example", "http://localhost.evil.example", "null"):
        evil = {"Origin": origin}
        assert allow not in opened.get("/indexes", headers=evil).headers
        # It would get the pictures of a collection that is for this machine alone.
        assert allow not in opened.post("/", headers=evil, data={"method": "0"}).headers
    assert opened.post("/", headers=page, data={"method": "0"}).headers[allow] == page["Origin"]
    here = {"Origin": "http://localhost:1234"}  # the report's client, which needs no other call
    assert closed.post("/", headers=here, data={"method": "0"}).headers[allow] == here["Origin"]
    assert allow not in closed.get("/indexes", headers=here).headers


def test_a_form_of_escapes_is_refused(monkeypatch, client):
    """Each becomes an object: 45 MB of them took 3.5 GB, and nobody else was answered.

    So did 50 forms of 1.5 million, which all others waited 29 s for. 300 connections that sent
    nothing but & kept them waiting for 34 s.
    """
    monkeypatch.setattr(guard, "MAX_ESCAPED", 1000)
    forms = [(b"%41" * 900, 422), (b"%41" * 1100, 413), (b"&" * 900, 422), (b"&" * 1100, 413)]
    for pieces, status in [*forms, (b"%2B%2f%3D" * 20_000, 422)]:
        # Two kinds: the first one counts for the form, and either for the guard.
        for kinds in ((guard.URL_ENCODED,), (guard.URL_ENCODED + b"; x=y", b"text/plain")):
            with socket.create_connection(("127.0.0.1", client.port)) as line:
                body = b"method=1&image=" + pieces
                head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
                head += b"".join(b"Content-Type: %s\r\n" % kind for kind in kinds)
                line.sendall(head + b"\r\n" + body)
                assert line.recv(100).startswith(b"HTTP/1.1 %d " % status)


def test_a_form_in_another_character_set_is_refused(client):
    """400 kB of punycode held everybody up for four seconds, and a megabyte for a minute."""
    body = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\na-a\r\n--x--\r\n'
    for charset, status in (
        ("punycode", 400),
        ('"PunyCode"', 400),
        ("latin-1", 400),
        ("ISO-8859-1", 400),
        ("UTF-8", 422),
    ):
        kind = f"multipart/form-data; boundary=x; charset={charset}"
        answer = client.post("/", data=body, headers={"Content-Type": kind})
        assert answer.status_code == status, charset


def test_a_body_that_is_too_long_is_refused(monkeypatch, client):
    monkeypatch.setattr(guard, "MAX_BODY", 2000)
    monkeypatch.setattr(guard, "MAX_FORM", 3000)
    answer = client.upload(GEM, b"x" * 5000)
    assert answer.status_code == 413
    assert "smaller picture" in answer.json()["detail"]
    assert client.post("/", data={"image": "x" * 5000}).status_code == 413
    # ... and without a length that says so beforehand.
    parts = (b"x" * 500 for _ in range(9))
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post(f"/indexes/{GEM}/search", data=parts, headers=kind)
    assert answer.status_code in (400, 413)
    assert client.upload(GEM, b"x" * 500).status_code == 422, "a short one is looked at"


def test_all_bodies_together_are_limited(monkeypatch, client, picture):
    monkeypatch.setattr(guard, "MAX_HELD", 3000)
    answer = client.upload(GEM, b"x" * 5000)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    for _ in range(5):
        assert client.upload(GEM, picture).status_code == 200, "what was answered is forgotten"


def test_one_client_leaves_room_for_others(monkeypatch, client, picture):
    """One that held back the last bytes of 300 MB kept all others from sending a picture."""
    monkeypatch.setattr(guard, "MAX_HELD", 30_000)
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\n{FORM}\r\nContent-Length: 10000\r\n"
    head += "X-Forwarded-For: 192.0.2.9\r\n\r\n"  # of a proxy on this machine
    greedy = [connect(client, head.encode() + b"x" * 9900) for _ in range(3)]
    assert greedy[2].recv(100).startswith(b"HTTP/1.1 503 ")
    assert client.upload(GEM, picture).status_code == 200
    # Of 30 others with photos of 4 MB half were refused as long as it had four fifths of all.
    others = [head.replace("2.9", f"2.{number}") for number in (7, 8)]
    answers = [connect(client, other.encode() + b"x" * 7400) for other in others]
    for answer in answers:
        answer.sendall(b"x" * 2600)
        assert answer.recv(100).startswith(b"HTTP/1.1 422 ")


def test_bodies_of_all_clients_are_limited(monkeypatch, client):
    """Though none has more than its share."""
    monkeypatch.setattr(guard, "MAX_HELD", 30_000)
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\n{FORM}\r\nContent-Length: 10000\r\n"
    lines = []
    for number in range(4):
        stated = f"{head}X-Forwarded-For: 192.0.2.{number}\r\n\r\n"
        lines.append(connect(client, stated.encode() + b"x" * 9900))
    answered = select.select(lines, [], [], 60)[0]
    assert answered[0].recv(100).startswith(b"HTTP/1.1 503 ")
    for line in lines:
        line.close()


def test_requests_of_one_client_are_answered_a_few_at_a_time(monkeypatch, client):
    """Beside 390 connections of one client that asked all the time a search took 28 s. Behind a
    proxy on this machine all clients were one: 390 unfinished uploads kept it waiting for 7 s."""
    monkeypatch.setattr(request_limits, "MAX_ANSWERED", 3)
    monkeypatch.setattr(request_limits, "SHORT", 60.0)
    monkeypatch.setattr(request_limits, "turns", {})
    # Tests of the app before this one may have set its limits, which do not know of proxies.
    monkeypatch.setattr(RequestResponseCycle, "run_asgi", request_limits.original_answer)
    head = "POST / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.9\r\n"
    upload = f"{head}{FORM}\r\nContent-Length: 10000\r\n\r\n".encode()
    greedy = [connect(client, upload) for _ in range(4)]
    assert client.get("/health").status_code == 200  # of another client
    more = connect(client, head.replace("POST /", "GET /health").encode() + b"\r\n")
    more.settimeout(1)
    with pytest.raises(TimeoutError):
        more.recv(100)
    for one in greedy:
        one.close()
    more.settimeout(60)
    assert more.recv(100).startswith(b"HTTP/1.1 200 ")
    more.close()


def test_a_body_that_never_arrives_is_refused(monkeypatch, client):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    head = (
        f"POST /indexes/{GEM}/search HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9999\r\n\r\n--x\r\n"
    )
    one = connect(client, head.encode())
    answer = b""
    while part := one.recv(4096):  # until the service hangs up
        answer += part
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_photo_from_a_slow_telephone_has_time_to_arrive():
    """10 MB at 50 kB/s, or a class that shares a line, were refused after 60 s."""
    assert 10_000_000 / 50_000 < guard.BODY_SECONDS < guard.ANSWER_SECONDS


@pytest.mark.parametrize(("options", "status"), [(10, 422), (3900, 400)])
def test_parts_of_forms_with_many_options(client, options, status):
    """One form of 1.2 MB, of 300 parts with 3,900 options each, took 0.7 seconds."""
    head = b'--x\r\nContent-Disposition: form-data; name="method"' + b";" * options
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/", data=head + b"\r\n\r\n9\r\n--x--\r\n", headers=kind)
    assert answer.status_code == status


def test_forms_of_many_files(client):
    """800 forms of 900 empty files kept all others out of the app for a minute and a half."""
    files = [("picture", ("a.png", b"")), ("other", ("b.png", b""))]
    for count, status in ((1, 422), (2, 400)):
        answer = client.post(f"/indexes/{GEM}/search", files=files[:count])
        assert answer.status_code == status


def test_a_body_in_tiny_chunks_is_refused(client):
    """Chunks of one byte take much time."""
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\n{FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
    one = connect(client, head.encode() + b"1\r\na\r\n" * 5000)
    assert one.recv(100).startswith(b"HTTP/1.1 400 ")


def test_pictures_of_visitors_are_limited(client, jpeg):
    data = io.BytesIO()
    Image.new("RGB", (5100, 5100)).save(data, "PNG")
    answer = client.upload(GEM, data.getvalue())
    assert answer.status_code == 422
    assert "25 megapixels" in answer.json()["detail"]


def test_errors_name_no_folder_of_the_machine(client, precomputed):
    search = f"/indexes/{GEM}/search?name="
    nothing = f'{search}a.png&where=place == "x"'
    (precomputed / "town" / "metadata.csv").write_text("name,place\na.png,y\n")
    for path in ("/indexes", "/openapi.json", f"{search}nope", nothing, "/nothing"):
        answer = requests.get(client.root + path, timeout=60)
        assert str(precomputed) not in answer.text
        assert "server" not in answer.headers
    (precomputed / "town" / "metadata.csv").unlink()
    error = RetrievalError(f"{precomputed}/town/x is damaged; milvus://db:1/y_2 refuses.")
    assert server._without_locations(error) == "town/x is damaged; y_2 refuses."
