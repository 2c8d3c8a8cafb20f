"""A server on this machine, for tests of servers that lie."""

import http.server
import threading
from contextlib import contextmanager
from http.server import ThreadingHTTPServer


@contextmanager
def answering(answer):
    """A server on this machine whose answers ``answer`` writes; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        do_GET = do_HEAD = answer

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
