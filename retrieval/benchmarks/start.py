"""``bench start``: from a cold start of the app to its first page and its first answer.

In a real browser, Chromium without a window, which is running before the clock starts.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

from retrieval import methods
from retrieval.benchmarks.served import APP, machine, megabytes, serving
from retrieval.errors import RetrievalError

STANDS = 5.0  # s that the page stands before a picture is clicked
WAIT = 300_000  # ms, after which something is wrong
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Everything is drawn and every picture has arrived.
WHOLE = """start => {
  const app = document.querySelector('[data-testid="stApp"]');
  const cards = [...document.querySelectorAll(`[class*="st-key-open-${start}-"]`)];
  const pictures = [...document.querySelectorAll('[class*="st-key-card-"] img')];
  return app && app.dataset.testScriptState === "notRunning" && cards.length > 0
    && pictures.length >= cards.length
    && pictures.every(picture => picture.complete && picture.naturalWidth > 0);
}"""


def run() -> None:
    """The command: print the times of each method, each from a cold start."""
    print(
        f"Cold start of the app, {machine()}; seconds from the start of the process; the answer "
        f"from a click on the first picture after the page has stood for {STANDS:g} s"
    )
    print(f"{'':14}{'server':>8}{'title':>8}{'page':>8}{'answer':>8}  peak memory")
    for name, entry in methods.METHODS.items():
        found = measure(name)
        times = "".join(f"{found[key]:8.1f}" for key in ("server", "title", "page", "answer"))
        print(f"{entry.title:14}{times}  {megabytes(found['peak'])}", flush=True)


def measure(method: str, collection: str = "town", stands: float = STANDS) -> dict[str, Any]:
    """Seconds until the server answers, the title and the whole page are there, from the start.

    And ``answer``, from a click until every picture of the answer is there; ``peak``: bytes.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        raise RetrievalError(
            "bench start needs a browser: pip install playwright, and Chromium as chromium or "
            "chromium-browser (Debian: apt-get install chromium)."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(WAIT)
        started = time.perf_counter()
        with serving(APP, "--server.port", "/_stcore/health") as served:
            page.goto(
                f"{served.address}/?collection={collection}&method={method}", wait_until="commit"
            )
            page.get_by_role("heading", name="Search by example").wait_for()
            title = time.perf_counter() - started
            page.wait_for_function(WHOLE, arg="browse")
            whole = time.perf_counter() - started
            time.sleep(stands)
            clicked = time.perf_counter()
            page.locator('[class*="st-key-open-browse-0"] button').click()
            page.wait_for_function(WHOLE, arg=method)
            answer = time.perf_counter() - clicked
            found = {
                "server": served.started,
                "title": title,
                "page": whole,
                "answer": answer,
                "peak": served.peak(),
            }
        browser.close()
    return found
