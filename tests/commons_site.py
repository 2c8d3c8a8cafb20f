"""A server on this machine that answers as the MediaWiki API of Wikimedia Commons does.

Nothing here has ever spoken to the real site.
"""

import hashlib
import http.server
import io
import json
import threading
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from PIL import Image

from retrieval.collections import transfer
from retrieval.collections.commons import choice
from retrieval.collections.commons import site as site_module


def jpeg(seed, size=(96, 64)):
    """A picture of large random patches, unlike any of another seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


class Commons:
    """A small Commons: files and categories, in answers of a few files each.

    answers: path ('/w/api.php' or a file's) → what is answered first: (code, headers, body).
    broken: requests after which nothing is answered any more. hold_after: pictures after which
    the next one has to wait for ``go_on``.
    """

    def __init__(self):
        self.files, self.categories, self.moved = {}, {}, {}
        self.media, self.answers = {}, {}
        self.asked, self.agents, self.at_once, self.broken = [], set(), 3, None
        self.hold_after, self.held, self.go_on = None, threading.Event(), threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.answer(self)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.root = f"http://127.0.0.1:{self.http.server_port}"

    def add(self, category, title=None, data=None, size=(96, 64), **changes):
        """A file in a category, good in every respect but for ``changes``. Its page id."""
        pageid = 1000 + len(self.files)
        title = title or f"View {pageid}.jpg"
        data = jpeg(pageid, size) if data is None else data
        self.media[f"/thumb/{pageid}.jpg"] = data
        meta = {
            "License": "cc-by-sa-4.0",
            "LicenseShortName": "CC BY-SA 4.0",
            "Artist": f'<a href="//commons.wikimedia.org/wiki/User:P{pageid}">P{pageid}</a>',
            "Restrictions": "",
            "Categories": f"{category}|Self-published work",
        } | changes.pop("meta", {})
        info = {
            "size": 4_000_000,
            "width": 3000,
            "height": 2000,
            "mime": "image/jpeg",
            "sha1": hashlib.sha1(str(pageid).encode()).hexdigest(),
            "url": f"{self.root}/full/{pageid}.jpg",
            "thumburl": f"{self.root}/thumb/{pageid}.jpg",
            "thumbwidth": size[0],
            "thumbheight": size[1],
            "descriptionurl": "javascript:alert(1)",
            "extmetadata": {
                key: {"value": value, "source": "commons-desc-page", "hidden": ""}
                for key, value in meta.items()
                if value is not None
            },
        } | changes
        self.files[pageid] = {
            "pageid": pageid,
            "ns": 6,
            "title": f"File:{title}",
            "imagerepository": "local",
            "imageinfo": [info],
        }
        self.categories.setdefault(category, {"files": [], "subcats": []})["files"].append(pageid)
        return pageid

    def answer(self, handler):
        path = urlsplit(handler.path).path
        self.asked.append(handler.path)
        self.agents.add(handler.headers.get("User-Agent"))
        if self.broken is not None and len(self.asked) > self.broken:
            handler.close_connection = True
            return  # not a byte
        if self.hold_after is not None and len(self.pictures_asked()) > self.hold_after:
            self.held.set()
            self.go_on.wait(60)
            handler.close_connection = True
            return
        if self.answers.get(path):
            code, headers, body = self.answers[path].pop(0)
        elif path == "/w/api.php":
            question = dict(parse_qsl(urlsplit(handler.path).query))
            code, headers, body = 200, {}, json.dumps(self.query(question)).encode()
        elif path in self.media:
            code, headers, body = 200, {"ETag": '"1"'}, self.media[path]
        else:
            code, headers, body = 404, {}, b""
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def query(self, question):
        assert question["action"] == "query"
        assert question["format"] == "json"
        assert question["formatversion"] == "2"
        assert question["maxlag"] == "5"
        if "titles" in question:
            title = question["titles"]
            target = self.moved.get(title.removeprefix("Category:"))
            page = {"pageid": 1, "ns": 14, "title": title}
            if target:
                page["categories"] = [{"ns": 14, "title": "Category:Category redirects"}]
                page["links"] = [
                    {"ns": 14, "title": "Category:Category redirects"},
                    {"ns": 14, "title": f"Category:{target}"},
                ]
            return {"batchcomplete": True, "query": {"pages": [page]}}
        name = question.get("gcmtitle", question.get("cmtitle")).removeprefix("Category:")
        category = self.categories.get(name, {"files": [], "subcats": []})
        if question.get("list") == "categorymembers":
            assert question["cmtype"] == "subcat"
            rows = [{"ns": 14, "title": f"Category:{one}"} for one in category["subcats"]]
            return {"batchcomplete": True, "query": {"categorymembers": rows}}
        assert question["generator"] == "categorymembers"
        assert question["gcmtype"] == "file"
        start = int(question.get("gcmcontinue", "file|0").split("|")[1])
        pages = [self.files[one] for one in category["files"][start : start + self.at_once]]
        if not pages:
            return {"batchcomplete": True}
        answer = {"query": {"pages": pages}}
        # An answer that grows too large: the last file's description comes with the next one.
        if len(pages) > 1 and "iicontinue" not in question:
            bare = {key: value for key, value in pages[-1].items() if key != "imageinfo"}
            answer["query"]["pages"] = [*pages[:-1], bare]
            answer["continue"] = {
                "iicontinue": f"{pages[-1]['title']}|2",
                "continue": "gcmcontinue||",
            }
            if start:
                answer["continue"]["gcmcontinue"] = f"file|{start}"
            return answer
        if "iicontinue" in question:
            others = [
                {key: value for key, value in page.items() if key != "imageinfo"}
                for page in pages[:-1]
            ]
            answer["query"]["pages"] = [*others, pages[-1]]
        answer["batchcomplete"] = True
        if start + self.at_once < len(category["files"]):
            answer["continue"] = {
                "gcmcontinue": f"file|{start + self.at_once}",
                "continue": "gcmcontinue||",
            }
        return answer

    def pictures_asked(self):
        return [path for path in self.asked if path.startswith("/thumb/")]


@contextmanager
def serving(monkeypatch):
    """A ``Commons`` that the product takes for the real one, without the pauses."""
    site = Commons()
    monkeypatch.setattr(site_module, "API", f"{site.root}/w/api.php")
    monkeypatch.setattr(choice, "MEDIA", f"{site.root}/")
    monkeypatch.setattr(site_module, "PAUSE", 0)
    monkeypatch.setattr(site_module, "LAG", 0)
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    yield site
    site.http.shutdown()
    site.http.server_close()
