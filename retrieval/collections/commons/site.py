"""Requests to the MediaWiki API of Wikimedia Commons, by its rules.

One request at a time, a pause before each, ``maxlag``, Retry-After, and a User-Agent with an
address of the user (mediawiki.org, API:Etiquette; wikitech.wikimedia.org, Robot policy).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from retrieval import files
from retrieval.collections.transfer import RETRIES, fetch
from retrieval.errors import RetrievalError
from retrieval.text import one_line

API = "https://commons.wikimedia.org/w/api.php"
WIDTH = 960  # px; one of the widths Commons keeps ready (mediawiki.org, Common thumbnail sizes)
MAX_BYTES = 20_000_000  # of one answer, of all answers to one question, and of one picture
PAUSE = 0.5  # seconds before each request
LAG = 5.0  # least seconds to wait when Commons says that its databases lag
BUSY = ("maxlag", "ratelimited", "readonly")  # errors after which the request is sent again
AT_ONCE = 50  # files in an answer
MAX_ANSWERS = 100  # to one question
MOVED = "Category redirects"  # the category of pages that name the new place of a category


class Site:
    """The API and its pictures. Answers are saved in ``work`` until ``forget`` deletes them."""

    def __init__(self, contact: str, work: Path) -> None:
        self.agent, self.answers = user_agent(contact), work / "answers"
        self.read = 0  # bytes of all answers

    def fetch(self, address: str, path: Path) -> None:
        """Download to ``path`` unless the file exists. Raises the errors of ``transfer.fetch``."""
        if not path.is_file():
            time.sleep(PAUSE)
            fetch(address, path, max_bytes=MAX_BYTES, agent=self.agent)

    def forget(self) -> None:
        shutil.rmtree(self.answers, ignore_errors=True)

    def ask(self, **parameters: str | int) -> dict:
        """One answer of the API. Waits where Commons is busy. RetrievalError where it refuses."""
        fixed = {"action": "query", "format": "json", "formatversion": 2, "maxlag": 5}
        address = f"{API}?{urlencode(fixed | parameters, errors='replace')}"
        path = self.answers / f"{hashlib.sha256(address.encode()).hexdigest()[:24]}.json"
        for attempt in range(1, RETRIES + 1):
            self.fetch(address, path)
            try:
                answer = files.read_json(path, MAX_BYTES)
                self.read += path.stat().st_size
            except (OSError, ValueError):
                answer = None
            if not isinstance(answer, dict):
                path.unlink()
                raise RetrievalError(
                    "Wikimedia Commons did not answer, but something else: is there a log-in page "
                    "or a proxy between this machine and the internet?"
                )
            if "error" not in answer:
                return answer
            path.unlink()
            error = answer["error"] if isinstance(answer["error"], dict) else {}
            if error.get("code") not in BUSY:
                raise RetrievalError(f"Commons refuses: {one_line(str(error.get('info')))}")
            time.sleep(LAG * attempt)
        raise RetrievalError(
            "Wikimedia Commons is busy; run the same command later: it continues from here."
        )

    def pages(self, **parameters: str | int) -> Iterator[dict]:
        """The pages that answer a question, each once all its parts have arrived."""
        pages: dict[int, dict] = {}
        continuation: dict = {}
        max_read = self.read + MAX_BYTES
        for _ in range(MAX_ANSWERS):
            answer = self.ask(**parameters, **continuation)
            for page in _dicts(answer.get("query"), "pages"):
                if isinstance(page.get("pageid"), int):
                    pages.setdefault(page["pageid"], {}).update(page)
            following = answer.get("continue")
            if not isinstance(following, dict) or self.read > max_read:
                break
            # No other parameter: an answer must not change the question.
            continuation = {
                key: str(value) for key, value in following.items() if key.endswith("continue")
            }
            if answer.get("batchcomplete"):  # otherwise parts of these pages are still to come
                yield from pages.values()
                pages = {}
        yield from pages.values()

    def files(self, category: str) -> Iterator[dict]:
        """Pages of the files in a category, with the metadata that ``choice.judge`` needs."""
        return self.pages(
            generator="categorymembers",
            gcmtitle=f"Category:{category}",
            gcmtype="file",
            gcmlimit=AT_ONCE,
            prop="imageinfo",
            iiprop="url|size|mime|sha1|extmetadata",
            iiurlwidth=WIDTH,
            iiextmetadatalanguage="en",
            iiextmetadatafilter="License|LicenseShortName|Artist|Attribution|AuthorCount|NonFree|"
            "Restrictions|DeletionReason|Categories",
        )

    def subcategories(self, category: str) -> list[str]:
        answer = self.ask(
            list="categorymembers", cmtitle=f"Category:{category}", cmtype="subcat", cmlimit=500
        )
        return [title_of(row) for row in _dicts(answer.get("query"), "categorymembers")]

    def current(self, category: str) -> str:
        """The name of a category now: where one was renamed, its old page links to the new one."""
        old_pages = self.pages(
            titles=f"Category:{category}", prop="categories|links", cllimit=50, plnamespace=14,
            pllimit=50,
        )  # fmt: skip
        for page in old_pages:
            if MOVED in map(title_of, _dicts(page, "categories")):
                links = map(title_of, _dicts(page, "links"))
                return next((link for link in links if link and link != MOVED), category)
        return category


def _dicts(holder: Any, key: str) -> list[dict]:
    """The dictionaries in the list ``holder[key]``; none where there is something else."""
    rows = holder.get(key) if isinstance(holder, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def title_of(page: dict) -> str:
    """The title of a page without ``Category:`` or ``File:``."""
    return one_line(re.sub("^(Category|File):", "", str(page.get("title", ""))))


def user_agent(contact: str) -> str:
    """The User-Agent header, in the form that Wikimedia's policy asks for."""
    fine = "@" in contact or contact.startswith("https://")
    if not fine or not re.fullmatch(r"[!-~]{5,200}", contact) or set(contact) & set('()<>"\\'):
        raise RetrievalError(
            "Wikimedia asks every program to say whom to write to: give an e-mail address or an "
            "https address of yours as contact. It is sent to Wikimedia and nowhere else."
        )
    version = ".".join(map(str, sys.version_info[:2]))
    return f"retrieval-demo/1.0 ({contact}) Python-urllib/{version}"
