"""Connections to Milvus: a server that is away, answers too large, tokens and TLS."""

import base64
import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from concurrent import futures
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from milvus_server import only_pauses_take_time
from store_helpers import cli

from retrieval import index
from retrieval.benchmarks.served import free_port
from retrieval.errors import RetrievalError
from retrieval.index import milvus, milvus_client
from retrieval.index.milvus import Address, AwayError
from retrieval.workers import Workers


@contextmanager
def between(address, answer):
    """The index at an address, opened through a server that gives the bytes of ``answer(method,
    ask, context)``; ``ask()`` are those of the real server."""
    grpc = pytest.importorskip("grpc")
    there = grpc.insecure_channel(address.server.removeprefix("http://"))

    class Answers(grpc.GenericRpcHandler):
        def service(self, call):
            ask = there.unary_unary(call.method)
            name = call.method.rsplit("/", 1)[1]
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: answer(name, partial(ask, request), context)
            )

    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Answers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield index.load(str(replace(address, port=port)))
    finally:
        server.stop(None)
        there.close()


def test_a_server_that_is_away_is_one_sentence(monkeypatch):
    pytest.importorskip("pymilvus")
    with monkeypatch.context() as patch:
        only_pauses_take_time(patch)
        with pytest.raises(AwayError, match="cannot be reached: check that it runs") as caught:
            index.load(f"milvus://127.0.0.1:{free_port()}/x")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(milvus, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(AwayError):
            index.load(f"milvus://127.0.0.1:{port}/x")


def test_nobody_waits_for_a_server_that_is_away_but_those_who_ask_it(monkeypatch):
    """While one client asked it again and again, searches in other indexes took 9 s."""
    pytest.importorskip("pymilvus")
    monkeypatch.setattr(milvus, "PATIENCE", 0.2)
    go_on = threading.Event()
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda pause: go_on.wait(60))
    monkeypatch.setattr(milvus, "time", clock)
    address = f"milvus://127.0.0.1:{free_port()}/x"
    some = Workers(1, 10, slow=Workers(1, 10))
    away = [some.submit("a", partial(index.load, address)) for _ in range(2)]
    try:
        assert some.submit("b", lambda: "found").result(60) == "found"
        assert not any(one.done() for one in away)
    finally:
        go_on.set()
    for one in away:
        with pytest.raises(AwayError):
            one.result(60)


def test_nobody_waits_for_a_server_that_answers_slowly_but_those_who_ask_it(monkeypatch):
    """It answered each call after 9 s: searches in other indexes waited for 18 s."""
    pytest.importorskip("pymilvus")
    monkeypatch.setattr(milvus, "QUICK_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"milvus://127.0.0.1:{silent.getsockname()[1]}/x"
        some = Workers(1, 10, slow=Workers(1, 10))
        slow = some.submit("a", partial(index.load, address))
        assert some.submit("b", lambda: "found").result() == "found"
        assert not slow.done()
        silent.close()
        with pytest.raises(AwayError):
            slow.result()


@pytest.mark.parametrize("code", [101, 103])
def test_a_collection_that_is_being_loaded_is_waited_for(address, monkeypatch, code):
    """Where that took over a second, as after a start, each search was refused."""
    pytest.importorskip("pymilvus")
    from pymilvus.grpc_gen import common_pb2, milvus_pb2

    asked = threading.Event()
    loaded = threading.Event()

    def answer(method, ask, context):
        if method == "LoadCollection":
            asked.set()
            return common_pb2.Status().SerializeToString()
        if method == "GetLoadingProgress":
            progress = 100 if loaded.is_set() else 30
            return milvus_pb2.GetLoadingProgressResponse(progress=progress).SerializeToString()
        if method == "Search" and not loaded.is_set():
            status = common_pb2.Status(code=code, reason="collection not loaded", error_code=1)
            return milvus_pb2.SearchResults(status=status).SerializeToString()
        return ask()

    with between(address, answer) as stored:
        monkeypatch.setattr(milvus, "PATIENCE", 60.0)
        monkeypatch.setattr(milvus, "QUICK_PATIENCE", 0.3)
        some = Workers(1, 10, slow=Workers(1, 10))
        query = stored.first(1).arrays["descriptors"][0]
        search = some.submit("a", partial(stored.shortlist, query, 5))
        assert asked.wait(60)
        assert some.submit("b", lambda: "found").result(60) == "found"
        with pytest.raises(TimeoutError):
            search.result(1)
        loaded.set()
        assert len(search.result(60))
        loaded.clear()  # searches of others that take long waited two minutes
        monkeypatch.setattr(milvus, "PATIENCE", 0.5)
        with pytest.raises(AwayError, match=r"did not answer within .* s; try again later"):
            stored.shortlist(query, 5)


def test_a_server_whose_connection_is_lost_is_waited_for_once(address, monkeypatch):
    """The client connected anew for 10 s in a quick worker, and the other one waited for that: all
    searches stood still for 19 s, as after a machine was switched off."""
    grpc = pytest.importorskip("grpc")
    lost, go_on = threading.Event(), threading.Event()

    def answer(method, ask, context):
        if lost.is_set() and method == "Connect":
            go_on.wait(60)
        elif lost.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection is lost")
        return ask()

    with between(address, answer) as stored:
        query = stored.first(1).arrays["descriptors"][0]
        monkeypatch.setattr(milvus, "PATIENCE", 6.0)
        monkeypatch.setattr(milvus, "QUICK_PATIENCE", 0.2)
        some = Workers(2, 10, slow=Workers(1, 10))
        lost.set()
        try:
            away = [some.submit(who, partial(stored.shortlist, query, 5)) for who in "abcd"]
            assert some.submit("e", lambda: "found").result(60) == "found"
            assert not any(one.done() for one in away)
            errors = [str(one.exception(60)) for one in away]
            # One waits, a or b: both begin at once. The others would hold the slow worker for as
            # long once more, each.
            (waited,) = (error for error in errors if "did not answer a moment ago" not in error)
            # The latter where the machine stood still during an attempt.
            assert "cannot be reached" in waited or "did not answer within 6 s" in waited
            lost.clear()
            # Quick workers ask it again at once.
            monkeypatch.setattr(milvus, "QUICK_PATIENCE", 60.0)
            assert len(some.submit("a", partial(stored.shortlist, query, 5)).result(60))
        finally:
            go_on.set()


def test_the_requests_of_a_search_have_one_time_together(address, monkeypatch):
    """A server that took 9 s for each held the slow worker for 28 s a search."""
    slow = threading.Event()

    def answer(method, ask, context):
        if slow.is_set():
            time.sleep(1.2)
        return ask()

    with between(address, answer) as stored:
        query = stored.first(1).arrays["descriptors"][0]
        monkeypatch.setattr(milvus, "PATIENCE", 2.0)
        monkeypatch.setattr(milvus, "QUICK_PATIENCE", 0.2)
        some = Workers(1, 10, slow=Workers(1, 10))

        def search():
            stored.name_of(b"a picture")
            return stored.shortlist(query, 5)

        slow.set()
        with pytest.raises(AwayError, match="did not answer within 2 s"):
            some.submit("a", search).result(60)


def test_each_server_has_time_of_its_own(address, monkeypatch):
    """The list of the service asks all: it would leave out those after one that does not answer."""
    monkeypatch.setattr(milvus, "PATIENCE", 5.0)
    monkeypatch.setattr(milvus, "QUICK_PATIENCE", 0.2)

    def answer(method, ask, context):
        time.sleep(0.3)
        return ask()

    with socket.create_server(("127.0.0.1", 0)) as silent, between(address, answer) as stored:

        def both():
            with pytest.raises(AwayError):
                index.load(str(replace(address, port=silent.getsockname()[1])))
            return index.load(str(stored))

        assert len(Workers(1, 10, slow=Workers(1, 10)).submit("a", both).result(60))


def test_a_search_that_fails_is_not_asked_for_again(address):
    """The client asked again for all the time there was; after 9.9 s, for 10 s more."""
    grpc = pytest.importorskip("grpc")
    asked = []

    def answer(method, ask, context):
        if method == "Search":
            asked.append(method)
            context.abort(grpc.StatusCode.INTERNAL, "a fault")
        return ask()

    with between(address, answer) as stored:
        query = stored.first(1).arrays["descriptors"][0]
        with pytest.raises(RetrievalError, match="refuses: a fault"):
            stored.shortlist(query, 5)
        assert len(asked) == 1


def test_an_answer_of_megabytes_is_not_read():
    """Of 60 MB of positions the client made 5.9 GB."""
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("pymilvus")

    class Answers(grpc.GenericRpcHandler):
        def service(self, call):
            body = b"" if call.method.endswith("/Connect") else bytes(11_000_000)
            return grpc.unary_unary_rpc_method_handler(lambda request, context: body)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Answers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(RetrievalError, match="larger than max"):
            index.load(f"milvus://127.0.0.1:{port}/x")
    finally:
        server.stop(0)


def test_more_rows_than_milvus_gives_at_once_are_not_read():
    """800,000 hits in 5 MB kept a search busy for 9 s, and searches of others for 5."""
    pytest.importorskip("pymilvus")
    from pymilvus.grpc_gen import milvus_pb2

    search, query = milvus_pb2.SearchResults(), milvus_pb2.QueryResults()
    search.results.ids.int_id.data.extend([1] * 50_000)
    assert milvus_client._hits(search).results.topks == [milvus_client.MAX_HITS]
    position = query.fields_data.add(field_name="position", type="Int64")
    for values in (position.scalars.long_data, position.scalars.bool_data):
        values.data.extend([1] * milvus_client.MAX_HITS)
        assert milvus_client._rows(query).fields_data
        values.data.append(1)
        assert not milvus_client._rows(query).fields_data
    vectors = position.vectors
    vectors.dim = 2
    vectors.float_vector.data.extend([1.0] * 2 * milvus_client.MAX_HITS)
    assert milvus_client._rows(query).fields_data
    vectors.dim = 1
    assert not milvus_client._rows(query).fields_data


def test_fields_without_number():
    """Five million empty fields in 10 MB took 6.9 GB and a minute."""
    pytest.importorskip("pymilvus")
    from pymilvus.grpc_gen import milvus_pb2

    query, description = milvus_pb2.QueryResults(), milvus_pb2.DescribeCollectionResponse()
    schema = description.schema
    for _ in range(2 * milvus_client.MAX_FIELDS):
        query.fields_data.add().scalars.long_data.data.append(1)
        for part in (schema.fields, schema.functions, schema.struct_array_fields):
            part.add()
        for params in (schema.fields[0].type_params, schema.fields[0].index_params):
            params.add()
    assert len(milvus_client._rows(query).fields_data) == milvus_client.MAX_FIELDS
    milvus_client._short(description)
    lists = (schema.fields, schema.fields[0].type_params, schema.fields[0].index_params)
    assert [len(part) for part in lists] == [milvus_client.MAX_FIELDS] * 3
    assert not schema.functions
    assert not schema.struct_array_fields


def test_a_description_of_fields_without_number():
    """It is the client that asks, also before a search."""
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("pymilvus")
    from pymilvus.grpc_gen import milvus_pb2

    description = milvus_pb2.DescribeCollectionResponse()
    description.schema.fields.extend([description.schema.fields.add()] * 100_000)
    body = description.SerializeToString()

    class Answers(grpc.GenericRpcHandler):
        def service(self, call):
            answer = body if call.method.endswith("/DescribeCollection") else b""
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Answers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        milvus_client.library()
        tracemalloc.start()
        with pytest.raises(RetrievalError, match="not an index of this program"):
            index.load(f"milvus://127.0.0.1:{port}/x")
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
        server.stop(0)


def test_rows_that_an_answer_only_says_it_has():
    """The client made an object of each, and a hundred bytes took as much memory as there was."""
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("pymilvus")
    from pymilvus.grpc_gen import milvus_pb2

    search, query = milvus_pb2.SearchResults(), milvus_pb2.QueryResults()
    search.results.ids.int_id.data.append(7)
    search.results.scores.append(0.5)
    search.results.topks.extend([1, 3_000_000])
    position = query.fields_data.add(field_name="position", type="Int64")
    position.scalars.long_data.data.append(7)
    query.element_indices.add().indices.data.extend([0] * 3_000_000)
    bits = milvus_pb2.QueryResults()
    bits.fields_data.add().vectors.binary_vector = bytes(400_000)
    bits.fields_data[0].vectors.dim = 1
    answers = {"Search": search, "Query": query}

    class Answers(grpc.GenericRpcHandler):
        def service(self, call):
            answer = answers.get(call.method.rpartition("/")[2])
            body = answer.SerializeToString() if answer else b""
            return grpc.unary_unary_rpc_method_handler(lambda request, context: body)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Answers()])
    address = Address("127.0.0.1", server.add_insecure_port("127.0.0.1:0"), "x")
    server.start()
    try:
        tracemalloc.start()
        found = milvus.call(address, lambda one, time: one.search("x", [[1.0]], anns_field="v"), 9)
        assert [[hit["id"] for hit in hits] for hits in found] == [[7]]
        found = milvus.call(address, lambda one, time: one.query("x", "position == 7"), 9)
        assert list(found) == [{"position": 7}]
        answers["Query"] = bits
        with pytest.raises(RetrievalError, match="No fields returned"):
            milvus.call(address, lambda one, time: one.query("x", "position == 7"), 9)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
        server.stop(0)


def test_the_token_is_sent_and_never_shown(monkeypatch):
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("pymilvus")
    heard = []

    class Listener(grpc.GenericRpcHandler):
        def service(self, call):
            heard.append(dict(call.invocation_metadata))

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Listener()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        said = cli("info", f"milvus://127.0.0.1:{port}/x", RETRIEVAL_STORE_TOKEN="root:s3cret")
    finally:
        server.stop(0)
    assert base64.b64decode(heard[0]["authorization"]) == b"root:s3cret"
    assert said.returncode == 1
    assert len(said.stderr.splitlines()) == 1
    assert said.stderr.startswith("error: The store milvus://127.0.0.1:")
    assert "s3cret" not in said.stdout + said.stderr


@pytest.fixture
def tls(milvus, tmp_path):
    """The server once more, behind TLS: port, and the certificate that signs for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        target.close()

    def serve():
        while True:
            try:
                plain, _ = listener.accept()
                theirs = context.wrap_socket(plain, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            ours = socket.create_connection(("127.0.0.1", milvus.port))
            for pair in ((theirs, ours), (ours, theirs)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], certificate
    listener.close()


def test_tls_wants_a_certificate_that_is_known(tls, address, exported, monkeypatch):
    port, certificate = tls
    secure = replace(address, host="localhost", port=port, tls=True)
    said = cli("info", secure, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(certificate))
    assert said.returncode == 0, said.stderr
    assert f"pictures     {len(exported)}" in said.stdout
    only_pauses_take_time(monkeypatch)
    with pytest.raises(AwayError, match="cannot be reached with TLS: check that it runs"):
        index.load(str(secure))  # nobody whom this process knows has signed that
