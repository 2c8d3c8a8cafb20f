"""A server on this machine with every bad habit, and what it serves."""

import http.server
import io
import tarfile
import threading


class Server:
    """Files by path, with habits: how each answer is spoilt. ``asked`` lists (path, range)."""

    def __init__(self):
        self.files, self.etags, self.break_after, self.answers = {}, {}, {}, {}
        self.asked, self.agents, self.ranges, self.lengths = [], {}, True, True
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.root = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, handler):
        path = handler.path
        self.asked.append((path, handler.headers.get("Range")))
        self.agents[path] = handler.headers.get("User-Agent")
        if self.answers.get(path):
            code, headers = self.answers[path].pop(0)
            handler.send_response(code)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            return
        if path not in self.files:
            handler.send_error(404)
            return
        data, start = self.files[path], 0
        asked = handler.headers.get("Range")
        etag = self.etags.get(path, '"v1"')
        if asked and self.ranges and handler.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(data)}")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        handler.send_header("ETag", etag)
        if self.lengths:
            handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        end = len(data)
        if self.break_after.get(path):
            end = min(end, start + self.break_after[path].pop(0))
        handler.wfile.write(data[start:end])


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def tgz(names):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    return buffer.getvalue()


def gnd(pictures, queries, prefix):
    names = [f"{prefix}_{i:06}" for i in range(pictures + queries)]
    return {
        "imlist": names[:pictures],
        "qimlist": names[pictures:],
        "gnd": [
            {"bbx": [0, 0, 10, 10], "easy": [i, i + 1], "hard": [i + 2], "junk": [i + 3]}
            for i in range(queries)
        ],
    }
