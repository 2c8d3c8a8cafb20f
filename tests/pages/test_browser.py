"""The running app in headless Chromium, with the real networks: pick, draw, search, see."""

import csv
import io
import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pages.parts import loaders
from retrieval.benchmarks.served import APP, serving
from retrieval.benchmarks.start import FLAGS

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
needs_town = pytest.mark.skipif(
    "town" not in loaders.collection_titles(), reason="the embedded collection is not here"
)

ROOT = Path(__file__).parents[2]
WAIT = 120_000  # ms; loading a network on a busy machine takes its time
BOX = "Box: left, top, right, bottom"


@pytest.fixture(scope="module")
def address():
    with serving(APP, "--server.port", "/_stcore/health") as served:
        yield f"{served.address}/"


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        sync_api.expect.set_options(timeout=WAIT)  # 5 s are too few on a busy machine
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(WAIT)
    yield context.new_page()
    context.close()


@pytest.fixture
def phone(chromium):
    """A page of a telephone's browser: Streamlit's menu closes itself only in one of that name."""
    context = chromium.new_context(
        viewport={"width": 390, "height": 844},
        user_agent="Mozilla/5.0 (Linux; Android 14; Pixel 7) AppleWebKit/537.36 Chrome Mobile",
        has_touch=True,
        is_mobile=True,
    )
    context.set_default_timeout(WAIT)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def pictures():
    """A zip of eight pictures that differ in colour and pattern; the last is like the first."""
    random = np.random.default_rng(7)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for n in range(7):
            image = Image.new("RGB", (320, 240), tuple(random.integers(0, 255, 3).tolist()))
            draw = ImageDraw.Draw(image)
            for _ in range(12):
                x, y, r = random.integers(0, 300, 3) * (1, 0.7, 0.15)
                colour = tuple(random.integers(0, 255, 3).tolist())
                shape = draw.ellipse if n % 2 else draw.rectangle
                shape((x, y, x + 10 + r, y + 10 + r), fill=colour)
            copies = [image, image.crop((20, 15, 320, 240))] if n == 0 else [image]
            for name, copy in zip((f"pattern {n}.jpg", "like pattern 0.jpg"), copies, strict=False):
                data = io.BytesIO()
                copy.save(data, "JPEG", quality=92)
                archive.writestr(name, data.getvalue())
    return buffer.getvalue()


def settled(page):
    """Wait until the run of the page has ended."""
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()


def upload(page, file):
    """Choose a file, once the run that draws the field for it has ended.

    While it goes on the field may be drawn anew, without the file. Where that happened all the
    same, it is chosen again, as a visitor would do.
    """
    name = file["name"] if isinstance(file, dict) else file.name
    chosen = page.locator('[data-testid="stFileChipName"]', has_text=name).first
    field = page.locator("input[type=file]")
    field.wait_for(state="attached")
    for _ in range(3):
        settled(page)
        field.set_input_files(file)
        with suppress(sync_api.TimeoutError):
            return chosen.wait_for(timeout=WAIT / 4)
    raise AssertionError(f"{name} does not stand in the field")


def bring(page, address, pictures):
    """Index pictures of one's own with SIR, through the upload."""
    page.goto(f"{address}?collection=mine&method=sir")
    upload(page, {"name": "mine.zip", "mimeType": "application/zip", "buffer": pictures})
    page.get_by_role("button", name="Index with SIR").click()
    page.get_by_role("button", name="Search with like pattern 0.jpg").wait_for(state="attached")


def draw(page, start, stop):
    """Drag over the query picture, between points given as shares of its sides."""
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    area = stage.bounding_box()
    points = [
        (area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (start, stop)
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=5)
    page.mouse.up()


def drawn(page):
    """The box in the number field, once there is one."""
    field = page.get_by_label(BOX)
    sync_api.expect(field).to_have_value(re.compile(r"^\d+, \d+, \d+, \d+$"))
    return [int(part) for part in field.input_value().split(",")]


def results(page, method="sir"):
    """Names on the cards of an answer, once all of it is there."""
    page.get_by_role("button", name="Ranking as CSV").first.wait_for()
    settled(page)
    cards = page.locator(f'[class*="st-key-open-{method}-"] button')
    return [text.split(": ", 1)[1].split(",")[0] for text in cards.all_inner_texts()]


def test_first_link_a_fresh_server_is_asked_for(page, address):
    """Must stay the first test of this file: it needs a server that has shown nothing yet."""
    page.goto(f"{address}about")
    page.get_by_role("heading", name="How it works").wait_for()
    page.get_by_role("link", name="Search").wait_for()
    assert page.get_by_role("link", name=re.compile("loaders|parts")).count() == 0


@pytest.mark.parametrize("path", ["", "keypoints"])
def test_the_title_stays_where_it_is_first_painted(page, address, path):
    page.add_init_script(
        """window.tops = new Set();
        const look = () => {
          const title = document.querySelector("h1");
          if (title) window.tops.add(Math.round(title.getBoundingClientRect().top));
          requestAnimationFrame(look);
        };
        requestAnimationFrame(look);"""
    )
    page.goto(address + path)
    page.get_by_role("radio", name="Database").wait_for()
    page.wait_for_timeout(1000)
    assert len(page.evaluate("[...window.tops]")) == 1


def test_own_pictures_box_search_next_query_and_csv(page, address, pictures):
    bring(page, address, pictures)
    page.get_by_role("button", name="Search with like pattern 0.jpg").click()
    names = results(page)
    assert len(names) == 7  # the eighth asks, and does not find itself
    assert names[0] == "pattern 0.jpg"

    draw(page, (0.1, 0.2), (0.6, 0.9))
    assert drawn(page) == pytest.approx([30, 45, 180, 202], abs=3)
    assert len(results(page)) == 7
    page.get_by_role("button", name="Clear box").click()
    sync_api.expect(page.get_by_label(BOX)).to_have_value("")

    page.get_by_role("button", name="1: pattern 0.jpg").click()
    page.get_by_role("button", name="Make it the next query").click()
    sync_api.expect(page.get_by_role("button", name="1: like pattern 0.jpg")).to_be_attached()
    shown = results(page)
    assert shown[0] == "like pattern 0.jpg"

    with page.expect_download() as download:
        page.get_by_role("button", name="Ranking as CSV").click()
    table = list(csv.DictReader(download.value.path().open(encoding="utf-8-sig")))
    assert [Path(row["name"]).name for row in table] == shown
    assert "query" not in parse_qs(urlsplit(page.url).query)


def swipe(page, area):
    """A finger over the query picture, from near its left top to near its right bottom."""
    finger = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8)):
        point = {"x": area["x"] + share * area["width"], "y": area["y"] + share * area["height"]}
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_finger_draws_and_keys_move(phone, address, pictures):
    bring(phone, address, pictures)
    phone.get_by_role("button", name="Search with like pattern 0.jpg").tap()
    results(phone)
    stage = phone.locator(".stage")
    stage.scroll_into_view_if_needed()
    area = stage.bounding_box()
    assert area["width"] <= 390
    swipe(phone, area)  # scrolls, and draws nothing
    sync_api.expect(phone.get_by_label(BOX)).to_have_value("")
    # A tap while the swipe still scrolls the page would only end that. Frames are counted, not
    # seconds: it does not scroll while the machine stands still.
    phone.wait_for_function(
        """() => new Promise((done) => {
            const main = document.querySelector("[data-testid=stMain]");
            let before = main.scrollTop, still = 0;
            const look = () => {
              still = main.scrollTop === before ? still + 1 : 0;
              before = main.scrollTop;
              if (still < 60) requestAnimationFrame(look); else done(true);
            };
            requestAnimationFrame(look);
        })"""
    )
    # On a busy machine the browser may still take the tap for the end of the swipe: no click comes,
    # and a finger taps again. A click that is only late has ten seconds.
    for _ in range(3):
        phone.get_by_role("button", name="Crop").tap()
        try:
            sync_api.expect(stage).to_have_class(re.compile("cropping"), timeout=10_000)
            break
        except AssertionError:
            continue
    sync_api.expect(stage).to_have_class(re.compile("cropping"))
    swipe(phone, stage.bounding_box())
    box = drawn(phone)
    assert box == pytest.approx([60, 45, 240, 180], abs=3)
    corners = [one.bounding_box() for one in stage.locator(".frame i").all()]
    button = phone.get_by_role("button", name="Crop").bounding_box()
    for corner in corners:  # the button covers none, so a finger can change the box
        assert any(
            corner[side] + corner[size] <= button[side]
            or corner[side] >= button[side] + button[size]
            for side, size in (("x", "width"), ("y", "height"))
        )

    stage.focus()
    phone.keyboard.press("ArrowLeft")
    moved = [box[0] - 6, box[1], box[2] - 6, box[3]]
    sync_api.expect(phone.get_by_label(BOX)).to_have_value(", ".join(map(str, moved)))
    phone.keyboard.press("Delete")
    sync_api.expect(phone.get_by_label(BOX)).to_have_value("")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390  # nothing sticks out


def test_keys_are_not_undone_by_the_answer_to_an_earlier_one(page):
    """The page runs after each pause; what was pressed meanwhile was lost, and Back moved a box."""
    page.set_content(
        '<div class="stage" tabindex="0"><img><div class="shade"></div>'
        '<div class="frame"></div><button class="crop"></button></div>'
    )
    script = (ROOT / "pages/parts/cropper.js").read_text("utf-8")
    sent = page.evaluate(
        """async (script) => {
          const address = "data:text/javascript," + encodeURIComponent(script);
          const { default: run } = await import(address);
          const sent = [];
          const draw = (src, box) =>
            run({
              data: { src, size: [400, 300], box, alt: "" },
              parentElement: document.body,
              setTriggerValue: (_, box) => sent.push(box),
            });
          const press = (key, more) =>
            document.querySelector(".stage").dispatchEvent(
              new KeyboardEvent("keydown", { key, cancelable: true, ...more })
            );
          const pause = () => new Promise((done) => setTimeout(done, 1000));
          draw("data:,a", [0, 0, 100, 100]);
          press("ArrowRight");
          draw("data:,a", [0, 0, 100, 100]); // the answer to an earlier key
          press("ArrowRight");
          await pause();
          press("ArrowLeft", { altKey: true }); // Back
          await pause();
          press("ArrowDown");
          draw("data:,b", null); // another picture
          await pause();
          return sent;
        }""",
        script,
    )
    assert sent == [[16, 0, 116, 100]]


def test_no_other_session_sees_my_pictures(page, chromium, address, pictures):
    bring(page, address, pictures)
    other = chromium.new_page()
    other.set_default_timeout(WAIT)
    other.goto(f"{address}?collection=mine&method=sir")
    sync_api.expect(other.get_by_role("button", name="Index with SIR")).to_be_visible()
    assert other.locator(".stage").count() == 0
    other.close()


@pytest.mark.skipif(
    "town" not in loaders.collection_titles(), reason="the embedded collection is not here"
)
def test_the_former_answer_is_gone_before_the_next_is_there(page, address):
    """While a slow search runs, grey cards stand where the results of the last query were."""
    page.goto(f"{address}?collection=town&method=sir&query=belltower_001.jpg")
    results(page)
    page.get_by_role("radio", name="DELF").click()  # its network is not loaded yet
    page.locator(".skeleton").wait_for()
    assert page.locator('[class*="st-key-open-sir-"]').count() == 0
    assert len(results(page, "delf")) == 12


@pytest.mark.skipif(
    "town" not in loaders.collection_titles(), reason="the embedded collection is not here"
)
def test_all_methods_are_compared_on_one_screen(page, address):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}?collection=town&method=all&query=hall_004.jpg&box=0,144,479,439")
    page.get_by_text("Tour, 1 of 6 · Details tell buildings apart. SIR describes").wait_for()
    page.locator(".st-key-open-cnn-irwnha-9").wait_for()
    settled(page)
    pictures = page.locator(".st-key-compared img")
    pictures.nth(29).wait_for()  # the script that draws pictures may come after that for buttons
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop") == 0
    # The ten best of each method, in sight at once below the menu, and large enough for a class.
    every = page.locator(".st-key-compared").bounding_box()
    assert every["height"] <= 800 - 60
    assert every["x"] + every["width"] <= 1280
    assert pictures.count() == 30
    assert pictures.first.bounding_box()["width"] >= 120
    # The first of each method are beside each other.
    firsts = [f'[class*="st-key-card-"][class*="-{name}-0"]' for name in ("sir", "delf")]
    tops = [page.locator(first).bounding_box()["y"] for first in firsts]
    assert abs(tops[0] - tops[1]) < 2
    page.locator(".st-key-open-sir-0 button").first.hover()
    tip = page.get_by_role("tooltip")
    sync_api.expect(tip).to_have_text(re.compile(r"rank SIR 1, DELF \d+, CNN-IRwNHA \d+"))
    # The box ends at the picture's edges: its corners are not cut off there.
    assert page.locator(".stage").evaluate("one => getComputedStyle(one).overflow") == "visible"


@pytest.mark.skipif(
    "town" not in loaders.collection_titles(), reason="the embedded collection is not here"
)
def test_embedded_collection_draw_search_and_share(page, chromium, address):
    page.goto(f"{address}?collection=town&method=sir")
    page.get_by_role("button", name="Search with belltower 001").click()
    results(page)
    page.get_by_role("button", name="Clear box").click()  # the query brings a box of its own
    sync_api.expect(page.get_by_label(BOX)).to_have_value("")
    draw(page, (0.3, 0.25), (0.75, 0.8))
    box = drawn(page)
    names = results(page)
    assert len(names) == 12
    page.get_by_text("Same landmark").first.wait_for()
    sync_api.expect(page).to_have_url(re.compile("query="))
    link = parse_qs(urlsplit(page.url).query)
    assert link["box"] == [", ".join(map(str, box))]

    other = chromium.new_page()
    other.set_default_timeout(WAIT)
    other.goto(page.url)
    assert results(other) == names
    assert drawn(other) == box
    other.close()


@pytest.mark.skipif(
    "town" not in loaders.collection_titles(), reason="the embedded collection is not here"
)
def test_a_click_brings_the_query_into_view_and_back_leads_to_the_place_left(page, address):
    """On the evaluation page, from the chart to the ranked list, to the matches and back."""
    top = "document.querySelector('[data-testid=stMain]').scrollTop"
    idle = page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.goto(f"{address}evaluation?collection=town&query=belltower_001.jpg")
    page.get_by_role("heading", name="All queries together").wait_for()
    chart = page.locator('[data-testid="stVegaLiteChart"]')
    chart.scroll_into_view_if_needed()
    area = chart.bounding_box()
    page.mouse.click(area["x"] + 0.7 * area["width"], area["y"] + 0.4 * area["height"])
    sync_api.expect(page).not_to_have_url(re.compile("belltower_001"))
    sync_api.expect(page.get_by_role("heading", name="One query")).to_be_in_viewport()
    idle.wait_for()
    page.locator('[class*="st-key-open-"] button').first.click()
    page.wait_for_function(  # the place is kept once the page stands still
        f"Number(sessionStorage.getItem(`scroll ${{location.pathname}}`)) === {top}"
    )
    left = page.evaluate(top)
    assert left > 300
    page.get_by_role("link", name="See the matches").click()
    page.get_by_role("heading", name="Keypoints and matches").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Evaluation").wait_for()
    page.wait_for_function(f"Math.abs({top} - {left}) < 5")

    address_before = page.url
    page.get_by_role("link", name="re-ranking", exact=True).click()
    sync_api.expect(page.get_by_role("heading", name="What does re-ranking")).to_be_in_viewport()
    page.get_by_role("link", name="all queries together").click()
    sync_api.expect(page.get_by_role("heading", name="All queries together")).to_be_in_viewport()
    assert page.url == address_before


@pytest.mark.skipif(
    "town" not in loaders.collection_titles(), reason="the embedded collection is not here"
)
def test_a_pdf_as_query_and_the_matches_of_an_upload(page, address):
    page.goto(f"{address}?collection=town&method=sir")
    page.get_by_role("radio", name="Upload").click()
    upload(page, {"name": "a.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4"})
    page.get_by_text("a.pdf is not a picture that can be read").wait_for()
    upload(page, ROOT / "precomputed/town/images/belltower_001.jpg")
    results(page)
    page.locator('[class*="st-key-open-sir-0"] button').first.click()
    page.get_by_role("link", name="See the matches").click()
    page.get_by_text("Still in use: belltower_001.jpg").wait_for()
    page.get_by_role("heading", name="XFeat").first.wait_for()
    page.get_by_role("img", name="matches are inliers, drawn as lines").first.wait_for()
    # Of the yellow frame only the downloaded figure said what it is.
    yellow = "Yellow: the query, and where it lies in the other picture."
    sync_api.expect(page.locator(".compare .note").first).to_contain_text(yellow)


@pytest.mark.parametrize(
    ("scrolls", "fades"),
    [
        (".dvn-scroller", ".stDataFrameGlideDataEditor"),
        ('[data-testid="stTable"] div:has(> table)', '[data-testid="stTable"] div:has(> table)'),
    ],
)
def test_tables_fade_where_they_go_on_to_the_right(page, address, scrolls, fades):
    """On a phone nothing said that a table has more columns than are seen."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}networks")
    table, mask = page.locator(scrolls).first, "mask-image"
    fading = page.locator(fades).first
    fading.wait_for()
    sync_api.expect(fading).to_have_css(mask, re.compile("linear-gradient"))
    table.evaluate("table => table.scrollLeft = table.scrollWidth")
    sync_api.expect(fading).to_have_css(mask, "none")
    page.set_viewport_size({"width": 1600, "height": 844})  # wide enough for all columns
    table.evaluate("table => table.scrollLeft = 0")
    sync_api.expect(fading).to_have_css(mask, "none")


@needs_town
def test_a_phone_shows_the_symbols_in_one_row_and_the_button_beside_the_sentence(page, address):
    """They took four rows, and the first results of the tour were hardly in sight."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}?collection=town&method=sir&query=hall_004.jpg")
    results(page)
    page.evaluate("document.fonts.ready")  # an icon is a long word until its font is there
    tops = (
        "[...document.querySelectorAll('.legend > span')].map(e => e.getBoundingClientRect().top)"
    )
    first, *others = page.evaluate(tops)
    assert all(abs(top - first) < 5 for top in others)
    sentence = page.get_by_text(re.compile("pictures are right, by the labels")).bounding_box()
    button = page.get_by_role("button", name="Choose another picture").bounding_box()
    assert sentence["x"] + sentence["width"] <= button["x"]
    assert button["y"] < sentence["y"] + sentence["height"]
    assert button["x"] + button["width"] <= 390


@needs_town
def test_a_phone_compares_all_methods_without_scrolling_sideways(phone, address):
    phone.goto(f"{address}?collection=town&method=all&query=hall_004.jpg&box=0,144,479,439")
    phone.locator(".st-key-open-cnn-irwnha-9").wait_for()
    settled(phone)
    phone.locator(".st-key-compared img").nth(29).wait_for()
    boxes = phone.evaluate(
        "[...document.querySelectorAll('.st-key-compared img')].map(e => e.getBoundingClientRect())"
        ".map(({x, y, width}) => ({x, y, width}))"
    )
    assert len(boxes) == 30
    assert all(box["width"] >= 100 and box["x"] + box["width"] <= 390 for box in boxes)
    assert len({round(box["x"]) for box in boxes}) == 3
    # Ranks are beside each other, whatever the headings have to say.
    tops = [box["y"] for box in boxes]
    assert max(tops[::10]) - min(tops[::10]) < 2


def test_the_menu_of_a_phone_closes_after_a_choice(phone, address):
    phone.goto(address)
    phone.get_by_text("Search by example").wait_for()
    phone.get_by_test_id("stExpandSidebarButton").tap()
    entry = phone.get_by_role("link", name="How it works")
    sync_api.expect(entry).to_be_in_viewport()
    entry.tap()
    phone.get_by_role("heading", name="How it works").wait_for()
    sync_api.expect(entry).not_to_be_in_viewport()


@needs_town
@pytest.mark.parametrize("by", ["link", "tap", "upload"])
def test_a_phone_shows_the_query_with_its_first_results(phone, address, by):
    asked = "&query=belltower_001.jpg" if by == "link" else ""
    phone.goto(f"{address}?collection=town&method=sir{asked}")
    if by == "tap":
        phone.get_by_role("button", name="Search with belltower 001").tap()
    if by == "upload":
        phone.get_by_role("radio", name="Upload").tap()
        upload(phone, ROOT / "precomputed/town/images/belltower_001.jpg")
    results(phone)
    verdict = "plain" if by == "upload" else "positive"
    sync_api.expect(phone.locator(f'[class*="st-key-card-{verdict}-sir-0"]')).to_be_in_viewport()
    sync_api.expect(phone.locator(".stage")).to_be_in_viewport(ratio=0.5)


@needs_town
def test_results_begin_on_the_screen_after_a_click_far_down(page, address):
    page.goto(f"{address}?collection=town&method=sir")
    cards = page.locator('[class*="st-key-open-browse-"] button')
    cards.last.wait_for(state="attached")
    cards.last.click()
    results(page)
    first = page.locator('[class*="st-key-card-"][class*="-sir-0"]')
    sync_api.expect(first).to_be_in_viewport()


@needs_town
def test_tab_reaches_the_heat_maps_of_a_dialog_and_escape_closes_it(page, address):
    """In a shadow root, as isolated styles need, they are skipped."""
    page.goto(f"{address}?collection=town&query=hall_004.jpg&method=sir")
    page.locator("div[class*='st-key-open-'] button").first.press("Enter")
    page.locator(".compare canvas").first.wait_for()
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.compare .side')"):
            break
    page.keyboard.press("ArrowRight")
    sync_api.expect(page.locator(".compare .note")).to_contain_text("This place adds")
    page.keyboard.press("Escape")
    page.locator("[role=dialog]").wait_for(state="detached")


@needs_town
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_has_the_focus_has_a_ring_that_is_seen(chromium, address, scheme):
    context = chromium.new_context(color_scheme=scheme)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.goto(address)
    card = page.locator("div[class*='st-key-card-']").first
    for focused, ring in (
        (page.get_by_role("link", name="Evaluation"),) * 2,
        (card.locator("[class*=st-key-open-] button"), card),
    ):
        page.keyboard.press("Tab")  # rings are for those who use keys
        focused.focus()
        sync_api.expect(ring).to_have_css("outline-color", "rgb(47, 127, 184)")
        sync_api.expect(ring).to_have_css("outline-style", "solid")
    context.close()
