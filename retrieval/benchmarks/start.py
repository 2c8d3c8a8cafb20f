"""``bench start``: from a cold start of the app to its first page and its first answer.

The pages are opened in Chromium without a window, which is started before the time is taken.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

from retrieval import methods
from retrieval.benchmarks.served import APP, machine, megabytes, serving
from retrieval.errors import RetrievalError

PAUSE = 5.0  # s between the complete page and the click on a picture
TIMEOUT_MS = 300_000  # of each wait
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Whether the script is done and every picture is loaded.
IS_COMPLETE = """start => {
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
        f"from a click on the first picture after the page has stood for {PAUSE:g} s"
    )
    print(f"{'':14}{'server':>8}{'title':>8}{'page':>8}{'answer':>8}  peak memory")
    for name, entry in methods.METHODS.items():
        measured = measure(name)
        times = "".join(f"{measured[key]:8.1f}" for key in ("server", "title", "page", "answer"))
        print(f"{entry.title:14}{times}  {megabytes(measured['peak'])}", flush=True)


def measure(method: str, collection: str = "town", pause: float = PAUSE) -> dict[str, Any]:
    """Times and memory of one cold start.

    Returns seconds from the start of the process until the ``server`` answers, the ``title`` is
    shown and the ``page`` is complete; ``answer``, seconds from a click until the answer is
    complete; ``peak``, bytes, None without /proc. Raises RetrievalError without a browser.
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
        page.set_default_timeout(TIMEOUT_MS)
        started = time.perf_counter()
        with serving(APP, "--server.port", "/_stcore/health") as served:
            page.goto(
                f"{served.address}/?collection={collection}&method={method}", wait_until="commit"
            )
            page.get_by_role("heading", name="Search by example").wait_for()
            title = time.perf_counter() - started
            page.wait_for_function(IS_COMPLETE, arg="browse")
            complete = time.perf_counter() - started
            time.sleep(pause)
            clicked = time.perf_counter()
            page.locator('[class*="st-key-open-browse-0"] button').click()
            page.wait_for_function(IS_COMPLETE, arg=method)
            answer = time.perf_counter() - clicked
            measured = {
                "server": served.started,
                "title": title,
                "page": complete,
                "answer": answer,
                "peak": served.peak(),
            }
        browser.close()
    return measured
